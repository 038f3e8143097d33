"""From a path and a sampler to `VideoFrames`: the decoder that is handed to the preprocessor."""

import math
from collections.abc import Callable

import numpy as np

from olmo.data.failures import BadVideoError
from olmo.data.frame_table import VideoInfo
from olmo.data.video_reader import VideoReader, VideoReaderConfig
from olmo.preprocessing.frame_sampling import FrameSampler, TimeSampler
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
        start, end = info.part(clip)
        by_time = isinstance(sampler, TimeSampler)
        sample, times, indices = (_by_time if by_time else _by_index)(info, sampler, start, end)
        frames = self.reader.frames_of(info, indices, transform)
        return VideoFrames(
            frames=frames,
            timestamps=times,
            target_fps=sample.target_fps,
            size_wh=(info.width, info.height),
            sampled=sample.sampled,
        )


def _by_time(info: VideoInfo, sampler: TimeSampler, start: float, end: float):
    sample = sampler(end - start)
    return sample, sample.positions, info.index_at(start + sample.positions)


def _by_index(info: VideoInfo, sampler: FrameSampler, start: float, end: float):
    fps = info.fps
    # The tolerance keeps 0.3 * 10 from becoming frame 2 (or 4, at the end).
    first = math.floor(start * fps + 1e-6)
    total = min(math.ceil(end * fps - 1e-6), info.num_frames) - first
    if total < 1:
        raise BadVideoError(info.path, "invalid_clip", f"no frame between {start:.3f} s and {end:.3f} s")
    sample = sampler(fps, total)
    return sample, sample.positions / fps, first + sample.positions
