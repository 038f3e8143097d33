"""When the next request may be sent: at most so many a minute, not before the server wants it, and never after a stop."""

import threading
import time


class Stopped(Exception):
    """Judging was ended while this request waited."""


class Pace:
    """Shared by all threads that send."""

    def __init__(self, per_minute: float | None = None) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next = self._held = 0.0
        self._lock = threading.Lock()
        self.stop = threading.Event()
        """Set: nothing is sent any more, whoever waits is woken."""

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._interval
        while (left := max(turn, self._held) - time.monotonic()) > 0:
            if self.stop.wait(left):
                break
        if self.stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Let this thread wait."""
        if self.stop.wait(seconds):
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Let everybody wait: the server has asked for it."""
        with self._lock:
            self._held = max(self._held, time.monotonic() + seconds)
