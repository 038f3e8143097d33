"""Second places for the metrics, which may be unreachable, break or hang: the run goes on and one line says so."""

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, wait
from importlib.util import find_spec

from olmo.exceptions import first_line, missing_package
from olmo.train.callbacks.base import Callback
from olmo.train.saving.checkpoint import random_state, set_random_state

log = logging.getLogger(__name__)

START_SECONDS, REPORT_SECONDS, END_SECONDS = 300.0, 60.0, 120.0
"""How long training waits for a sink to start, to take a report and to close before it goes on without."""


class Sink(Callback, ABC):
    """Reports on rank 0 every `interval` steps, and after an evaluation. Subclasses say how, in `open`, `report` and `close`.

    These run one after another in a thread of the sink's own, so that one which never returns can be left behind. Whatever they
    raise is logged once and ends the reporting; what they draw from the global random generators does not show in training.
    """

    title = ""
    """What log lines call it, and the package and the extra that it needs."""

    def __init__(self, interval: int):
        self.interval = interval
        self.worker: _Worker | None = None
        """None = not started, closed or given up."""

    def require(self) -> None:
        """Raise, before anything is built, where the package is absent: that is no accident of the run."""
        if find_spec(self.title) is None:
            raise missing_package(self.title, self.title, f"reporting to {self.title}")

    @abstractmethod
    def open(self, trainer) -> None:
        """Before the first report."""

    @abstractmethod
    def report(self, metrics: dict[str, float], step: int) -> None:
        """Take the record of one step; it is the sink's own copy."""

    @abstractmethod
    def close(self, status: str) -> None:
        """After the last report; `status` as in `Callback.on_end`."""

    def on_start(self, trainer) -> None:
        if trainer.world.is_main:
            self.worker = _Worker(self.title)
            self._safely("start", START_SECONDS, lambda: self.open(trainer))

    def on_step(self, trainer, result, metrics) -> None:
        if self.worker is not None and (trainer.state.step % self.interval == 0 or "eval/seconds" in metrics):
            record, step = dict(metrics), trainer.state.step
            self._safely("log", REPORT_SECONDS, lambda: self.report(record, step))

    def on_end(self, trainer, status) -> None:
        if self.worker is not None:
            self._safely("finish", END_SECONDS, lambda: self.close(status))
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def _safely(self, what: str, seconds: float, action: Callable[[], None]) -> None:
        before = random_state()
        done = self.worker.run(action)
        wait([done], timeout=seconds)
        set_random_state(before)
        if not done.done():
            self._give_up(what, f"no answer for {seconds:.0f} s")
        elif (err := done.exception()) is not None:
            self._give_up(what, first_line(err))

    def _give_up(self, what: str, reason: str) -> None:
        self.worker.stop()
        self.worker = None
        log.warning("%s is off from here on (%s failed: %s)", self.title, what, reason)


class _Worker:
    """One thread that does what it is told in order. The process does not wait for it when it ends."""

    def __init__(self, name: str):
        self.jobs: queue.SimpleQueue[tuple[Callable[[], None], Future] | None] = queue.SimpleQueue()
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    def run(self, action: Callable[[], None]) -> Future:
        future: Future = Future()
        self.jobs.put((action, future))
        return future

    def stop(self) -> None:
        """End the thread when it has nothing left to do."""
        self.jobs.put(None)

    def _loop(self) -> None:
        while (job := self.jobs.get()) is not None:
            action, future = job
            try:
                action()
            except BaseException as err:  # also the SystemExit of a library that thinks it is alone
                future.set_exception(err)
            else:
                future.set_result(None)
