"""When checkpoints are written, what happens when that fails, and which of them stay."""

import logging
import os
import time
from datetime import timedelta

import torch.distributed as dist

from olmo.checkpoints import step_of
from olmo.checkpoints.marker import COMPLETE, parse_marker
from olmo.checkpoints.stores import Store, is_url
from olmo.distributed import initialized, on_main
from olmo.exceptions import OLMoEnvironmentError, OLMoError, first_line
from olmo.train.callbacks.base import Callback
from olmo.train.callbacks.ema import ExponentialAverage
from olmo.train.config import TrainConfig
from olmo.train.saving.checkpoint import cannot_write
from olmo.train.saving.folder import existing_steps, save_unsharded
from olmo.train.saving.retention import Saved, superseded
from olmo.train.saving.snapshot import Snapshot, Snapshots
from olmo.train.saving.writer import ABANDON_AFTER, Outcome, Writer
from olmo.train.saving.writing import delete, write_checkpoint

log = logging.getLogger(__name__)

AGREEMENT_TIMEOUT = timedelta(hours=2)
"""How long one rank may write longer than another."""


class Checkpointer(Callback):
    """Saves every `save_interval` steps, at `save_at`, when the run stops, and now and then an ephemeral one.

    A save that is due while another is being written waits for it. How one ended is looked at when the next is due and when
    the run ends, so that all ranks look at the same step. Older checkpoints are deleted after a new one is whole, never before.
    """

    patience = 24.0

    def __init__(self, cfg: TrainConfig, protected: str | None = None, ema: ExponentialAverage | None = None):
        self.cfg, self.ema = cfg, ema
        self.protected = protected
        """A checkpoint that this run started from without continuing it: never deleted."""
        self.store = Store(cfg.checkpoints)
        self.saved: list[Saved] = []
        """Whole checkpoints of this run, oldest first."""
        self.pending: Saved | None = None
        self.failures = 0
        """Saves in a row that failed."""
        self.first_save = True
        """No save of this run has succeeded yet, and it may stand in the folder of an older one."""
        self.snapshots = Snapshots()
        self.writer: Writer | None = None
        self.group: dist.ProcessGroup | None = None
        self.last_pause: float | None = None
        self.last_bytes = 0
        """Of the newest save: seconds that training stood still, bytes of this rank. Reported with the next step."""

    def on_start(self, trainer) -> None:
        asynchronous = self.cfg.saves_asynchronously(trainer.world.device)
        self.writer = Writer(asynchronous)
        if asynchronous and initialized():
            # The ranks' agreements in the writer's thread must not get between those of training.
            self.group = dist.new_group(backend="gloo", timeout=AGREEMENT_TIMEOUT)
        step = trainer.state.step
        if step and trainer.resumed:
            self.saved = on_main(lambda: self._of_this_run(step), cannot_write(self.store))
            self.first_save = False

    def on_step(self, trainer, result, metrics) -> None:
        cfg, step = self.cfg, trainer.state.step
        if cfg.save_num_checkpoints_to_keep == 0:
            return
        last = step >= trainer.last_step
        ends = bool(trainer.stopping) or last
        if ends or step == cfg.save_at or (cfg.save_interval is not None and step % cfg.save_interval == 0):
            self._save(trainer, with_optimizer=cfg.save_final_optim or not last, ephemeral=False)
        elif cfg.save_interval_ephemeral is not None and step % cfg.save_interval_ephemeral == 0:
            self._save(trainer, with_optimizer=True, ephemeral=True)
        if ends or not self.writer.background:
            self._settle(trainer, must_succeed=ends)
        if last and not trainer.stopping and cfg.save_final_unsharded_checkpoint:
            trainer.notify_saved(save_unsharded(cfg, step, trainer.model, trainer.world))

    def on_end(self, trainer, status) -> None:
        """A run that failed still finishes the save that it began: it may be the newest."""
        if self.writer is None:
            return
        outcome = self.writer.finish(None if trainer.world.size == 1 else ABANDON_AFTER)
        if self.writer.busy:
            log.warning("the save of step %d was not finished after %.0f s: left", step_of(self.pending.name), ABANDON_AFTER)
        elif outcome is not None and outcome.error is not None:
            log.warning("%s", outcome.error)

    # ------------------------------------------------------------------------------------------ saving

    def _save(self, trainer, *, with_optimizer: bool, ephemeral: bool) -> None:
        began = time.perf_counter()
        self._settle(trainer)
        waited = time.perf_counter() - began
        optimizer = trainer.optimizer if with_optimizer else None
        state, world, background = trainer.state_dict(), trainer.world, self.writer.background
        more = {} if self.ema is None else self.ema.tensors()
        snap = self.snapshots.take(self.cfg, trainer.state.step, trainer.model, optimizer, state, more, copy=background)
        new = self.pending = Saved(f"step{snap.step}", ephemeral)
        going = superseded(self.saved, new, self.cfg.save_num_checkpoints_to_keep)
        older_run = self.first_save

        def save() -> str:
            location = write_checkpoint(self.store, snap, world, self.group, ephemeral=ephemeral)
            if world.is_main:
                self._delete([s.name for s in going] + (self._of_an_older_run(new.name) if older_run else []))
            return location

        self.writer.start(save)
        self.last_pause, self.last_bytes = time.perf_counter() - began, snap.bytes
        if world.is_main:
            self._log_pause(snap, waited)

    def _log_pause(self, snap: Snapshot, waited: float) -> None:
        if self.writer.background:
            wait = f", {waited:.1f} s of them for the save before" if waited > 0.1 else ""
            what = f"copied in {1e3 * self.last_pause:.1f} ms{wait}; writing in the background"
        else:
            what = f"written while training waited {1e3 * self.last_pause:.1f} ms"
        log.info("step %d: %.1f MB of this rank %s", snap.step, snap.bytes / 1e6, what)

    def _settle(self, trainer, *, must_succeed: bool = False) -> None:
        """Take the outcome of the save that was begun, if there is one: the same on all ranks."""
        outcome = self.writer.finish()
        if outcome is None:
            return
        new, self.pending = self.pending, None
        if outcome.error is not None:
            self._failed(outcome, new, must_succeed)
            return
        self.failures, self.first_save = 0, False
        going = superseded(self.saved, new, self.cfg.save_num_checkpoints_to_keep)
        self.saved = [*(s for s in self.saved if s not in going and s.name != new.name), new]
        trainer.notify_saved(outcome.location)

    def _failed(self, outcome: Outcome, new: Saved, must_succeed: bool) -> None:
        self.failures += 1
        last = f"the newest checkpoint is {self.store.url(self.saved[-1].name)}" if self.saved else "there is no checkpoint of this run yet"
        if must_succeed or self.failures > self.cfg.save_failures_allowed:
            which = f"saving failed {self.failures} times in a row" if self.failures > 1 else f"{new.name} was not saved"
            raise OLMoEnvironmentError(f"{outcome.error} ({which}; {last})") from outcome.error
        log.warning(
            "%s was not saved, training goes on (failure %d in a row, %d allowed by save_failures_allowed); %s: %s",
            new.name, self.failures, self.cfg.save_failures_allowed, last, outcome.error,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ what stays

    def _delete(self, names: list[str]) -> None:
        """A checkpoint that cannot be deleted is no reason to lose a new one."""
        for name in names:
            try:
                delete(self.store, name)
            except Exception as err:  # every store's library has errors of its own
                log.warning("%s cannot be deleted: %s: %s", self.store.url(name), type(err).__name__, first_line(err))

    def _of_this_run(self, step: int) -> list[Saved]:
        """What a resumed run finds of its own, up to the step it continues from."""
        return [Saved(n, self._is_ephemeral(n)) for n in existing_steps(self.store) if step_of(n) <= step]

    def _is_ephemeral(self, name: str) -> bool:
        marker = f"{name}/{COMPLETE}"
        try:
            return self.store.exists(marker) and bool(parse_marker(self.store.read(marker), self.store.url(marker)).get("ephemeral"))
        except OLMoError:
            return False

    def _of_an_older_run(self, new: str) -> list[str]:
        """Checkpoints of the run that `save_overwrite` replaces; left there, a resume would pick the newest of them."""
        old = [n for n in existing_steps(self.store) if n != new and not self._is_protected(n)]
        if old:
            log.info("save_overwrite: removing %d checkpoints of an earlier run from %s", len(old), self.store)
        return old

    def _is_protected(self, name: str) -> bool:
        if self.protected is None or is_url(self.protected) == self.store.renames:
            return False
        if not self.store.renames:
            return self.protected == self.store.url(name)
        return os.path.realpath(self.store.path(name)) == os.path.realpath(self.protected)


class SaveMeter(Callback):
    """Puts the pause of the newest save into the record of the step after it (a save comes after its own step's record)."""

    def __init__(self, checkpointer: Checkpointer):
        self.checkpointer = checkpointer

    def on_step(self, trainer, result, metrics) -> None:
        if self.checkpointer.last_pause is not None:
            metrics["throughput/save_pause_seconds"] = self.checkpointer.last_pause
            metrics["throughput/save_bytes"] = self.checkpointer.last_bytes
            self.checkpointer.last_pause = None
