"""When a run ends: at its length, at `stop_at`, or before that because it was told to stop."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from olmo.distributed import World, broadcast_object, gather_objects
from olmo.train.config import TrainConfig
from olmo.train.duration import RunLength
from olmo.train.signals import StopSignals

if TYPE_CHECKING:
    from olmo.train.trainer import TrainerState


class Wish(NamedTuple):
    """What one rank wants after the current step."""

    complete: bool = False
    """The run's hours are used up."""
    reason: str | None = None
    """Why to stop before the run is complete."""


class Limits:
    """Looks at signals and clocks, and makes all ranks end after the same step.

    Hours and the time limit are told by rank 0's clock. A rank's wish to stop travels with the sums of the step, so it costs no message
    of its own; only once there is one do the ranks ask each other why.
    """

    def __init__(self, cfg: TrainConfig, world: World, length: RunLength):
        self.stop_at, self.stop_after, self.time_limit = cfg.stop_at, cfg.stop_after, cfg.time_limit
        self.world, self.length = world, length
        self.ended = False
        """The run is complete: nothing is left to do, now or after another start."""
        self.stopping: str | None = None
        """Why the run stops before it is complete; equal on all ranks."""
        self.last_step = 0
        """Step at which the run ends. Where only running tells, the estimate so far, which is more than the steps done."""
        self.estimate: int | None = None
        """Steps of a run whose length is counted in examples, if it goes on as it did so far; None while there is nothing to go by."""
        self._signals = StopSignals()
        self._wish = Wish()
        self._started = self._step_began = 0.0
        self._seconds = 0.0
        """Training time before the current step."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """From here on signals are wishes and the time limit runs."""
        self._started = time.monotonic()
        with self._signals:
            yield

    def begin(self, state: "TrainerState") -> None:
        """Take over what was done before this start. All ranks call this."""
        complete = self._complete(state)
        if self.length.seconds is not None:
            complete = broadcast_object(complete)  # every rank saved its own clock, and the ranks may be others now
        self._move_on(state, complete)

    def begin_step(self) -> float:
        """The moment, as `time.monotonic()` has it."""
        self._step_began, self._wish = time.monotonic(), Wish()
        return self._step_began

    def wish(self) -> bool:
        """Whether this rank wants the current step to be the last one; asked once in every step."""
        now, main = time.monotonic(), self.world.is_main
        complete = main and self.length.seconds is not None and self._seconds + (now - self._step_began) >= self.length.seconds
        reason = self._signals.received
        if reason is None and main and self.time_limit is not None and now - self._started > self.time_limit:
            reason = "the time limit"
        self._wish = Wish(complete, reason)
        return complete or reason is not None

    def end_step(self, state: "TrainerState", steps_done: int, agreed: bool) -> None:
        """Decide whether the run goes on. `steps_done`: of this start; `agreed`: some rank wished to stop."""
        wishes = gather_objects(self._wish) if agreed else []
        by_clock = self.length.seconds is not None
        self._move_on(state, any(w.complete for w in wishes) if by_clock else self._complete(state))
        if self.ended:
            return
        if agreed:
            self.stopping = next(w.reason for w in wishes if w.reason is not None)
        elif steps_done == self.stop_after:
            self.stopping = f"stop_after={steps_done}"

    def _complete(self, state: "TrainerState") -> bool:
        if self.length.steps is not None:
            return state.step >= self.length.steps
        if self.length.draws is not None:
            return state.drawn >= self.length.draws
        return state.seconds >= self.length.seconds

    def _move_on(self, state: "TrainerState", complete: bool) -> None:
        self._seconds = state.seconds
        if self.length.steps is not None:
            end = self.length.steps
        elif complete:
            end = state.step
        else:
            end = max(state.step + 1, self._expected(state) or 0)
        if self.length.draws is not None:
            self.estimate = self._expected(state)
        self.last_step = end if self.stop_at is None else min(end, self.stop_at)
        self.ended = state.step >= self.last_step

    def _expected(self, state: "TrainerState") -> int | None:
        """Steps of the whole run if they go on as they did so far."""
        if self.length.draws is not None:
            used, whole = state.drawn, self.length.draws
        else:
            used, whole = state.seconds, self.length.seconds
        return math.ceil(state.step * whole / used) if used else None
