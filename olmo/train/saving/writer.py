"""At most one save at a time, in a thread beside the training."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from olmo.exceptions import OLMoError, first_line

log = logging.getLogger(__name__)

ABANDON_AFTER = 30.0
"""Seconds that a run which failed waits for a save that other ranks take part in: they may be gone."""


@dataclass(frozen=True)
class Outcome:
    """How a save ended."""

    location: str | None
    """The new checkpoint; None if there is none."""
    error: OLMoError | None
    seconds: float
    """How long the writing took."""


class Writer:
    """Runs saves one after the other: whoever starts one takes the outcome of the one before first (`finish`).

    torch's `async_save` ends where the tensors are written. What makes them a checkpoint (check sums, marker, name) comes after
    that, in agreement of all ranks, and older checkpoints go after that again; so the whole of it is one function in one thread.
    """

    def __init__(self, background: bool) -> None:
        self.background = background
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, save: Callable[[], str]) -> None:
        """Run `save`, here or in the background."""
        assert self._thread is None and self._outcome is None, "the outcome of the save before has not been taken"
        if self.background:
            self._thread = threading.Thread(target=self._run, args=(save,), name="checkpoint writer", daemon=True)
            self._thread.start()
        else:
            self._run(save)

    def _run(self, save: Callable[[], str]) -> None:
        began = time.perf_counter()
        location, error = None, None
        try:
            location = save()
        except OLMoError as err:
            error = err
        except Exception as err:  # in a thread it would be lost
            if not self.background:
                raise
            log.debug("saving failed", exc_info=True)
            error = OLMoError(f"saving failed: {type(err).__name__}: {first_line(err)}")
            error.__cause__ = err
        self._outcome = Outcome(location, error, time.perf_counter() - began)

    def finish(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the save that was started and return how it ended; None if there was none or the time is over."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return None
            self._thread = None
        outcome, self._outcome = self._outcome, None
        return outcome
