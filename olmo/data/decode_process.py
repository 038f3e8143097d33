"""Decoding in a child process, because a native decoder that hangs or crashes can only be killed from outside.

A signal or a thread cannot interrupt native code that never returns (some decoders do not even release the
interpreter), so the frames come over a pipe, one at a time, and the parent waits no longer than the time limit. Run as a
module this file is the child: it answers requests until its input closes.
"""

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from olmo.data.failures import BadVideoError, as_decoding_error
from olmo.data.frame_table import VideoInfo
from olmo.processes import child_environment

_HEADER = struct.Struct("<cIII")
"""Kind (F frame, E error, D done) and height, width, channels of a frame, or the length of an error."""

CLIPS_PER_CHILD = 200
"""A fresh child now and then, because some decoders leak memory."""


class IsolatedBackend:
    """Runs the backend `name` in a child process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: subprocess.Popen | None = None
        self._owner = 0
        self._served = 0

    def __getstate__(self) -> dict:
        return {"name": self.name, "_child": None, "_owner": 0, "_served": 0}

    def frames(self, info: VideoInfo, indices: list[int], timeout: float) -> Iterator[np.ndarray]:
        deadline = time.monotonic() + timeout
        child = self._start()
        finished = False
        try:
            request = pickle.dumps((info, indices))
            child.stdin.write(struct.pack("<I", len(request)) + request)
            child.stdin.flush()
            while True:
                kind, *shape = _HEADER.unpack(self._read(info, _HEADER.size, deadline))
                if kind == b"D":
                    finished = True
                    return
                if kind == b"E":
                    finished = True
                    raise pickle.loads(self._read(info, shape[0], deadline))
                yield np.frombuffer(self._read(info, shape[0] * shape[1] * shape[2], deadline), dtype=np.uint8).reshape(shape)
        except BrokenPipeError:
            raise BadVideoError(info.path, "crash") from None
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None and self._owner == os.getpid():
            self._child.kill()
            self._child.wait()
            self._child.stdin.close()
            self._child.stdout.close()
        self._child = None

    def __del__(self) -> None:
        self.close()

    def _start(self) -> subprocess.Popen:
        """The child of this process (a forked data worker must not share its parent's)."""
        if self._child is not None and self._owner == os.getpid() and self._served >= CLIPS_PER_CHILD:
            self.close()
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            command = [sys.executable, "-m", "olmo.data.decode_process", self.name]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment())
            self._owner, self._served = os.getpid(), 0
        self._served += 1
        return self._child

    def _read(self, info: VideoInfo, size: int, deadline: float) -> bytearray:
        """Exactly `size` bytes from the child, or the reason why they do not come."""
        pipe = self._child.stdout.fileno()
        out = bytearray(size)
        view = memoryview(out)
        done = 0
        while done < size:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BadVideoError(info.path, "timeout", f"the {self.name} decoder was stopped")
            count = os.readv(pipe, [view[done:]])
            if count == 0:
                raise BadVideoError(info.path, "crash", f"{self.name} ended with status {self._child.wait()}")
            done += count
        return out


def serve(name: str) -> None:
    """The child: read requests from standard input, write frames to the descriptor that was standard output."""
    from olmo.data.video_reader import BACKENDS

    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the training process, which ends this one by closing its input
        signal.signal(number, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the frames
    backend = BACKENDS[name]()
    while header := sys.stdin.buffer.read(4):
        info, indices = pickle.loads(sys.stdin.buffer.read(struct.unpack("<I", header)[0]))
        try:
            for frame in backend.frames(info, indices, timeout=3600.0):
                out.write(_HEADER.pack(b"F", *frame.shape))
                out.write(np.ascontiguousarray(frame).data)
                out.flush()
            out.write(_HEADER.pack(b"D", 0, 0, 0))
        except Exception as err:
            text = pickle.dumps(as_decoding_error(err, info.path))
            out.write(_HEADER.pack(b"E", len(text), 0, 0) + text)
        out.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
