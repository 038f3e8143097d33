"""Decoding frames of a video at given seconds: three backends behind one small interface.

`olmo.data.frame_table` decides which frame a second means; a backend turns frame numbers into pictures, one at a time,
so that a caller that shrinks each frame as it comes never holds more than one of full size.
"""

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from olmo.config import BaseConfig, StrEnum
from olmo.data.failures import BadVideoError, as_decoding_error
from olmo.data.frame_folder import FrameFolderBackend, read_frame_folder
from olmo.data.frame_table import VideoInfo, read_frame_table, video_stream
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError, missing_package

log = logging.getLogger(__name__)

FrameTransform = Callable[[np.ndarray], np.ndarray]


class VideoBackend(StrEnum):
    """Library that decodes videos."""

    auto = "auto"
    """The first that imports of torchcodec, PyAV, decord."""
    torchcodec = "torchcodec"
    pyav = "pyav"
    decord = "decord"


@dataclass
class VideoReaderConfig(BaseConfig):
    """How videos are decoded."""

    backend: VideoBackend = VideoBackend.auto
    """torchcodec, pyav, decord, or auto (the first of these that imports)."""

    timeout: float = 60.0
    """Seconds that decoding one clip may take before it counts as a bad video."""

    isolate: bool | None = None
    """Decode in a child process that can be killed when native code hangs or crashes; null = only for decord, whose
    native loops hold the interpreter."""

    def build(self) -> "VideoReader":
        if self.timeout <= 0:
            raise OLMoConfigurationError(f"data.decode_timeout must be positive seconds, not {self.timeout}")
        backend = choose_backend(VideoBackend(self.backend))
        isolate = backend.name == "decord" if self.isolate is None else self.isolate
        if isolate:
            from olmo.data.decode_process import IsolatedBackend

            backend = IsolatedBackend(backend.name)
        return VideoReader(backend, self.timeout)


class DecodingBackend(Protocol):
    """Turns frame numbers into pictures."""

    name: str

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        """Yield uint8 [H, W, 3] RGB for each of the ascending, distinct `indices`."""
        ...


def probe_video(path: str, timeout: float = 60.0) -> VideoInfo:
    """Times and size of a video file, or of a folder of pictures, without decoding it; `timeout` in seconds."""
    return read_frame_folder(path) if os.path.isdir(path) else read_frame_table(path, timeout)


class VideoReader:
    """What the rest of the project uses: `probe` for times and sizes, `frames_of` for pictures."""

    def __init__(self, backend: DecodingBackend, timeout: float = 60.0) -> None:
        self.backend = backend
        self.timeout = timeout

    @property
    def name(self) -> str:
        return self.backend.name

    def probe(self, path: str) -> VideoInfo:
        return probe_video(path, self.timeout)

    def frames_at(
        self, path: str, seconds: np.ndarray, transform: FrameTransform | None = None, info: VideoInfo | None = None
    ) -> np.ndarray:
        """Frames [T, H, W, 3] uint8 shown `seconds` after the first frame appears, each passed through `transform`."""
        info = info or self.probe(path)
        return self.frames_of(info, info.index_at(seconds), transform)

    def frames_of(self, info: VideoInfo, indices: np.ndarray, transform: FrameTransform | None = None) -> np.ndarray:
        """Frames by number, in the order asked for; a number may occur more than once."""
        distinct, inverse = np.unique(np.asarray(indices), return_inverse=True)
        out: np.ndarray | None = None
        count = 0
        for count, frame in enumerate(self._timed(info, [int(i) for i in distinct]), start=1):
            frame = frame if transform is None else transform(frame)
            if out is None:
                out = np.empty((len(inverse), *frame.shape), dtype=frame.dtype)
            if frame.shape != out.shape[1:]:
                raise BadVideoError(info.path, "corrupt", "the frame size changes within the video")
            out[inverse == count - 1] = frame
        if out is None or count != len(distinct):
            raise BadVideoError(info.path, "corrupt", f"only {count} of {len(distinct)} frames could be decoded")
        return out

    def _timed(self, info: VideoInfo, indices: list[int]) -> Iterator[np.ndarray]:
        """The backend's frames; a limit on the whole clip, and its own errors under one name."""
        deadline = time.monotonic() + self.timeout
        backend = FrameFolderBackend() if os.path.isdir(info.path) else self.backend
        try:
            for frame in backend.frames(info, indices, self.timeout):
                if time.monotonic() > deadline:
                    raise BadVideoError(info.path, "timeout", f"{self.timeout:g} s")
                yield frame
        except Exception as err:
            raise as_decoding_error(err, info.path) from None


