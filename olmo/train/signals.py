"""Turning SIGTERM and SIGINT into a wish to stop, so that a pre-empted run saves before it leaves."""

import os
import signal
import time
from types import FrameType, TracebackType

SAME_WISH = 5.0
"""Seconds within which another signal is the first one again: schedulers and terminals signal the whole process group, and torchrun
passes on to its ranks what it gets itself."""


class StopSignals:
    """Context manager: the first signal is remembered in `received`; one that comes later than `SAME_WISH` seconds after it acts as if
    this were not here."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: str | None = None
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}
        self._received_at = 0.0

    def __enter__(self) -> "StopSignals":
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A data worker forked from this process: Ctrl-C is for the parent to decide, SIGTERM really ends it.
            if number == signal.SIGTERM:
                os._exit(143)
            return
        if self.received is None:
            self.received, self._received_at = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._received_at > SAME_WISH:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
