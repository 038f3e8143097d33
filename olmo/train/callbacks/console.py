"""One fixed-width line per `console_log_interval` steps, and a progress bar when the output is a terminal."""

import logging
import math
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from olmo.train.callbacks.base import Callback

log = logging.getLogger("olmo.train")


def short(value: float) -> str:
    """A number in at most six characters."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.99995 * size:  # what would be rounded to 1000.0 of the unit below
            return f"{value / size:.1f}{unit}"
    return f"{value:.1f}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; a day is 24 hours."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def format_line(step: int, last_step: int, loss: float, accuracy: float, metrics: dict[str, float]) -> str:
    """The log line; every field has a fixed width, so that lines stand in columns."""
    width = len(str(last_step))
    used = f" | mfu {100 * metrics['throughput/device/mfu']:4.1f}%" if "throughput/device/mfu" in metrics else ""
    return (
        f"step {step:>{width}}/{last_step} | loss {loss:8.4f} | acc {accuracy:5.3f} | kept {metrics['train/kept_fraction']:5.3f}"
        f" | tok/s {short(metrics['throughput/device/tokens_per_second']):>6}"
        f" | frames/s {short(metrics['throughput/device/frames_per_second']):>6}"
        f"{used} | wait {100 * metrics['throughput/data_wait_fraction']:3.0f}% | {metrics['throughput/seconds_per_step']:7.3f} s"
        f" | eta {clock(metrics['throughput/eta_seconds']):>9}"
    )


class ConsoleLogger(Callback):
    """Prints on rank 0. Loss and accuracy of a line are means over the steps since the line before, without skipped
    ones."""

    def __init__(self, interval: int, console: Console):
        self.interval, self.console = interval, console
        self.losses: deque[float] = deque(maxlen=interval)
        self.accuracies: deque[float] = deque(maxlen=interval)
        self.progress: Progress | None = None
        self.task = None

    def on_start(self, trainer) -> None:
        if trainer.world.is_main and self.console.is_terminal:
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[eta]} left"),
            )
            self.progress = Progress(*columns, console=self.console, transient=True)
            self.task = self.progress.add_task("", total=trainer.last_step, completed=trainer.state.step, eta="?")
            self.progress.start()

    def on_step(self, trainer, result, metrics) -> None:
        if not trainer.world.is_main:
            return
        step = trainer.state.step
        if math.isfinite(metrics["train/CrossEntropyLoss"]):
            self.losses.append(metrics["train/CrossEntropyLoss"])
            self.accuracies.append(metrics["train/Accuracy"])
        if self.progress is not None:
            self.progress.update(self.task, completed=step, total=trainer.last_step, eta=clock(metrics["throughput/eta_seconds"]))
        if step % self.interval == 0 or step == trainer.last_step or trainer.steps_done == 1:
            loss, accuracy = (sum(v) / len(v) if v else math.nan for v in (self.losses, self.accuracies))
            log.info(format_line(step, trainer.last_step, loss, accuracy, metrics))

    def on_saved(self, trainer, folder) -> None:
        if trainer.world.is_main:
            log.info("saved %s", folder)

    def on_end(self, trainer, status) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
