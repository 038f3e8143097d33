"""The training loop: take a batch, step, tell the callbacks, stop when it is time."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from olmo.batch import Batch
from olmo.exceptions import first_line
from olmo.train.callbacks.base import Callback
from olmo.train.limits import Limits
from olmo.train.saving.checkpoint import random_state, set_random_state
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
    drawn: int = 0
    """Examples of the data stream that went into rows of all ranks, unreadable ones among them."""
    seconds: float = 0.0
    """Time of this rank spent training (steps and waiting for data; not saving and evaluating), over all starts."""
    wandb_id: str | None = None
    """Id of the wandb run."""


class Trainer:
    """Holds the parts of a run; `fit` is the loop. What else happens during a run is up to the callbacks, when it ends to `limits`."""

    def __init__(self, train_step: TrainStep, loader: Iterable, callbacks: Sequence[Callback], limits: Limits):
        self.train_step, self.loader, self.callbacks, self.limits = train_step, loader, list(callbacks), limits
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
        self.progress: Callable[..., None] = lambda what, patience=1.0: None
        """Told what begins and how many times the usual time it may take, for whoever watches that something happens."""
        limits.begin(self.state)

    @property
    def last_step(self) -> int:
        """Step at which the run ends, or what it is estimated to be."""
        return self.limits.last_step

    @property
    def stopping(self) -> str | None:
        """Why the run stops before it is complete, once all ranks agree on it."""
        return self.limits.stopping

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
        for callback in self.callbacks:
            if (state := saved.get("callbacks", {}).get(type(callback).__name__)) is not None:
                callback.load_state_dict(state)
        if self.cfg.restore_dataloader:
            self.loader.load_state_dict(saved["loader"])
        known = {"drawn": self.loader.drawn} | saved  # checkpoints of earlier versions say it with the place in the stream only
        self.state = TrainerState(**{key: known[key] for key in asdict(self.state)})
        self.limits.begin(self.state)
        if saved["same_world"]:
            set_random_state(saved["random"])
        elif self.world.is_main:
            log.info("the number of ranks changed from %d to %d: random state starts anew", saved["world_size"], self.world.size)

    # ------------------------------------------------------------------------------------------ loop

    def fit(self) -> str:
        """Train until the limits say so; returns `finished`, or `stopped` where the run can be continued."""
        status = "failed"
        with self.limits.watching():
            try:
                self._tell("on_start")
                self._loop()
                status = "finished" if self.limits.ended else "stopped"
            finally:
                self._tell_end(status)
        return status

    def _loop(self) -> None:
        main, limits = self.world.is_main, self.limits
        if limits.ended:
            if main:
                log.info("nothing to do: the run is at step %d of %d already", self.state.step, limits.last_step)
            return
        with closing(iter(self.loader)) as batches:
            while not (limits.ended or limits.stopping):
                self._step(batches)
        if limits.stopping and main:
            where = f"at step {self.state.step} of {limits.last_step}"
            log.info("stopped by %s %s; the same command continues from here", limits.stopping, where)

    def _step(self, batches: Iterator[Batch]) -> None:
        if self.limits.estimate is not None:
            self.train_step.scheduler.set_length(self.limits.estimate)
        began, drawn = self.limits.begin_step(), self.loader.drawn
        # A little less time than for the rest: the others wait for a rank that hangs here, and that one should be the first to say so.
        self.progress("waiting for data", 0.9)
        batch = next(batches)
        self.data_wait = time.monotonic() - began
        result = self.train_step(batch, self.state.step + 1, self.limits.wish)
        self.step_seconds = time.monotonic() - began
        self._count(result, self.loader.drawn - drawn)
        self.limits.end_step(self.state, self.steps_done, result.stop)
        self._report(result)

    def _count(self, result: StepResult, drawn: int) -> None:
        self.steps_done += 1
        self.state.step += 1
        self.state.examples += result.examples
        self.state.tokens += result.tokens
        self.state.frames += result.frames
        self.state.drawn += drawn
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

    def _tell_end(self, status: str) -> None:
        """Every callback hears of the end, whatever another one makes of it; what ended the run goes before what happens here."""
        failures = []
        for callback in self.callbacks:
            try:
                self.progress(f"{type(callback).__name__}.on_end", callback.patience)
                callback.on_end(self, status)
            except Exception as err:
                failures.append(err)
        for err in failures[0 if status == "failed" else 1 :]:
            log.warning("at the end of the run: %s: %s", type(err).__name__, first_line(err))
        if failures and status != "failed":
            raise failures[0]

    def notify_saved(self, folder: Path) -> None:
        self._tell("on_saved", str(folder))
