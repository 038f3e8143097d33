"""TensorBoard event files as a second place for the metrics."""

from pathlib import Path
from typing import Any

from olmo.train.callbacks.sink import Sink
from olmo.train.config_blocks import TensorboardConfig


class TensorboardLogger(Sink):
    """Event files below the save folder. What an earlier start reported from the first step of this one on is hidden."""

    title = "tensorboard"

    def __init__(self, cfg: TensorboardConfig):
        super().__init__(cfg.log_interval)
        self.cfg = cfg
        self.writer: Any = None

    def open(self, trainer) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(self.cfg.folder or Path(trainer.cfg.save_folder) / "tensorboard")
        step = trainer.state.step
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)
        indented = "".join(f"    {line}\n" for line in trainer.cfg.to_yaml().splitlines())  # a code block of Markdown
        self.writer.add_text("config", indented, step)
        self.writer.flush()

    def report(self, metrics, step) -> None:
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def close(self, status) -> None:
        self.writer.close()
