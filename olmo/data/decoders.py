"""Three libraries that decode videos, behind one small interface: frame numbers in, pictures out.

`olmo.data.frame_table` decides which frame a second means; a decoder turns frame numbers into pictures, one at a time,
so that a caller that shrinks each frame as it comes never holds more than one of full size.
"""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from olmo.config import StrEnum
from olmo.data.failures import BadVideoError, as_decoding_error
from olmo.data.frame_table import VideoInfo, read_frame_table, video_stream
from olmo.exceptions import OLMoEnvironmentError, missing_package

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

FrameTransform = Callable[[np.ndarray], np.ndarray]
"""What is done with a frame [H, W, 3] right after it is decoded: the published resize, as a rule."""


class VideoBackend(StrEnum):
    """Library that decodes videos."""

    auto = "auto"
    """The first that imports of torchcodec, PyAV, decord."""
    torchcodec = "torchcodec"
    pyav = "pyav"
    decord = "decord"


class Decoder(Protocol):
    """Turns frame numbers into pictures."""

    name: str

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        """Yield uint8 [H, W, 3] RGB for each of the ascending, distinct `indices`."""
        ...


class PyAVDecoder:
    """Decodes forward from the nearest key frame before each wanted frame."""

    name = "pyav"

    def __init__(self) -> None:
        import av  # noqa: F401

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        import av

        with av.open(info.path, timeout=timeout) as container:
            stream = video_stream(container, info.path)
            stream.codec_context.thread_count = 1
            for frame in (self._by_stamp if info.seekable else self._by_counting)(container, stream, info, indices):
                yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)

    @staticmethod
    def _by_stamp(container, stream, info: VideoInfo, indices: list[int]) -> Iterator["av.VideoFrame"]:
        decoder = container.decode(stream)
        reached = int(info.pts[0]) - 1
        for index in indices:
            wanted, key = int(info.pts[index]), int(info.keyframe_pts[index])
            if key > max(reached, int(info.pts[0])):
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
            yield frame

    @staticmethod
    def _by_counting(container, stream, info: VideoInfo, indices: list[int]) -> Iterator["av.VideoFrame"]:
        decoder = enumerate(container.decode(stream))
        for index in indices:
            found = next((frame for number, frame in decoder if number == index), None)
            if found is None:
                raise BadVideoError(info.path, "corrupt", f"frame {index} cannot be decoded")
            yield found


class DecordDecoder:
    """decord's frame numbers follow display order, as ours do; a fresh decoder per clip, because decord's memory grows."""

    name = "decord"

    def __init__(self) -> None:
        import decord

        decord.logging.set_level(decord.logging.ERROR)

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        import decord

        reader = decord.VideoReader(info.path, ctx=decord.cpu(0), num_threads=1)
        check_count(self.name, info, len(reader))
        for index in indices:
            yield reader[index].asnumpy()


class TorchcodecDecoder:
    """Its exact mode numbers frames in display order, as ours do; asked by time it would refuse the last frame of some files."""

    name = "torchcodec"

    def __init__(self) -> None:
        import torchcodec.decoders  # noqa: F401

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(info.path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        check_count(self.name, info, len(decoder))
        for index in indices:
            yield decoder.get_frame_at(index).data.numpy()


def check_count(name: str, info: VideoInfo, count: int) -> None:
    """Frame numbers mean the same only where a library sees as many frames as the table."""
    if count != info.num_frames:
        raise BadVideoError(info.path, "corrupt", f"{name} sees {count} frames, the packets hold {info.num_frames}")


def upright(frame: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a picture as its container's display matrix says (counter-clockwise degrees, multiples of 90)."""
    return np.ascontiguousarray(np.rot90(frame, rotation // 90)) if rotation % 360 and rotation % 90 == 0 else frame


class InProcess:
    """A decoder in this process. Its clock is looked at between frames: native code that does not return is not noticed.

    Files in which the others lose their way (`VideoInfo.portable`) are decoded by PyAV, whichever decoder was chosen.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.name = decoder.name

    def probe(self, path: str, timeout: float) -> VideoInfo:
        return read_frame_table(path, timeout)

    def frames(self, info: VideoInfo, indices: list[int], timeout: float, transform: FrameTransform | None) -> Iterator[np.ndarray]:
        """Yield each of the ascending, distinct `indices`, passed through `transform`."""
        for frame in self._decoded(info, indices, timeout):
            yield frame if transform is None else transform(frame)

    def _decoded(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        """The decoder's frames; a limit on the whole clip, and its own errors under one name."""
        deadline = time.monotonic() + timeout
        decoder = self.decoder if info.portable else PyAVDecoder()
        try:
            for frame in decoder.frames(info, indices, timeout):
                if time.monotonic() > deadline:
                    raise BadVideoError(info.path, "timeout", f"{timeout:g} s")
                yield frame
        except Exception as err:
            raise as_decoding_error(err, info.path) from None


DECODERS: dict[str, type] = {"torchcodec": TorchcodecDecoder, "pyav": PyAVDecoder, "decord": DecordDecoder}
"""In the order in which `auto` tries them."""
_PACKAGES = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}
_announced: set[str] = set()


def choose_decoder(choice: VideoBackend) -> Decoder:
    """The decoder asked for; with `auto` the first that imports. Says once which one it is."""
    names = list(DECODERS) if choice == VideoBackend.auto else [choice.value]
    refused = []
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            refused.append(f"{name} is not installed")
            continue
        try:
            decoder = DECODERS[name]()
        except (ImportError, OSError, RuntimeError) as err:
            refused.append(f"{name} does not load: {' '.join(str(err).split())[:160]}")
            continue
        if name not in _announced:
            _announced.add(name)
            log.info("videos are decoded by %s%s", name, f" ({'; '.join(refused)})" if refused else "")
        return decoder
    if len(names) == 1 and "not installed" in refused[0]:
        raise missing_package(_PACKAGES[names[0]], "video", f"video.loading_method={names[0]}")
    raise OLMoEnvironmentError(f"no video decoder can be used: {'; '.join(refused)}")


def usable_decoders() -> list[str]:
    """Names of the decoders that import here."""
    usable = []
    for name in DECODERS:
        try:
            usable.append(choose_decoder(VideoBackend(name)).name)
        except OLMoEnvironmentError:
            continue
    return usable
