"""SlowFast: a long video at a constant number of visual tokens, because most of its frames get few of them.

One frame of every `period` is slow (pooled as always), the others are fast (pooled over larger windows). Which frames are
slow is decided here, from the number of frames, their times and, for two of the modes, a score of every frame.
Shapes: F = frames of a video.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from olmo.config import BaseConfig, StrEnum
from olmo.exceptions import OLMoConfigurationError, OLMoDataError

DENSE_RATE = 2.0
"""Frames per second from which on scores decide nothing: so dense a sample is short, and its slow frames are spread evenly."""
RATE_TOLERANCE = 0.005
"""Times of frames are rounded to frames of the file, so the rate is met only nearly."""


class SlowFastMode(StrEnum):
    """Which frames are slow."""

    periodic = "periodic"
    query = "query"
    difference = "difference"


class FastToken(StrEnum):
    """Placeholder of a cell of a fast frame."""

    image_patch = "image_patch"
    image_low_res = "image_low_res"


@dataclass
class SlowFastConfig(BaseConfig):
    """Whether long videos have slow and fast frames when questions are asked; training never has."""

    mode: SlowFastMode | None = None
    """periodic, query (frames that resemble the question), difference (frames unlike their neighbours); null = all frames are alike."""
    limits: list[int] = field(default_factory=lambda: [128, 224, 300, 368])
    """Most frames of which every one, one of 2, one of 3, ... is slow; the first limit that suffices decides."""
    fast_window: int = 9
    """Rows and columns of patches of a cell of a fast frame."""
    fast_token: FastToken = FastToken.image_patch
    """Token at which a cell of a fast frame enters: image_patch, or image_low_res, which released models were not trained with."""
    encoder: str | None = None
    """query and difference: folder of a SigLIP or SigLIP 2 with both towers (google/siglip2-so400m-patch14-384), with its tokenizer."""
    encoder_device: str = "cpu"
    """Where it runs; with workers only cpu is possible."""

    def check(self, max_frames: int, window: int) -> None:
        """Refuse what cannot work with videos of up to `max_frames` frames whose slow frames have cells of `window` x `window`."""
        if self.mode is None:
            return
        where = "video.slow_fast"
        if not self.limits or self.limits[0] < 1 or list(self.limits) != sorted(set(self.limits)):
            raise OLMoConfigurationError(f"{where}.limits {list(self.limits)} must be positive numbers of frames that rise")
        if max_frames > self.limits[-1]:
            raise OLMoConfigurationError(
                f"video.max_frames {max_frames} is more than the last of {where}.limits {list(self.limits)}; lower it to {self.limits[-1]}"
            )
        if self.fast_window <= window:
            raise OLMoConfigurationError(f"{where}.fast_window {self.fast_window} must be larger than video.pooling_w {window}")
        if self.mode != SlowFastMode.periodic and not self.encoder:
            raise OLMoConfigurationError(
                f"{where}.mode {self.mode} needs {where}.encoder: a folder with a SigLIP 2 of two towers and its tokenizer"
            )


class FrameScorer(Protocol):
    """How the encoder is handed to the preprocessor."""

    def __call__(self, frames: np.ndarray, queries: Sequence[str]) -> np.ndarray:
        """[F, H, W, 3] uint8 frames and the texts that are asked about them -> [F] scores, high = slow."""
        ...


def choose_period(num_frames: int, limits: Sequence[int]) -> int:
    """The smallest p for which `limits` allow `num_frames` frames: one frame of every p is slow."""
    for period, limit in enumerate(limits, 1):
        if num_frames <= limit:
            return period
    raise OLMoDataError(f"the video has {num_frames} frames, but SlowFast encoding allows {limits[-1]} (video.slow_fast.limits)")


def num_slow(num_frames: int, period: int) -> int:
    return -(-num_frames // period)


def periodic(num_frames: int, period: int) -> np.ndarray:
    """Bool [F], true = slow: every `period`-th frame from the first on."""
    return np.arange(num_frames) % period == 0


def by_score(scores: np.ndarray, period: int) -> np.ndarray:
    """Bool [F], true = slow, as many as in `periodic`: half of them spread over the video, half wherever scores are highest.

    The local half is the best frame of each of floor(F_s / 2) groups of consecutive frames, whose lengths differ by one at
    most; the global half are the best of all that remain. Among equals the earlier frame is taken.
    """
    count = num_slow(len(scores), period)
    groups = count // 2
    slow = np.zeros(len(scores), dtype=bool)
    edges = np.arange(groups + 1) * len(scores) // max(groups, 1)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        slow[start + np.argmax(scores[start:stop])] = True
    ranked = np.argsort(-scores, kind="stable")
    slow[ranked[~slow[ranked]][: count - groups]] = True
    return slow


def sampling_rate(timestamps: Sequence[float]) -> float:
    """Frames per second between the first and the last frame; infinite where no time passes."""
    span = float(timestamps[-1]) - float(timestamps[0])
    return (len(timestamps) - 1) / span if span > 0 else np.inf


def slow_frames(
    config: SlowFastConfig, frames: np.ndarray, timestamps: Sequence[float], queries: Sequence[str], scorer: FrameScorer | None
) -> np.ndarray:
    """Bool [F], true = slow. `scorer` is called only where scores decide: a long video, not densely sampled."""
    period = choose_period(len(frames), config.limits)
    dense = sampling_rate(timestamps) >= DENSE_RATE * (1 - RATE_TOLERANCE)
    if config.mode == SlowFastMode.periodic or period == 1 or dense:
        return periodic(len(frames), period)
    if scorer is None:
        raise OLMoConfigurationError(f"video.slow_fast.mode {config.mode} needs a frame scorer, and this program brings none")
    return by_score(np.asarray(scorer(frames, queries)), period)
