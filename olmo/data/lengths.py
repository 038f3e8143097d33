"""How long an example is, found without decoding anything.

The real preprocessor runs on the real example with the example's own random generator; only pixels are blank. So the lengths
are those after decoding, not an estimate, and a row that is planned with them cannot overflow.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from olmo.data.load_video import VideoMeasurer
from olmo.data.probes import Probes
from olmo.preprocessing.example import ProcessedExample
from olmo.preprocessing.images import BlankPixels, blank_image
from olmo.preprocessing.multimodal import ExamplePreprocessor


@dataclass(frozen=True)
class Lengths:
    """What an example takes of a row."""

    tokens: int
    """Tokens of the language model, after pruning."""
    frames: int
    """Frames and crops of the ViT."""
    loss_tokens: int
    """Tokens with a loss weight."""

    @classmethod
    def of(cls, example: ProcessedExample) -> "Lengths":
        return cls(example.num_tokens_after_pruning, example.num_frames, example.num_loss_tokens)


class LengthPreprocessor:
    """What an `ExamplePreprocessor` makes of an example, but for its pixels."""

    def __init__(self, preprocessor: ExamplePreprocessor, probe: Probes) -> None:
        self._blank = copy.copy(preprocessor)
        self._blank.load_video = VideoMeasurer(probe)
        for kind in ("video", "image"):
            if (part := getattr(preprocessor, kind)) is not None:
                part = copy.copy(part)
                part.pixels = BlankPixels(**{f.name: getattr(part.pixels, f.name) for f in fields(part.pixels)})
                setattr(self._blank, kind, part)

    @property
    def max_frames(self) -> int:
        return self._blank.max_frames

    def __call__(self, example: Mapping[str, Any], rng: np.random.Generator) -> ProcessedExample:
        """The processed example with `images` that are zeros and take no memory."""
        if (image := example.get("image")) is not None:
            many = isinstance(image, (list, tuple))
            example = {**example, "image": [blank_image(i) for i in image] if many else blank_image(image)}
        return self._blank(example, rng)
