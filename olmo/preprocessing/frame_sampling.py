"""Which moments of a video are looked at: pure functions of its duration (or frame count), before anything is decoded."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from olmo.budget import frames_within_budget
from olmo.exceptions import OLMoConfigurationError

DEFAULT_CANDIDATE_FPS = (0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 16.0)


class Sample(NamedTuple):
    """The answer of a sampler."""

    target_fps: float | None
    """The rate that was aimed at, when the mode has one."""
    positions: np.ndarray
    """Seconds (float64, time sampler) or frame indices (int64, frame sampler), ascending."""
    sampled: int | None = None
    """How many there were before some were left out; None where none were."""


@dataclass(frozen=True)
class FewerFrames:
    """Leaves out sampled frames, so that those that stay have no more cells than pruning by `topk` would leave of all of them."""

    cells_per_frame: int
    topk: float
    """Fraction of a video's cells that pruning would remove."""
    prune_from_frame: int = 0
    """Frames that its budget does not count."""

    def count(self, num_frames: int) -> int:
        """How many of `num_frames` sampled frames stay."""
        return frames_within_budget(num_frames, self.cells_per_frame, self.topk, self.prune_from_frame)

    def which(self, num_frames: int) -> np.ndarray:
        """Numbers of the frames that stay: evenly spread, from the first to the last (one alone is the first)."""
        return np.linspace(0, num_frames - 1, self.count(num_frames)).round().astype(np.int64)

    def of(self, sample: Sample) -> Sample:
        """What stays of a sampler's answer."""
        n = len(sample.positions)
        return sample._replace(positions=sample.positions[self.which(n)], sampled=n) if n else sample


def _rng(rng: np.random.Generator | None, mode: str) -> np.random.Generator:
    if rng is None:
        raise OLMoConfigurationError(f"frame_sample_mode '{mode}' draws at random while training and needs a random generator")
    return rng


@dataclass
class TimeSampler:
    """Chooses times in seconds, from 0 to the duration of the (clipped) video."""

    max_frames: int = 8
    """Most frames taken from one video."""
    frame_sample_mode: str = "fps"
    """uniform, uniform_last_frame, uniform_last_frame_sample_fps or fps."""
    candidate_sampling_fps: list[float] = field(default_factory=lambda: list(DEFAULT_CANDIDATE_FPS))
    """Rates tried by mode `fps`, ascending."""
    max_fps: list[float] | float | None = None
    """Rate of the uniform_last_frame modes; a longer video is sampled uniformly. Of a list, evaluation takes the first."""
    is_training: bool = False
    """Whether the random variants are on."""
    rng: np.random.Generator | None = None
    """Source of randomness (the example's own generator)."""
    fewer: FewerFrames | None = None
    """Which of the chosen times are left out."""

    def __call__(self, duration: float) -> Sample:
        sample = self._sample(duration)
        return sample if self.fewer is None else self.fewer.of(sample)

    def _sample(self, duration: float) -> Sample:
        n, mode = self.max_frames, self.frame_sample_mode
        if mode == "uniform":
            if self.max_fps is not None:
                raise OLMoConfigurationError("frame_sample_mode 'uniform' takes no max_fps; use uniform_last_frame")
            return Sample(None, np.linspace(0, duration, n, endpoint=False))
        if mode in ("uniform_last_frame", "uniform_last_frame_sample_fps"):
            return Sample(None, self._with_last_frame(duration, self._rate(mode)))
        if mode == "fps":
            fps = self.candidate_sampling_fps[0]
            for candidate in self.candidate_sampling_fps[1:]:
                if n / candidate < duration:
                    break
                fps = candidate
            times = np.arange(n) / fps
            return Sample(fps, times[times < duration])
        raise OLMoConfigurationError(
            f"unknown frame_sample_mode '{mode}' by time; known: uniform, uniform_last_frame, uniform_last_frame_sample_fps, fps"
        )

    def _rate(self, mode: str) -> float | None:
        rates = self.max_fps
        if mode == "uniform_last_frame_sample_fps":
            if not isinstance(rates, (list, tuple)) or len(rates) != 2:
                raise OLMoConfigurationError(f"frame_sample_mode '{mode}' needs max_fps with two rates, not {rates}")
            low, high = rates
            if self.is_training and _rng(self.rng, mode).random() >= 0.1:
                return float(self.rng.uniform(low, high))
            return low
        if not isinstance(rates, (list, tuple)):
            return rates
        if self.is_training and len(rates) > 1:
            return float(_rng(self.rng, mode).choice(rates))
        return rates[0]

    def _with_last_frame(self, duration: float, fps: float | None) -> np.ndarray:
        n = self.max_frames
        if fps is not None and (n - 1) / fps >= duration:
            times = np.append(np.arange(0, duration, 1 / fps), duration)
            if len(times) <= n:
                return times
        return np.linspace(0, duration, n, endpoint=True)


