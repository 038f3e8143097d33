"""The training loop: take a batch, step, tell the callbacks, stop when it is time."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from olmo.batch import Batch
from olmo.train.callbacks.base import Callback
from olmo.train.checkpoint import random_state, set_random_state
from olmo.train.signals import StopSignals
from olmo.train.step import StepResult, TrainStep, mean_metrics

log = logging.getLogger(__name__)


@dataclass
class TrainerState:
    """What a run has done so far; saved with every checkpoint."""

    step: int = 0
    """Optimiser steps."""
    examples: int = 0
    """Rows seen by all ranks."""
    tokens: int = 0
    """Positions computed by the language model on all ranks, padding included."""
    frames: int = 0
    """Frames and crops seen by all ranks."""
    seconds: float = 0.0
    """Time spent training, over all starts."""
    wandb_id: str | None = None
    """Id of the wandb run."""


class Trainer:
    """Holds the parts of a run; `fit` is the loop."""

    def __init__(self, train_step: TrainStep, loader: Iterable, callbacks: Sequence[Callback]):
        self.train_step, self.loader, self.callbacks = train_step, loader, list(callbacks)
        self.cfg, self.world = train_step.cfg, train_step.world
        self.model, self.optimizer = train_step.model, train_step.optimizer
        self.state = TrainerState()
        self.resumed = False
        """Whether this start continues a run in its own save folder."""
        self.steps_done = 0
        """Steps of this start."""
        self.data_wait = 0.0
        """Seconds the current step waited for its batch."""
        self.step_seconds = 0.0
        """Seconds the current step took, waiting included."""
        self.timed_out = False
        """Whether the time limit is over; only rank 0 looks."""
        self.stopping: str | None = None
        """Why the run stops before its last step, once all ranks agree on it."""
        self.last_step = self.cfg.last_step
        self.progress: Callable[..., None] = lambda what, patience=1.0: None
        """Told what begins and how many times the usual time it may take, for whoever watches that something happens."""

    # ------------------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Trainer state of this rank, in types that load without unpickling code."""
        return {
            **asdict(self.state),
            "world_size": self.world.size,
            "loader": self.loader.state_dict(),
            "random": random_state(),
            "callbacks": {type(c).__name__: state for c in self.callbacks if (state := c.state_dict())},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue where `saved` stopped; random state only if the ranks are the same."""
        self.state = TrainerState(**{key: saved[key] for key in asdict(self.state)})
        for callback in self.callbacks:
            if (state := saved.get("callbacks", {}).get(type(callback).__name__)) is not None:
                callback.load_state_dict(state)
        if self.cfg.restore_dataloader:
            self.loader.load_state_dict(saved["loader"])
        if saved["same_world"]:
            set_random_state(saved["random"])
        elif self.world.is_main:
            log.info("the number of ranks changed from %d to %d: random state starts anew", saved["world_size"], self.world.size)

    # ------------------------------------------------------------------------------------------ loop

    def fit(self) -> str:
        """Train to the last step; returns `finished`, or `stopped` after a signal or the time limit."""
        if self.cfg.stop_after is not None:
            self.last_step = min(self.last_step, self.state.step + self.cfg.stop_after)
        status = "failed"
        try:
            with StopSignals() as signals:
                self._tell("on_start")
                if self.state.step < self.last_step:
                    self._loop(signals)
                elif self.world.is_main:
                    log.info("nothing to do: the run is at step %d of %d already", self.state.step, self.last_step)
            status = "stopped" if self.stopping else "finished"
        finally:
            self._tell("on_end", status)
        return status

    def _loop(self, signals: StopSignals) -> None:
        started, limit = time.monotonic(), self.cfg.time_limit

        def wish() -> bool:
            self.timed_out = limit is not None and self.world.is_main and time.monotonic() - started > limit
            return self.timed_out or signals.received is not None

        with closing(iter(self.loader)) as batches:
            self._steps(batches, wish, signals)
        if self.stopping and self.world.is_main:
            log.info("stopped by %s at step %d of %d; the same command continues from here", self.stopping, self.state.step, self.last_step)

    def _steps(self, batches: Iterator[Batch], wish: Callable[[], bool], signals: StopSignals) -> None:
        while self.state.step < self.last_step and not self.stopping:
            before = time.monotonic()
            # A little less time than for the rest: the others wait for a rank that hangs here, and that one should be the first to say so.
            self.progress("waiting for data", 0.9)
            batch = next(batches)
            self.data_wait = time.monotonic() - before
            result = self.train_step(batch, self.state.step + 1, wish)
            self.step_seconds = time.monotonic() - before
            self._count(result)
            if result.stop:
                self.stopping = signals.received or ("the time limit" if self.timed_out else "another rank's signal")
            self._report(result)

    def _count(self, result: StepResult) -> None:
        self.steps_done += 1
        self.state.step += 1
        self.state.examples += result.examples
        self.state.tokens += result.tokens
        self.state.frames += result.frames
        self.state.seconds += self.step_seconds

    def _report(self, result: StepResult) -> None:
        metrics = dict(result.metrics)
        if self.state.step % self.cfg.console_log_interval == 0 or self.steps_done == 1:
            metrics |= {f"train/{key}": value for key, value in mean_metrics(result.extra).items()} | self.loader.metrics()
        self._tell("on_step", result, metrics)

    def _tell(self, moment: str, *args: Any) -> None:
        for callback in self.callbacks:
            self.progress(f"{type(callback).__name__}.{moment}", callback.patience)
            getattr(callback, moment)(self, *args)

    def notify_saved(self, folder: Path) -> None:
        self._tell("on_saved", str(folder))
