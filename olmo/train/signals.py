"""Turning SIGTERM and SIGINT into a wish to stop, so that a pre-empted run saves before it leaves."""

import os
import signal
from types import FrameType, TracebackType


class StopSignals:
    """Context manager: the first signal is remembered in `received`, a second one acts as if this were not here."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: str | None = None
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}

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
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
