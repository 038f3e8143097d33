"""Decoding in a child process, because a native decoder that hangs or crashes can only be stopped from outside.

A signal or a thread cannot interrupt native code that never returns (some decoders do not even release the
interpreter). So files are opened, decoded and shrunk in a child; the small frames come over a socket, one at a time, and
the parent waits no longer than the time limit. Children are kept for the next clip and shared by all readers of a
process. Run as a module this file is the child: it answers requests until its socket closes.
"""

import atexit
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import numpy as np

from olmo.data.decoders import DECODERS, FrameTransform, InProcess
from olmo.data.failures import BadVideoError
from olmo.data.frame_table import VideoInfo
from olmo.exceptions import OLMoEnvironmentError
from olmo.processes import child_environment

REQUESTS_PER_CHILD = 2000
"""A fresh child now and then, because some decoders leak memory."""

START_LIMIT = 120.0
"""Seconds for a child to import what it needs; they do not count as decoding."""

GRACE = 1.0
"""Seconds beyond the time limit in which a slow child may still say so itself, which spares its replacement."""

Buffer = bytes | memoryview

_LENGTH = struct.Struct("<Q")


def packed(message: Any) -> list[Buffer]:
    """A message as bytes, and beside it the contents of its arrays, which are not copied."""
    arrays: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    return [data, *(array.raw() for array in arrays)]


class Channel:
    """Pickled messages over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def send(self, message: Any, deadline: float | None = None) -> None:
        self.send_packed(packed(message), deadline)

    def send_packed(self, parts: list[Buffer], deadline: float | None = None) -> None:
        self._set_limit(deadline)
        sizes = [memoryview(part).nbytes for part in parts]
        self.socket.sendall(_LENGTH.pack(len(parts)) + b"".join(map(_LENGTH.pack, sizes)))
        for part in parts:
            self.socket.sendall(part)

    def receive(self, deadline: float | None = None) -> Any:
        """The next message; EOFError when the other side is gone, TimeoutError at the deadline."""
        (count,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        sizes = _LENGTH.iter_unpack(self._exactly(_LENGTH.size * count, deadline))
        data, *arrays = [self._exactly(size, deadline) for (size,) in sizes]
        return pickle.loads(data, buffers=arrays)

    def _exactly(self, size: int, deadline: float | None) -> bytearray:
        out = bytearray(size)
        view = memoryview(out)
        while len(view):
            self._set_limit(deadline)
            count = self.socket.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return out

    def _set_limit(self, deadline: float | None) -> None:
        self.socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))


class Child:
    """One decoding process and the way to it."""

    def __init__(self, name: str) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "olmo.data.decode_process", name, str(theirs.fileno())]
        # One thread: there is a child per data worker, and they share the machine.
        environment = child_environment() | {"OMP_NUM_THREADS": "1"}
        with theirs:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment)
        self.channel = Channel(ours)
        self.requests = 0
        _living.add(self)

    def accepts(self, request: list[Buffer]) -> bool:
        """Hand over a request; False if the child is not there to take it, which is no fault of the file."""
        self.requests += 1
        deadline = time.monotonic() + START_LIMIT
        try:
            self.channel.send_packed(request, deadline)
            return self.channel.receive(deadline) == ("begun", None)
        except TimeoutError:
            self.end()
        except (EOFError, OSError):
            self.last_status()
        return False

    def end(self) -> None:
        """Kill it, whatever it is doing."""
        self.process.kill()
        self.channel.socket.close()
        self.process.wait()

    def last_status(self) -> int:
        """With which status a child ended that is gone, or about to be."""
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        self.end()
        return self.process.returncode

    def forget(self) -> None:
        """In a forked process: the child belongs to the parent, and must see when the parent is gone."""
        self.channel.socket.close()
        self.process.returncode = 0


_living: WeakSet[Child] = WeakSet()
_idle: dict[str, list[Child]] = defaultdict(list)


def _after_fork() -> None:
    _idle.clear()
    for child in list(_living):
        child.forget()
    _living.clear()


def end_idle_children() -> None:
    """End the children that wait for a next clip."""
    for children in _idle.values():
        while children:
            children.pop().end()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(end_idle_children)


def _child_with(name: str, request: list[Buffer]) -> Child:
    """A child that has begun with the request."""
    while True:
        try:
            child, fresh = _idle[name].pop(), False  # in one step, since another thread may want it too
        except IndexError:
            child, fresh = Child(name), True
        if child.accepts(request):
            return child
        if fresh:
            status = child.process.returncode
            raise OLMoEnvironmentError(
                f"the process that decodes videos with {name} does not start (status {status}); what it said stands above"
            )


class IsolatedBackend:
    """Runs the decoder `name` in a child process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def probe(self, path: str, timeout: float) -> VideoInfo:
        (info,) = self._ask(path, timeout, "probe", path, timeout)
        return info

    def frames(self, info: VideoInfo, indices: list[int], timeout: float, transform: FrameTransform | None) -> Iterator[np.ndarray]:
        return self._ask(info.path, timeout, "frames", info, indices, timeout, transform)

    def _ask(self, path: str, timeout: float, method: str, *arguments: Any) -> Iterator[Any]:
        """What `InProcess.method` gives in the child, or the reason why it does not come."""
        child = _child_with(self.name, packed((method, timeout, arguments)))
        deadline = time.monotonic() + timeout + GRACE
        finished = False
        try:
            while True:
                kind, value = child.channel.receive(deadline)
                if kind == "item":
                    yield value
                    continue
                finished = True
                if kind == "error":
                    raise value
                return
        except TimeoutError:
            raise BadVideoError(path, "timeout", f"the {self.name} decoder was stopped after {timeout:g} s") from None
        except (EOFError, ConnectionError):
            raise self._death(path, child.last_status()) from None
        finally:
            if finished and child.requests < REQUESTS_PER_CHILD:
                _idle[self.name].append(child)
            else:
                child.end()

    def _death(self, path: str, status: int) -> BadVideoError:
        if status == -signal.SIGALRM:
            return BadVideoError(path, "timeout", f"the {self.name} decoder stopped itself")
        how = f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        return BadVideoError(path, "crash", f"{self.name} ended with {how}")


def serve(name: str, descriptor: int) -> None:
    """The child: do what the messages ask for."""
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the training process, which ends this one by closing its socket
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # whatever a library prints is no output of the command that reads videos
    channel = Channel(socket.socket(fileno=descriptor))
    backend = InProcess(DECODERS[name]())
    while True:
        try:
            method, timeout, arguments = channel.receive()
        except (EOFError, ConnectionError):
            return
        channel.send(("begun", None))
        # The system ends this process even inside native code, so that it cannot outlive a parent that was killed.
        signal.alarm(math.ceil(timeout + 4 * GRACE))
        try:
            answer = getattr(backend, method)(*arguments)
            for item in [answer] if method == "probe" else answer:
                channel.send(("item", item))
            last = ("done", None)
        except ConnectionError:
            return
        except Exception as err:
            last = ("error", _portable(err))
        signal.alarm(0)
        channel.send(last)


def _portable(err: Exception) -> Exception:
    """What can cross to the parent: the project's errors as they are, a bug with the place where it happened."""
    if isinstance(err, (BadVideoError, OLMoEnvironmentError, MemoryError)):
        return err
    return RuntimeError("".join(traceback.format_exception(err)))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
