"""When each frame of a video is shown: one table, read from the packets, that every decoding backend shares.

Backends disagree about durations, stream offsets and what lies on a frame boundary; and some of them loop forever on a
file that promises more frames than it has. So the times come from here, the backends only decode numbered frames, and a
broken file is found before a native decoder sees it. Reading the packets decodes nothing.
"""

import os
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from olmo.data.failures import BadVideoError

LOOKUP_TOLERANCE = 1e-6
"""A time this close before a frame's start shows that frame: times like 7 * 0.1 must not fall back one frame."""


@dataclass(frozen=True)
class VideoInfo:
    """Geometry and timing of one video stream; seconds count from the start of its first frame."""

    path: str
    width: int
    height: int
    pts: np.ndarray
    """[n] int64 presentation stamps in display order, in units of the stream's time base."""
    starts: np.ndarray
    """[n] float64 seconds at which each frame appears."""
    duration: float
    """End of the last frame."""
    keyframe_pts: np.ndarray
    """[n] int64 stamp of the key frame from which a frame can be decoded."""
    seekable: bool
    """False where the container has no usable packet stamps, so that decoding has to start at the beginning."""

    @property
    def num_frames(self) -> int:
        return len(self.pts)

    @property
    def fps(self) -> float:
        return self.num_frames / self.duration

    def index_at(self, seconds: np.ndarray) -> np.ndarray:
        """Frame shown at each time: frame i is shown in [start_i, start_i+1), the last one to the end and beyond."""
        index = np.searchsorted(self.starts, np.asarray(seconds, dtype=np.float64) + LOOKUP_TOLERANCE, side="right") - 1
        return np.clip(index, 0, self.num_frames - 1)


class _Packet(NamedTuple):
    pts: int | None
    duration: int | None
    is_keyframe: bool


def read_frame_table(path: str, timeout: float = 60.0) -> VideoInfo:
    """Build the table within `timeout` seconds, or raise `BadVideoError` with the cause."""
    import av

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise BadVideoError(path, "missing")
    if os.path.getsize(path) == 0:
        raise BadVideoError(path, "empty")
    try:
        with av.open(path, timeout=timeout) as container:
            return _from_container(container, path, time.monotonic() + timeout)
    except (av.error.FFmpegError, ValueError, OSError) as err:
        raise BadVideoError(path, "corrupt", getattr(err, "strerror", None) or str(err)) from None


def video_stream(container, path: str):
    """The first real video stream (cover pictures of audio files are not videos)."""
    for stream in container.streams.video:
        if not stream.disposition & type(stream.disposition).attached_pic:
            return stream
    raise BadVideoError(path, "no_video")


def _from_container(container, path: str, deadline: float) -> VideoInfo:
    stream = video_stream(container, path)
    packets: list[_Packet] = []  # not the packets themselves: those hold the whole file
    for packet in container.demux(stream):
        if packet.size > 0 and not packet.is_discard:
            packets.append(_Packet(packet.pts, packet.duration, packet.is_keyframe))
        if time.monotonic() > deadline:
            raise BadVideoError(path, "timeout", "reading its packets")
    if not packets:
        raise BadVideoError(path, "no_frames")
    if stream.frames and len(packets) < 0.95 * stream.frames:
        raise BadVideoError(path, "truncated", f"{len(packets)} of {stream.frames} frames are there")
    if any(p.pts is None for p in packets):
        return _by_decoding(container, stream, path, deadline)
    pts, keys = _decodable(packets, path)
    durations = {p.pts: p.duration for p in packets}
    return _table(path, stream, pts, keys, durations[int(pts[-1])], seekable=True)


def _decodable(packets: list[_Packet], path: str) -> tuple[np.ndarray, np.ndarray]:
    """Stamps in display order and the key frame of each; what precedes the first key frame cannot be decoded."""
    keys = np.unique([p.pts for p in packets if p.is_keyframe])
    if not len(keys):
        raise BadVideoError(path, "corrupt", "no key frame")
    pts = np.unique([p.pts for p in packets])
    pts = pts[pts >= keys[0]]
    return pts, keys[np.searchsorted(keys, pts, side="right") - 1]


def _by_decoding(container, stream, path: str, deadline: float) -> VideoInfo:
    container.seek(0)
    durations: dict[int, int | None] = {}
    for frame in container.decode(stream):
        if time.monotonic() > deadline:
            raise BadVideoError(path, "timeout", "decoding it for its time stamps")
        if frame.pts is not None:
            durations[frame.pts] = frame.duration
    if not durations:
        raise BadVideoError(path, "corrupt", "no frame has a time stamp")
    pts = np.unique(list(durations))
    return _table(path, stream, pts, np.full_like(pts, pts[0]), durations[int(pts[-1])], seekable=False)


def _table(path: str, stream, pts: np.ndarray, keys: np.ndarray, last_duration: int | None, *, seekable: bool) -> VideoInfo:
    base = stream.time_base
    ticks = (pts - pts[0]).astype(np.int64)
    # One exact division per value: 3.0000000000000004 s instead of 3 s would be sampled one frame more.
    starts = ticks * base.numerator / base.denominator
    if last_duration:
        duration = float((int(ticks[-1]) + last_duration) * base)
    else:
        rate = stream.average_rate or stream.guessed_rate
        duration = (
            float(int(ticks[-1]) * base + 1 / rate) if rate else float(starts[-1] + (np.diff(starts).mean() if len(pts) > 1 else 1.0))
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if width <= 0 or height <= 0:
        raise BadVideoError(path, "corrupt", "the frames have no size")
    return VideoInfo(path, width, height, pts.astype(np.int64), starts, duration, keys.astype(np.int64), seekable)