class PyAVBackend:
    """Decodes forward from the nearest key frame before each wanted frame."""

    name = "pyav"

    def __init__(self) -> None:
        import av  # noqa: F401

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        import av

        with av.open(info.path, timeout=timeout) as container:
            stream = video_stream(container, info.path)
            stream.codec_context.thread_count = 1
            decoder = container.decode(stream)
            reached = int(info.pts[0]) - 1
            for index in indices:
                wanted, key = int(info.pts[index]), int(info.keyframe_pts[index])
                if info.seekable and key > max(reached, int(info.pts[0])):
                    container.seek(key, stream=stream)
                    decoder = container.decode(stream)
                for frame in decoder:
                    if frame.pts is None:
                        continue
                    reached = frame.pts
                    if reached >= wanted:
                        break
                else:
                    raise BadVideoError(info.path, "corrupt", f"frame {index} cannot be decoded")
                if reached != wanted:
                    raise BadVideoError(info.path, "corrupt", f"frame {index} is missing")
                yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)


class DecordBackend:
    """decord's frame numbers follow display order, as ours do; a fresh decoder per clip, because decord's memory grows."""

    name = "decord"

    def __init__(self) -> None:
        import decord

        decord.logging.set_level(decord.logging.ERROR)

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        import decord

        reader = decord.VideoReader(info.path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != info.num_frames:
            raise BadVideoError(info.path, "corrupt", f"decord sees {len(reader)} frames, the packets hold {info.num_frames}")
        for index in indices:
            yield reader[index].asnumpy()


class TorchcodecBackend:
    """Asks for the middle of each frame's display interval, which no rounding can move to a neighbour."""

    name = "torchcodec"

    def __init__(self) -> None:
        import torchcodec.decoders  # noqa: F401

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(info.path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        begin = decoder.metadata.begin_stream_seconds
        ends = np.append(info.starts[1:], info.duration)
        for index in indices:
            yield decoder.get_frame_played_at(begin + (info.starts[index] + ends[index]) / 2).data.numpy()


def upright(frame: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a picture as its container's display matrix says (counter-clockwise degrees, multiples of 90)."""
    return np.ascontiguousarray(np.rot90(frame, rotation // 90)) if rotation % 360 and rotation % 90 == 0 else frame


BACKENDS: dict[str, type] = {"torchcodec": TorchcodecBackend, "pyav": PyAVBackend, "decord": DecordBackend}
_PACKAGES = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}
_announced: set[str] = set()


def choose_backend(choice: VideoBackend) -> DecodingBackend:
    """The backend asked for; with `auto` the first that imports. Says once which one it is."""
    names = list(BACKENDS) if choice == VideoBackend.auto else [choice.value]
    refused = []
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            refused.append(f"{name} is not installed")
            continue
        try:
            backend = BACKENDS[name]()
        except (ImportError, OSError, RuntimeError) as err:
            refused.append(f"{name} does not load: {' '.join(str(err).split())[:160]}")
            continue
        if name not in _announced:
            _announced.add(name)
            log.info("videos are decoded by %s%s", name, f" ({'; '.join(refused)})" if refused else "")
        return backend
    if len(names) == 1 and "not installed" in refused[0]:
        raise missing_package(_PACKAGES[names[0]], "video", f"video.loading_method={names[0]}")
    raise OLMoEnvironmentError(f"no video decoder can be used: {'; '.join(refused)}")