@dataclass
class FrameSampler:
    """Chooses frame indices from a known frame rate and frame count."""

    max_frames: int = 8
    """Most frames taken from one video."""
    frame_sample_mode: str = "fps"
    """uniform, uniform_last_frame[_max_fps_set_A-B.. | _min_2-4 | _min_2-6 | _min_Xfps], uniform_randomized, fps, fps_uniform."""
    candidate_sampling_fps: list[float] = field(default_factory=lambda: list(DEFAULT_CANDIDATE_FPS))
    """Rates tried by the fps modes, ascending."""
    min_fps: float | None = None
    """Rate of uniform_last_frame; a video too long for it is sampled uniformly."""
    is_training: bool = False
    """Whether the random variants are on."""
    rng: np.random.Generator | None = None
    """Source of randomness (the example's own generator)."""
    fewer: FewerFrames | None = None
    """Which of the chosen frames are left out."""

    def __call__(self, video_fps: float, total_frames: int) -> Sample:
        sample = self._sample(video_fps, total_frames)
        return sample if self.fewer is None else self.fewer.of(sample)

    def _sample(self, video_fps: float, total_frames: int) -> Sample:
        n, mode = self.max_frames, self.frame_sample_mode
        if mode == "uniform":
            return Sample(None, _to_index(np.linspace(0, total_frames, min(n, total_frames), endpoint=False)))
        if mode.startswith("uniform_last_frame"):
            return self._last_frame(video_fps, total_frames, self._rate(mode))
        if mode == "uniform_randomized":
            return self._randomized(total_frames)
        if mode in ("fps", "fps_uniform"):
            return self._by_candidates(video_fps, total_frames, stop_if_too_many=mode == "fps_uniform")
        raise OLMoConfigurationError(
            f"unknown frame_sample_mode '{mode}' by index; known: uniform, uniform_last_frame, uniform_randomized, fps, fps_uniform"
        )

    def _rate(self, mode: str) -> float | None:
        suffix = mode.removeprefix("uniform_last_frame")
        if not suffix:
            return self.min_fps
        if found := re.fullmatch(r"_max_fps_set_([\d.]+(?:-[\d.]+)*)", suffix):
            rates = [float(x) for x in found[1].split("-")]
        elif suffix.startswith("_min_2-4"):
            rates = [2.0, 4.0]
        elif suffix.startswith("_min_2-6"):
            rates = [2.0, 4.0, 6.0]
        elif found := re.fullmatch(r"_min_([\d.]+)fps", suffix):
            rates = [float(found[1])]
        else:
            raise OLMoConfigurationError(f"unknown frame_sample_mode '{mode}'")
        if self.is_training and len(rates) > 1:
            return float(_rng(self.rng, mode).choice(rates))
        return rates[0]

    def _last_frame(self, video_fps: float, total: int, fps: float | None) -> Sample:
        n = self.max_frames
        if fps is not None and total <= 2:
            return Sample(None, np.arange(total))
        if fps is None or total / video_fps > n / fps - 1:
            return Sample(None, _to_index(np.linspace(0, total - 1, min(n, total), endpoint=True)))
        positions = np.arange(0, total - 1, video_fps / fps)
        if round(float(positions[-1])) != total - 1:
            positions = np.append(positions, total - 1)
        return Sample(fps, np.round(positions).astype(np.int64))

    def _randomized(self, total: int) -> Sample:
        n = self.max_frames
        if total <= n:
            return Sample(None, np.arange(total))
        step = total // n
        index = np.arange(n) * step
        if self.is_training and _rng(self.rng, "uniform_randomized").random() < 0.7:
            index[1:] += self.rng.integers(-(step // 2), max((total - step * (n - 1)) // 2, 1 - step // 2))
            return Sample(None, index)
        return Sample(None, index)

    def _by_candidates(self, video_fps: float, total: int, stop_if_too_many: bool) -> Sample:
        n = self.max_frames
        chosen, best = None, 0
        for fps in self.candidate_sampling_fps:
            count = int(total / max(int(video_fps / fps), 1))
            if chosen is None:
                if stop_if_too_many and count > n:
                    break
                chosen, best = fps, count
            elif best < count <= n:
                chosen, best = fps, count
        if chosen is None:
            return Sample(None, _to_index(np.linspace(0, total, n, endpoint=False)))
        return Sample(chosen, np.arange(0, total, max(int(video_fps / chosen), 1))[:n])


def _to_index(positions: np.ndarray) -> np.ndarray:
    return positions.astype(np.int64)
