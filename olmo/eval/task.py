"""What an evaluation is: one declarative record."""

from dataclasses import dataclass, replace
from typing import Literal

from olmo.exceptions import OLMoCliError

BATCH_PRESETS = ("4b-default", "8b-default")

Kind = Literal["video", "count", "point", "track", "image", "images"]
"""What is asked about: a video; to count, point or track in a video; one image; several images."""

_ONE_AT_A_TIME = {"4b-default": ("point", "track"), "8b-default": ("count", "point", "track")}


@dataclass(frozen=True)
class Task:
    """One evaluation: which questions, how long the answers may be, and how they are scored. How it is asked is up to its data set."""

    name: str
    """Name on the command line."""
    title: str
    """Name in tables."""
    split: str
    """Split taken when none is asked for."""
    max_new_tokens: int
    """Longest answer, in tokens."""
    metric: str | None
    """Key of `olmo.eval.metrics.METRICS`; None = its answers are not known here, so that only predictions are written."""
    kind: Kind = "video"
    """Decides, with `long_video`, how many questions the presets put into a batch."""
    long_video: bool = False
    """Long videos take smaller batches in the presets."""
    judge: bool = False
    """Whether its predictions get their scores from a judge, in a command of its own."""
    unanswered: tuple[str, ...] = ()
    """Splits whose answers their publisher keeps."""
    dataset: str | None = None
    """What the questions come from, where it is not called as the task: the path of a data file."""

    @property
    def source(self) -> str:
        """What the catalogue opens."""
        return self.dataset or self.name

    @property
    def label(self) -> str:
        return f"{self.name}:{self.split}"

    def on(self, split: str) -> "Task":
        """The same task on another split; without a metric where its answers are not published."""
        return replace(self, split=split, metric=None if split in self.unanswered else self.metric)

    def batch_size(self, preset: str | int) -> int:
        """Rows per device: a number, or a preset named after the model it suits on an 80 GB device."""
        if isinstance(preset, int):
            return preset
        if self.kind in _ONE_AT_A_TIME[preset] or (preset == "8b-default" and self.long_video):
            return 1
        return 4 if self.kind == "image" else 2


def parse_batch_size(text: str) -> str | int:
    """The value of `--device_batch_size`: a positive number or the name of a preset."""
    if text in BATCH_PRESETS:
        return text
    if not text.isdigit() or int(text) < 1:
        raise OLMoCliError(f"--device_batch_size={text}: must be a positive number or one of {', '.join(BATCH_PRESETS)}")
    return int(text)
