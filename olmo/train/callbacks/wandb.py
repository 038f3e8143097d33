"""Weights & Biases as a second sink. It may be absent, unreachable or broken: the run goes on and one line says so."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from olmo.exceptions import first_line, missing_package
from olmo.train.callbacks.base import Callback
from olmo.train.config_blocks import WandbConfig

log = logging.getLogger(__name__)


def wanted(cfg: WandbConfig | None) -> bool:
    """Whether this run reports to wandb: a project is named, in the config or in the environment."""
    if cfg is None or os.environ.get("WANDB_MODE") == "disabled":
        return False
    return bool(cfg.project or os.environ.get("WANDB_PROJECT"))


class WandbLogger(Callback):
    """Reports on rank 0 every `log_interval` steps."""

    def __init__(self, cfg: WandbConfig):
        self.cfg = cfg
        self.run: Any = None

    def _safely(self, what: str, action: Callable[[], Any]) -> Any:
        """Run `action`; whatever it raises ends the reporting, not the training."""
        try:
            return action()
        except Exception as err:  # a broken sink must not end a run
            self.run = None
            log.warning("wandb is off from here on (%s failed: %s)", what, first_line(err))
            return None

    def on_start(self, trainer) -> None:
        if trainer.world.is_main:
            self.run = self._safely("start", lambda: self._init(trainer))

    def _init(self, trainer) -> Any:
        try:
            import wandb
        except ImportError:
            raise missing_package("wandb", "wandb", "reporting to Weights & Biases") from None
        cfg, state = self.cfg, trainer.state
        folder = Path(trainer.cfg.save_folder) / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {}
        if cfg.allow_resume and state.wandb_id and state.step:
            settings = {"id": state.wandb_id, "resume": "allow"}
        described = trainer.cfg.asdict()
        described.pop("wandb", None)
        run = wandb.init(
            dir=str(folder),
            project=cfg.project or os.environ.get("WANDB_PROJECT"),
            entity=cfg.entity or os.environ.get("WANDB_ENTITY"),
            group=cfg.group,
            name=cfg.name or trainer.cfg.run_name,
            tags=list(cfg.tags),
            config=described,
            settings=wandb.Settings(init_timeout=180, silent=True),
            **settings,
        )
        state.wandb_id = run.id
        if trainer.cfg.runtime_data is not None:
            trainer.cfg.runtime_data.wandb_id, trainer.cfg.runtime_data.wandb_url = run.id, run.url
        return run

    def on_step(self, trainer, result, metrics) -> None:
        due = trainer.state.step % self.cfg.log_interval == 0 or "eval/seconds" in metrics
        if self.run is not None and due:
            self._safely("log", lambda: self.run.log(dict(metrics), step=trainer.state.step))

    def on_end(self, trainer, status) -> None:
        if self.run is not None:
            failed = status == "failed" or (status == "stopped" and self.cfg.finish_on_sigterm)
            self._safely("finish", lambda: self.run.finish(exit_code=int(failed)))
            self.run = None
