"""Weights & Biases as a second place for the metrics."""

import os
from pathlib import Path
from typing import Any

from olmo.train.callbacks.sink import Sink
from olmo.train.config_blocks import WandbConfig


def wanted(cfg: WandbConfig | None) -> bool:
    """Whether this run reports to wandb: a project is named, in the config or in the environment."""
    if cfg is None or os.environ.get("WANDB_MODE") == "disabled":
        return False
    return bool(cfg.project or os.environ.get("WANDB_PROJECT"))


class WandbLogger(Sink):
    """One wandb run, continued by a resumed training if `allow_resume` says so."""

    title = "wandb"

    def __init__(self, cfg: WandbConfig):
        super().__init__(cfg.log_interval)
        self.cfg = cfg
        self.run: Any = None

    def open(self, trainer) -> None:
        import wandb

        cfg, state = self.cfg, trainer.state
        folder = Path(trainer.cfg.save_folder) / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {}
        if cfg.allow_resume and state.wandb_id and state.step:
            settings = {"id": state.wandb_id, "resume": "allow"}
        described = trainer.cfg.asdict()
        described.pop("wandb", None)
        self.run = wandb.init(
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
        state.wandb_id = self.run.id
        if trainer.cfg.runtime_data is not None:
            trainer.cfg.runtime_data.wandb_id, trainer.cfg.runtime_data.wandb_url = self.run.id, self.run.url

    def report(self, metrics, step) -> None:
        self.run.log(metrics, step=step)

    def close(self, status) -> None:
        failed = status == "failed" or (status == "stopped" and self.cfg.finish_on_sigterm)
        self.run.finish(exit_code=int(failed))
