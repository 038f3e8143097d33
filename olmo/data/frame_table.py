"""When each frame of a video is shown: one table, read from the packets, that every decoding backend shares.

Backends disagree about durations, stream offsets and what lies on a frame boundary; and some of them loop forever on a
file that promises more frames than it has. So the times come from here, the backends only decode numbered frames, and a
broken file is found before a native decoder sees it. Beside reading the packets, only the first frame is decoded.
"""

import os
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from olmo.data.failures import BadVideoError

LOOKUP_TOLERANCE = 1e-6
"""A time this close before a frame's start shows that frame: times like 7 * 0.1 must not fall back one frame."""

PRESENT = 0.95
"""Share of the promised frames or of the promised time that must be there."""

FIRST_FRAME_WITHIN = 32
"""Packets within which a decoder should give its first frame."""


@dataclass(frozen=True)
class VideoInfo:
    """Geometry and timing of one video stream; seconds count from the start of its first frame."""

    path: str
    width: int
    height: int
    """Of the pictures as they come out, turned upright."""
    pts: np.ndarray
    """[n] int64 presentation stamps in display order, in units of the stream's time base."""
    starts: np.ndarray
    """[n] float64 seconds at which each frame appears."""
    duration: float
    """End of the last frame."""
    keyframe_pts: np.ndarray
    """[n] int64 stamp of the key frame from which a frame can be decoded."""
    seekable: bool = True
    """False where the container has no usable presentation stamps: frames are told apart by counting from the beginning."""
    portable: bool = True
    """Every library finds the frames of this file. False for files without presentation stamps (AVI, raw streams), for open
    groups of pictures and for a start that was cut off without encoding, where some show other frames than those asked for."""

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


def clip_of(path: str, duration: float, clip: tuple[float, float] | None) -> tuple[float, float]:
    """Start and end of a clip in seconds, the end no later than the video's `duration`; None = the whole video."""
    start, end = (0.0, duration) if clip is None else (float(clip[0]), min(float(clip[1]), duration))
    if not 0 <= start < end:
        raise BadVideoError(path, "invalid_clip", f"clip {list(clip or (start, end))}, video {duration:.3f} s")
    return start, end


class _Packet(NamedTuple):
    pts: int | None
    duration: int | None
    is_keyframe: bool
    is_shown: bool
    """False before the start of a file that was cut without encoding it anew: needed for decoding, but not part of the video."""


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
    stream.codec_context.thread_count = 1
    packets: list[_Packet] = []  # not the packets themselves: those hold the whole file
    first = None
    for packet in container.demux(stream):
        if packet.size > 0:
            packets.append(_Packet(packet.pts, packet.duration, packet.is_keyframe, not packet.is_discard))
            if first is None and len(packets) <= FIRST_FRAME_WITHIN:
                first = _decoded(packet)
        if time.monotonic() > deadline:
            raise BadVideoError(path, "timeout", "reading its packets")
    shown = [p for p in packets if p.is_shown]
    if not shown:
        raise BadVideoError(path, "no_frames")
    _check_complete(stream, packets, path)
    size = _upright_size(stream, first, path)
    is_avi = container.format.name == "avi"
    if any(p.pts is None for p in packets) or (is_avi and _in_decoding_order(stream, packets)):
        return _by_decoding(path, size, deadline)
    pts, keys = _decodable(packets, path)
    durations = {p.pts: p.duration for p in shown}
    info = _table(path, stream, size, pts, keys, durations[int(pts[-1])])
    return replace(info, portable=not is_avi and len(shown) == len(packets) and not _has_open_groups(packets))


def _in_decoding_order(stream, packets: list[_Packet]) -> bool:
    """AVI files store no presentation stamps: with B-frames, what stands there may be the order of decoding."""
    return bool(stream.codec_context.has_b_frames) and all(a.pts < b.pts for a, b in pairwise(packets))


def _has_open_groups(packets: list[_Packet]) -> bool:
    """Whether pictures that are shown before a key frame follow it in the file, as they need the group before it too."""
    key = None
    for packet in packets:
        if packet.is_keyframe:
            key = packet.pts
        elif key is not None and packet.pts < key:
            return True
    return False


def _decoded(packet):
    """The first frame that comes out of the decoder with this packet, if any; damage shows when frames are asked for."""
    import av

    try:
        return next(iter(packet.decode()), None)
    except av.error.FFmpegError:
        return None


def _check_complete(stream, packets: list[_Packet], path: str) -> None:
    """A header that promises more frames and more time than there is belongs to a file that was cut."""
    if not stream.frames or len(packets) >= PRESENT * stream.frames:
        return
    stamps = [p.pts for p in packets if p.pts is not None]
    # Fewer frames alone say nothing: the header of an AVI file counts the gaps of a variable frame rate too.
    if stream.duration and stamps and max(stamps) - min(stamps) >= PRESENT * stream.duration - (packets[-1].duration or 0):
        return
    raise BadVideoError(path, "truncated", f"{len(packets)} of {stream.frames} frames are there")


def _upright_size(stream, first, path: str) -> tuple[int, int]:
    """Width and height; the turn of a video filmed upright is known only from a decoded frame."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width <= 0 or height <= 0:
        raise BadVideoError(path, "corrupt", "the frames have no size")
    turned = first is not None and first.rotation % 180 == 90
    return (height, width) if turned else (width, height)


def _decodable(packets: list[_Packet], path: str) -> tuple[np.ndarray, np.ndarray]:
    """Stamps in display order and the key frame of each; what precedes the first key frame cannot be decoded."""
    keys = np.unique([p.pts for p in packets if p.is_keyframe])
    if not len(keys):
        raise BadVideoError(path, "corrupt", "no key frame")
    pts = np.unique([p.pts for p in packets if p.is_shown])
    pts = pts[pts >= keys[0]]
    if not len(pts):
        raise BadVideoError(path, "corrupt", "no key frame before its frames")
    return pts, keys[np.searchsorted(keys, pts, side="right") - 1]


def _by_decoding(path: str, size: tuple[int, int], deadline: float) -> VideoInfo:
    """The table of a file without presentation stamps. Opened anew, since not every such file can be wound back."""
    import av

    stamps: list[int | None] = []
    last_duration = None
    with av.open(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if time.monotonic() > deadline:
                raise BadVideoError(path, "timeout", "decoding it for its time stamps")
            stamps.append(frame.pts)
            last_duration = frame.duration
        if not stamps:
            raise BadVideoError(path, "corrupt", "no frame can be decoded")
        if None in stamps or len(set(stamps)) < len(stamps):
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise BadVideoError(path, "corrupt", "neither time stamps nor a frame rate")
            stamps, last_duration = [round(i / rate / stream.time_base) for i in range(len(stamps))], None
        pts = np.sort(np.asarray(stamps, dtype=np.int64))  # frames come in the order in which they are shown
        info = _table(path, stream, size, pts, np.full_like(pts, pts[0]), last_duration)
        return replace(info, seekable=False, portable=False)


def _table(path: str, stream, size: tuple[int, int], pts: np.ndarray, keys: np.ndarray, last_duration: int | None) -> VideoInfo:
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
    return VideoInfo(path, *size, pts.astype(np.int64), starts, duration, keys.astype(np.int64))
