"""What the rest of the project uses to read videos: the times of a file, and the frames shown at some of them.

Decoding happens in a child process unless a config says otherwise (`olmo.data.decode_process`), because native code that
hangs or crashes must cost one example and never the run. A file that did so is not tried again (`olmo.data.quarantine`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from olmo.config import BaseConfig
from olmo.data.decode_process import IsolatedBackend
from olmo.data.decoders import FrameTransform, InProcess, VideoBackend, choose_decoder
from olmo.data.failures import BadVideoError
from olmo.data.frame_folder import FrameFolderBackend
from olmo.data.frame_table import VideoInfo
from olmo.data.quarantine import Quarantine, quarantine_file
from olmo.exceptions import OLMoConfigurationError


@dataclass
class VideoReaderConfig(BaseConfig):
    """How videos are decoded."""

    backend: VideoBackend = VideoBackend.auto
    """torchcodec, pyav, decord, or auto (the first of these that imports)."""

    timeout: float = 60.0
    """Seconds that decoding one clip may take before it counts as a bad video."""

    isolate: bool = True
    """Decode in a child process, which can be killed when native code hangs and whose crash ends nothing else. Without it
    such a clip ends the run."""

    def build(self) -> "VideoReader":
        if self.timeout <= 0:
            raise OLMoConfigurationError(f"data.decode_timeout must be positive seconds, not {self.timeout}")
        decoder = choose_decoder(VideoBackend(self.backend))
        backend = IsolatedBackend(decoder.name) if self.isolate else InProcess(decoder)
        return VideoReader(backend, self.timeout, Quarantine(quarantine_file()))


class Backend(Protocol):
    """A decoder, here or in another process."""

    name: str

    def probe(self, path: str, timeout: float) -> VideoInfo:
        """Times and sizes of a file; BadVideoError with the cause if it has none."""
        ...

    def frames(self, info: VideoInfo, indices: list[int], timeout: float, transform: FrameTransform | None) -> Iterator[np.ndarray]:
        """Yield each of the ascending, distinct `indices` as uint8 [H, W, 3] RGB, passed through `transform`."""
        ...


class VideoReader:
    """`probe` for times and sizes, `frames_at` and `frames_of` for pictures."""

    def __init__(self, backend: Backend, timeout: float = 60.0, quarantine: Quarantine | None = None) -> None:
        self.backend, self.timeout, self.quarantine = backend, timeout, quarantine

    @property
    def name(self) -> str:
        return self.backend.name

    def probe(self, path: str) -> VideoInfo:
        with self._watched(path):
            return self._backend_of(path).probe(path, self.timeout)

    def frames_at(
        self, path: str, seconds: np.ndarray, transform: FrameTransform | None = None, info: VideoInfo | None = None
    ) -> np.ndarray:
        """Frames [T, H, W, 3] uint8 shown `seconds` after the first frame appears, each passed through `transform`."""
        info = info or self.probe(path)
        return self.frames_of(info, info.index_at(seconds), transform)

    def frames_of(self, info: VideoInfo, indices: np.ndarray, transform: FrameTransform | None = None) -> np.ndarray:
        """Frames by number, in the order asked for; a number may occur more than once.

        `transform` must be picklable (a function of a module, a method of such an object) where decoding is isolated.
        """
        distinct, inverse = np.unique(np.asarray(indices), return_inverse=True)
        out: np.ndarray | None = None
        count = 0
        with self._watched(info.path):
            frames = self._backend_of(info.path).frames(info, [int(i) for i in distinct], self.timeout, transform)
            for count, frame in enumerate(frames, start=1):
                if out is None:
                    out = np.empty((len(inverse), *frame.shape), dtype=frame.dtype)
                if frame.shape != out.shape[1:]:
                    raise BadVideoError(info.path, "corrupt", "the frame size changes within the video")
                out[inverse == count - 1] = frame
        if out is None or count != len(distinct):
            raise BadVideoError(info.path, "corrupt", f"only {count} of {len(distinct)} frames could be decoded")
        return out

    def _backend_of(self, path: str) -> Backend:
        """A folder of pictures needs no decoder."""
        return FrameFolderBackend() if os.path.isdir(path) else self.backend

    @contextmanager
    def _watched(self, path: str) -> Iterator[None]:
        """Refuse a file that hung or crashed a decoder before, and remember one that does so now."""
        if self.quarantine is None:
            yield
            return
        self.quarantine.check(path)
        try:
            yield
        except BadVideoError as err:
            self.quarantine.note(err)
            raise
