"""When checkpoints are written and which of them stay."""

import logging
from pathlib import Path

from olmo.checkpoints import step_of
from olmo.distributed import barrier
from olmo.train.callbacks.base import Callback
from olmo.train.callbacks.ema import ExponentialAverage
from olmo.train.checkpoint import existing_steps, remove_checkpoint, save_checkpoint, save_unsharded
from olmo.train.config import TrainConfig

log = logging.getLogger(__name__)


class Checkpointer(Callback):
    """Saves every `save_interval` steps, at `save_at`, when the run stops, and now and then an ephemeral one.

    Older checkpoints are deleted after the new one is complete, never before.
    """

    def __init__(self, cfg: TrainConfig, protected: Path | None = None, ema: ExponentialAverage | None = None):
        self.cfg, self.ema = cfg, ema
        self.protected = protected
        """A checkpoint that this run started from without continuing it: never deleted."""
        self.kept: list[Path] = []
        self.ephemeral: list[Path] = []
        self.first_save = True
        """The next save is the first of this run, which may stand in the folder of an older one."""

    def on_start(self, trainer) -> None:
        step = trainer.state.step
        if step and trainer.resumed:
            self.kept = [f for f in existing_steps(self.cfg.save_folder) if step_of(f) <= step]
            self.first_save = False

    def on_step(self, trainer, result, metrics) -> None:
        cfg, step = self.cfg, trainer.state.step
        if cfg.save_num_checkpoints_to_keep == 0:
            return
        last = step >= trainer.last_step
        if trainer.stopping or step == cfg.save_at or (cfg.save_interval is not None and step % cfg.save_interval == 0) or last:
            self._save(trainer, with_optimizer=cfg.save_final_optim or not last, ephemeral=False)
        elif cfg.save_interval_ephemeral is not None and step % cfg.save_interval_ephemeral == 0:
            self._save(trainer, with_optimizer=True, ephemeral=True)
        if last and not trainer.stopping and cfg.save_final_unsharded_checkpoint:
            folder = save_unsharded(cfg, step, trainer.model, trainer.world)
            trainer.notify_saved(folder)

    def _save(self, trainer, *, with_optimizer: bool, ephemeral: bool) -> None:
        optimizer = trainer.optimizer if with_optimizer else None
        more = {} if self.ema is None else self.ema.tensors()
        folder = save_checkpoint(self.cfg, trainer.state.step, trainer.model, optimizer, trainer.state_dict(), trainer.world, more)
        trainer.notify_saved(folder)
        stale = self.ephemeral
        self.ephemeral = [folder] if ephemeral else []
        if not ephemeral:
            self.kept.append(folder)
            keep = self.cfg.save_num_checkpoints_to_keep
            if keep > 0:
                stale, self.kept = [*stale, *self.kept[:-keep]], self.kept[-keep:]
        if self.first_save:
            stale = [*stale, *self._of_an_older_run(folder)]
        self.first_save = False
        if trainer.world.is_main:
            for old in stale:
                if old.is_dir() and old != folder:
                    remove_checkpoint(old)
        barrier()

    def _of_an_older_run(self, new: Path) -> list[Path]:
        """Checkpoints of the run that `save_overwrite` replaces; left there, a resume would pick the newest of them."""
        protected = self.protected.resolve() if self.protected is not None else None
        old = [f for f in existing_steps(self.cfg.save_folder) if f != new and f.resolve() != protected]
        if old:
            log.info("save_overwrite: removing %d checkpoints of an earlier run from %s", len(old), self.cfg.save_folder)
        return old
