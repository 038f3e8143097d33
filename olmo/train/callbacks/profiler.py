"""Where the time of a step goes: torch's profiler (operators, kernels) and Python's own, for a few steps of rank 0."""

import cProfile
import io
import logging
import pstats
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from olmo.train.callbacks.base import Callback
from olmo.train.saving.checkpoint import cannot_write

log = logging.getLogger(__name__)

FOLDER = "profiler"
"""Below the save folder."""
ROWS = 32
"""Of a table in the log."""


def profiler_file(save_folder: str, name: str) -> Path:
    """Where a result goes; makes the folder."""
    try:
        (folder := Path(save_folder) / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise cannot_write(save_folder)(err) from None
    return folder / name


class TorchProfiler(Callback):
    """One step goes by, five warm the profiler up, three are recorded: their dearest operators go to the log, all of them to
    `<save_folder>/profiler/<last step>.chrome_trace.json.gz` (for chrome://tracing or ui.perfetto.dev)."""

    WAIT, WARM_UP, ACTIVE = 1, 5, 3

    def __init__(self, save_folder: str):
        self.save_folder = save_folder
        self.profile: profile | None = None

    def on_start(self, trainer) -> None:
        if not trainer.world.is_main:
            return
        cuda = trainer.world.device.type == "cuda"
        self.profile = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])],
            schedule=schedule(wait=self.WAIT, warmup=self.WARM_UP, active=self.ACTIVE, repeat=1),
        )
        self.profile.start()

    def on_step(self, trainer, result, metrics) -> None:
        if self.profile is None:
            return
        if trainer.steps_done < self.WAIT + self.WARM_UP + self.ACTIVE:
            self.profile.step()
            return
        finished, self.profile = self.profile, None
        finished.stop()
        self._report(finished, trainer)

    def _report(self, finished: profile, trainer) -> None:
        kind = "cuda" if trainer.world.device.type == "cuda" else "cpu"
        table = finished.key_averages().table(sort_by=f"self_{kind}_time_total", row_limit=ROWS)
        path = profiler_file(self.save_folder, f"{trainer.state.step}.chrome_trace.json.gz")
        try:
            finished.export_chrome_trace(str(path))
        except OSError as err:
            raise cannot_write(self.save_folder)(err) from None
        log.info("operators of %d steps, by their own time on the %s (trace: %s):\n%s", self.ACTIVE, kind.upper(), path, table)

    def on_end(self, trainer, status) -> None:
        if self.profile is not None:
            self.profile.stop()
            self.profile = None
            log.warning("torch_profiling: no trace, it needs %d steps in one start", self.WAIT + self.WARM_UP + self.ACTIVE)


class PythonProfiler(Callback):
    """Python functions of steps 5 to 8 of this start: the dearest go to the log, all of them to
    `<save_folder>/profiler/<last step>.prof` (for `python -m pstats`). Only the training thread is seen; data workers are not."""

    FIRST, LAST = 5, 8

    def __init__(self, save_folder: str):
        self.save_folder = save_folder
        self.profile: cProfile.Profile | None = None

    def on_step(self, trainer, result, metrics) -> None:
        if not trainer.world.is_main:
            return
        if trainer.steps_done == self.FIRST - 1:
            self.profile = cProfile.Profile()
            self.profile.enable()
        elif trainer.steps_done == self.LAST:
            self._report(trainer)

    def _report(self, trainer) -> None:
        finished, self.profile = self.profile, None
        finished.disable()
        path = profiler_file(self.save_folder, f"{trainer.state.step}.prof")
        try:
            finished.dump_stats(path)
        except OSError as err:
            raise cannot_write(self.save_folder)(err) from None
        text = io.StringIO()
        pstats.Stats(finished, stream=text).sort_stats("tottime").print_stats(ROWS)
        steps = f"steps {self.FIRST} to {self.LAST} of this start"
        log.info("Python functions of %s, by their own time (all: %s):%s", steps, path, text.getvalue())

    def on_end(self, trainer, status) -> None:
        if self.profile is not None:
            self.profile.disable()
            self.profile = None
        if trainer.world.is_main and trainer.steps_done < self.LAST:
            log.warning("python_profiling: no file, it needs %d steps in one start", self.LAST)
