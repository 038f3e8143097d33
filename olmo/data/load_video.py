"""From a path and a sampler to `VideoFrames`: the decoder that is handed to the preprocessor, and a stand-in that only measures."""

import math
from typing import NamedTuple

import numpy as np

from olmo.data.decoders import FrameTransform
from olmo.data.failures import BadVideoError
from olmo.data.frame_table import VideoInfo, clip_of
from olmo.data.probes import Probes, VideoLength
from olmo.data.video_reader import VideoReader, VideoReaderConfig
from olmo.preprocessing.frame_sampling import FrameSampler, Sample, TimeSampler
from olmo.preprocessing.images import blank
from olmo.preprocessing.video import VideoFrames


class _ChoosesFrames:
    """Lets a sampler choose frames (`olmo.preprocessing.video.LoadVideo`).

    Time stamps are the sampler's times, relative to the start of the clip, whichever frame was shown then: they become
    text, and the text must not depend on the frame rate of the file.
    """

    def __call__(
        self,
        path: str,
        sampler: TimeSampler | FrameSampler,
        *,
        clip: tuple[float, float] | None = None,
        transform: FrameTransform | None = None,
    ) -> VideoFrames:
        info = self.probe(path)
        chosen = choose(info, sampler, clip)
        return VideoFrames(
            frames=self.frames(info, chosen, transform),
            timestamps=chosen.times,
            target_fps=chosen.sample.target_fps,
            size_wh=(info.width, info.height),
            sampled=chosen.sample.sampled,
        )


class VideoLoader(_ChoosesFrames):
    """Decodes the frames that are chosen."""

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

    def probe(self, path: str) -> VideoInfo:
        return self.reader.probe(path)

    def frames(self, info: VideoInfo, chosen: "Chosen", transform: FrameTransform | None) -> np.ndarray:
        return self.reader.frames_of(info, info.index_at(chosen.where) if chosen.by_time else chosen.where, transform)


class VideoMeasurer(_ChoosesFrames):
    """Stands in for a `VideoLoader` where only lengths are wanted: as many frames with the same times, all of them blank."""

    def __init__(self, probe: Probes) -> None:
        self.probe = probe

    def frames(self, info: VideoLength, chosen: "Chosen", transform: FrameTransform | None) -> np.ndarray:
        frame = blank((info.height, info.width, 3))
        frame = frame if transform is None else transform(frame)
        return np.broadcast_to(frame, (len(chosen.times), *frame.shape))


class Chosen(NamedTuple):
    """The frames that a sampler chose of a clip."""

    sample: Sample
    times: np.ndarray
    """[T] seconds, relative to the start of the clip."""
    where: np.ndarray
    """[T] seconds from the start of the video, or numbers of frames."""
    by_time: bool
    """Which of the two."""


def choose(info: VideoInfo | VideoLength, sampler: TimeSampler | FrameSampler, clip: tuple[float, float] | None) -> Chosen:
    """Let `sampler` choose frames of a video, or of `clip` = (start, end) seconds of it."""
    start, end = clip_of(info.path, info.duration, clip)
    if isinstance(sampler, TimeSampler):
        sample = sampler(end - start)
        return Chosen(sample, sample.positions, start + sample.positions, by_time=True)
    fps = info.fps
    # The tolerance keeps 0.3 * 10 from becoming frame 2 (or 4, at the end).
    first = math.floor(start * fps + 1e-6)
    total = min(math.ceil(end * fps - 1e-6), info.num_frames) - first
    if total < 1:
        raise BadVideoError(info.path, "invalid_clip", f"no frame between {start:.3f} s and {end:.3f} s")
    sample = sampler(fps, total)
    return Chosen(sample, sample.positions / fps, first + sample.positions, by_time=False)
