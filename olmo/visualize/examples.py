"""The first examples of the stream, with the pixels that the model gets and, given a model, the cells that it keeps."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from olmo.batch import MultimodalType
from olmo.data.loader import TrainLoader
from olmo.data.mixture_stream import Draw
from olmo.inference.api import VideoQA, kept_cells
from olmo.preprocessing.example import ProcessedExample


@dataclass
class SeenExample:
    """One example as training gets it."""

    dataset: str
    draw: Draw
    example: ProcessedExample
    substituted: list[str]
    """Why the examples were left out that stood at this place before it."""
    frames: np.ndarray | None
    """[T, H, W, 3] uint8, as large (and as squashed) as the model sees them; None without pictures."""
    keep: np.ndarray | None = None
    """[T, C] bool, the cells that the model keeps; None without a model, or where it drops nothing."""
    scores: np.ndarray | None = None
    """[T, C] score of every cell."""

    @property
    def is_video(self) -> bool:
        return any(s.kind == MultimodalType.VIDEO for s in self.example.segments)

    @property
    def times(self) -> list[float]:
        """Seconds of the frames of a video."""
        return self.example.metadata["frame_times"]


def read_example(loader: TrainLoader, number: int) -> SeenExample:
    """The `number`-th example of the loader's stream; a broken one is replaced as in training."""
    source = loader.source
    place = loader.cfg.start_index + number
    loaded = source[place]
    if loaded.error is not None:
        raise loaded.error
    draw = source.stream.draw(place, skip=loaded.reads - 1)
    reasons = [str(f) for f in loaded.failures] + [f"{n} fit no row ({reason})" for reason, n in sorted(loaded.rejected.items())]
    frames = None
    if loaded.example.images is not None:
        frames = source.preprocessor.image.pixels.from_patches(loaded.example.images)
    return SeenExample(source.members[draw.dataset].name, draw, loaded.example, reasons, frames)


def look(qa: VideoQA, loader: TrainLoader, seen: SeenExample) -> None:
    """Let the model select cells: fills `keep` and `scores` of a video."""
    if not seen.is_video:
        return
    batch = loader.collator([seen.example]).to(qa.device)
    cast = nullcontext() if qa.autocast is None else torch.autocast(qa.device.type, qa.autocast)
    with torch.inference_mode(), cast:
        seen.keep, seen.scores = kept_cells(qa.model.encode_vision(batch), seen.example)
