"""From a path and a sampler to `VideoFrames`: the decoder that is handed to the preprocessor, and a stand-in that only measures."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from olmo.data.failures import BadVideoError
from olmo.data.frame_table import VideoInfo
from olmo.data.probes import Probes, VideoLength
from olmo.data.video_reader import VideoReader, VideoReaderConfig
from olmo.preprocessing.frame_sampling import FrameSampler, Sample, TimeSampler
from olmo.preprocessing.images import blank
from olmo.preprocessing.video import VideoFrames


class VideoLoader:
    """Decodes the frames that a sampler chooses (`olmo.preprocessing.video.LoadVideo`).

    Time stamps are the sampler's times, relative to the start of the clip, whichever frame was shown then: they become
    text, and the text must not depend on the frame rate of the file.
    """

    def __init__(self, config: VideoReaderConfig | None = None) -> None:
        self.config = config or VideoReaderConfig()
        self._reader: VideoReader | None = None

    def __getstate__(self) -> dict:
        return {"config": self.config, "_reader": None}

    @property
    def reader(self) -> VideoReader:
        if self._reader is None:
            self._reader = self.config.build()
        return self._reader

    def __call__(
        self,
        path: str,
        sampler: TimeSampler | FrameSampler,
        *,
        clip: tuple[float, float] | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> VideoFrames:
        info = self.reader.probe(path)
        chosen = choose(info, sampler, clip)
        indices = info.index_at(chosen.where) if isinstance(sampler, TimeSampler) else chosen.where
        return chosen.as_video(info, self.reader.frames_of(info, indices, transform))


class VideoMeasurer:
    """Stands in for a `VideoLoader` where only lengths are wanted: as many frames with the same times, all of them blank."""

    def __init__(self, probe: Probes) -> None:
        self.probe = probe

    def __call__(
        self,
        path: str,
        sampler: TimeSampler | FrameSampler,
        *,
        clip: tuple[float, float] | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> VideoFrames:
        length = self.probe(path)
        chosen = choose(length, sampler, clip)
        frame = blank((length.height, length.width, 3))
        frame = frame if transform is None else transform(frame)
        return chosen.as_video(length, np.broadcast_to(frame, (len(chosen.times), *frame.shape)))


class Chosen(NamedTuple):
    """The frames that a sampler chose of a clip."""

    sample: Sample
    times: np.ndarray
    """[T] seconds, relative to the start of the clip."""
    where: np.ndarray
    """[T] seconds from the start of the video (time sampler) or numbers of frames (frame sampler)."""

    def as_video(self, info: VideoInfo | VideoLength, frames: np.ndarray) -> VideoFrames:
        """The chosen `frames` [T, H, W, 3] with what is known about them."""
        size = (info.width, info.height)
        return VideoFrames(frames, self.times, target_fps=self.sample.target_fps, size_wh=size, sampled=self.sample.sampled)


def choose(info: VideoInfo | VideoLength, sampler: TimeSampler | FrameSampler, clip: tuple[float, float] | None) -> Chosen:
    """Let `sampler` choose frames of a video, or of `clip` = (start, end) seconds of it."""
    start, end = (0.0, info.duration) if clip is None else (float(clip[0]), min(float(clip[1]), info.duration))
    if not 0 <= start < end:
        raise BadVideoError(info.path, "invalid_clip", f"clip {list(clip or (start, end))}, video {info.duration:.3f} s")
    if isinstance(sampler, TimeSampler):
        sample = sampler(end - start)
        return Chosen(sample, sample.positions, start + sample.positions)
    fps = info.fps
    # The tolerance keeps 0.3 * 10 from becoming frame 2 (or 4, at the end).
    first = math.floor(start * fps + 1e-6)
    total = min(math.ceil(end * fps - 1e-6), info.num_frames) - first
    if total < 1:
        raise BadVideoError(info.path, "invalid_clip", f"no frame between {start:.3f} s and {end:.3f} s")
    sample = sampler(fps, total)
    return Chosen(sample, sample.positions / fps, first + sample.positions)
