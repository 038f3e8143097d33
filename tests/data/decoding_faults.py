"""What goes wrong inside a decoder, as functions that a decoding process can import and run between two frames."""

import ctypes
import os
import time

import numpy as np

from olmo.host_memory import release_freed_memory


def shrink(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[::8, ::8])


def hang(frame: np.ndarray) -> np.ndarray:
    """Native code that never returns and holds the interpreter: no thread and no signal handler of Python gets a turn."""
    while True:
        ctypes.PyDLL(None).pause()


def crash(frame: np.ndarray) -> np.ndarray:
    """A segmentation fault."""
    ctypes.string_at(0)
    return frame


def slow(frame: np.ndarray) -> np.ndarray:
    time.sleep(0.2)
    return frame


def mistake(frame: np.ndarray) -> np.ndarray:
    return frame + undefined  # noqa: F821


def process_id(frame: np.ndarray) -> np.ndarray:
    """Where the frame was decoded. Gives back freed memory there, so that what is left is in use."""
    release_freed_memory()
    return np.array([os.getpid()])
