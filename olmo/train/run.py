"""A whole run, in its fixed order: check, decide where to start, build, load, train."""

import logging
import shutil
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from olmo.checkpoints import holds_only_weights, match_weights, read_config, select_checkpoint, step_of, verify_checkpoint
from olmo.checkpoints.remote import cached, fetch, select_in_store
from olmo.checkpoints.stores import Store, is_url
from olmo.distributed import World, barrier, on_all_ranks, on_main
from olmo.exceptions import OLMoCheckpointError, OLMoConfigurationError, OLMoError, first_line
from olmo.train import build
from olmo.train.callbacks.checkpointer import Checkpointer, SaveMeter
from olmo.train.callbacks.console import ConsoleLogger
from olmo.train.callbacks.ema import ExponentialAverage
from olmo.train.callbacks.evaluation import Evaluator
from olmo.train.callbacks.jsonl import JsonlLogger
from olmo.train.callbacks.speed import SpeedMonitor
from olmo.train.callbacks.wandb import WandbLogger
from olmo.train.callbacks.wandb import wanted as wandb_wanted
from olmo.train.checkpoint import cannot_write, load_optimizer, load_trainer_state
from olmo.train.config import RuntimeData, TrainConfig
from olmo.train.data import build_loader
from olmo.train.optim import build_optimizer
from olmo.train.saving import existing_steps, probe_save_folder
from olmo.train.scheduler import Scheduler
from olmo.train.step import TrainStep, out_of_memory
from olmo.train.trainer import Trainer
from olmo.train.writing import clear_leftovers
from olmo.version import __version__

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    origin: str | None = None
    """Folder or URL of the checkpoint; None = fresh weights."""
    optimizer: bool = False
    """Take its optimiser state."""
    trainer: bool = False
    """Take step, data position and random state."""
    resumes: bool = False
    """It is this run's own checkpoint."""

    @property
    def fetched(self) -> bool:
        """Whether the checkpoint lies in an object store and is copied here."""
        return self.origin is not None and is_url(self.origin)

    @property
    def folder(self) -> Path | None:
        """Where it can be read."""
        if self.origin is None:
            return None
        return cached(self.origin) if self.fetched else Path(self.origin)


def find_start(cfg: TrainConfig) -> Start:
    """The newest own checkpoint if resuming is allowed, else `load_path`, else `initial_model_checkpoint`, else nothing."""
    own = Store(cfg.checkpoints)
    optimizer, trainer = not cfg.reset_optimizer_state, not cfg.reset_trainer_state
    if cfg.allow_resume and (existing_steps(own) or any(step_of(n) is not None for n in own.folders())):
        return Start(locate(cfg.checkpoints), optimizer, trainer, resumes=True)
    if cfg.load_path is not None:
        return Start(locate(cfg.load_path), optimizer, trainer)
    if cfg.initial_model_checkpoint is not None:
        return Start(locate(cfg.initial_model_checkpoint))
    return Start()


def locate(location: str) -> str:
    """The checkpoint that a folder or URL stands for; of a URL nothing is copied yet."""
    return select_in_store(location) if is_url(location) else str(select_checkpoint(location))


def fetch_start(cfg: TrainConfig, start: Start, world: World) -> None:
    """Bring the checkpoint of a URL to every machine, and check what is there."""
    if start.origin is None:
        return
    if start.fetched:
        on_all_ranks(lambda: fetch(start.origin) if world.local_rank == 0 else None, cannot_find_start)
    on_main(lambda: check_start(start), cannot_find_start)
    # What was fetched has been compared on its way.
    if cfg.verify_checkpoint and not start.fetched:
        on_all_ranks(lambda: verify_checkpoint(start.folder, world.rank, world.size), cannot_find_start)


def check_start(start: Start) -> None:
    """Refuse weights alone where more is to be taken."""
    if (start.optimizer or start.trainer or start.resumes) and holds_only_weights(start.folder):
        if start.resumes:
            raise OLMoCheckpointError(
                f"{start.origin} holds weights only and cannot be continued; give it as --initial_model_checkpoint with another save_folder"
            )
        raise OLMoCheckpointError(
            f"load_path {start.origin} holds weights only; set reset_optimizer_state=true and reset_trainer_state=true to start from it"
        )


def cannot_find_start(err: BaseException) -> OLMoError:
    """For what goes wrong while looking for a checkpoint and is not worded for the user, such as a folder that may not be read."""
    return OLMoCheckpointError(f"cannot look for the checkpoint to start from: {type(err).__name__}: {first_line(err)}")


def prepare_save_folder(cfg: TrainConfig, start: Start) -> None:
    """Refuse to mix two runs in one folder, and clear what an interrupted save left."""
    root, store = Path(cfg.save_folder), Store(cfg.checkpoints)

    def prepare() -> None:
        if not start.resumes and not cfg.save_overwrite:
            key = "save_folder" if (root / "config.yaml").exists() else "checkpoint_folder"
            if key == "save_folder" or (cfg.checkpoint_folder is not None and existing_steps(store)):
                raise OLMoConfigurationError(
                    f"{key} {getattr(cfg, key)} already holds a run; give another folder, or save_overwrite=true, "
                    "or allow_resume=true to continue it"
                )
        clear_leftovers(store)

    on_main(prepare, cannot_write(store))


def compare_configs(cfg: TrainConfig, folder: Path) -> None:
    """Say which parts of the config changed since the checkpoint that the run continues."""
    saved = TrainConfig.from_dict(read_config(folder)).asdict()
    current = cfg.asdict()
    changed = [block for block in ("model", "lora", "optimizer", "scheduler", "data") if saved[block] != current[block]]
    if changed:
        log.warning("the config differs from that of %s in: %s; the new values are used", folder, ", ".join(changed))


def train(cfg: TrainConfig, world: World, console: Any, command: str = "") -> str:
    """Run `cfg` to its end; returns the trainer's status."""
    try:
        return _train(cfg, world, console, command)
    except torch.OutOfMemoryError as err:
        raise out_of_memory(err) from err


def _train(cfg: TrainConfig, world: World, console: Any, command: str) -> str:
    cfg.validate(world.size)
    probe_save_folder(cfg)
    start = on_main(lambda: find_start(cfg), cannot_find_start)
    fetch_start(cfg, start, world)
    if start.folder is not None:
        # Before the data are opened: a checkpoint of another model should not show after minutes of generating videos.
        match_weights(start.folder, build.meta_model(cfg))
    prepare_save_folder(cfg, start)
    loader = build_loader(cfg, world)
    trainer = build_trainer(cfg, world, console, loader, start)
    cfg.runtime_data = RuntimeData(
        args=command,
        hostname=socket.gethostname(),
        date=datetime.now().strftime("%m/%d/%Y, %H:%M"),
        version=__version__,
        world_size=world.size,
        resuming_from=start.origin if start.resumes else None,
    )
    if not start.resumes:
        on_main(lambda: cfg.save(Path(cfg.save_folder) / "config.yaml"), cannot_write(cfg.save_folder))
    return trainer.fit()


def build_trainer(cfg: TrainConfig, world: World, console: Any, loader: Any, start: Start) -> Trainer:
    """Model, optimiser and trainer, loaded from where the run starts."""
    model = build.build_sharded_model(cfg, world)
    if start.folder is None:
        build.initialise_weights(cfg, model, world)
        build.load_pretrained(model, world)
    else:
        build.load_weights(cfg, model, start.folder, world)
    bad = build.check_finite(model)
    if bad is not None:
        raise OLMoCheckpointError(f"{start.folder or 'the initial model'} has a value in {bad} that is not finite")
    # From here on every rank draws its own dropout; a resumed run gets its saved state back below.
    build.seed_everything(cfg.seed + world.rank)
    optimizer = build_optimizer(cfg.optimizer, model)
    step = TrainStep(cfg, model, optimizer, Scheduler(cfg.scheduler, cfg.max_steps), world)
    ema = None if cfg.ema is None else ExponentialAverage(cfg.ema, model)
    checkpointer = Checkpointer(cfg, protected=None if start.resumes else start.origin, ema=ema)
    callbacks = [
        *([] if ema is None else [ema]),
        SpeedMonitor(cfg.speed_monitor.window_size, cfg.speed_monitor.gpu_flops_available),
        *([Evaluator(cfg)] if cfg.evaluation.tasks else []),
        SaveMeter(checkpointer),
        JsonlLogger(cfg.save_folder),
        ConsoleLogger(cfg.console_log_interval, console),
        *([WandbLogger(cfg.wandb)] if wandb_wanted(cfg.wandb) else []),
        checkpointer,
    ]
    trainer = Trainer(step, loader, callbacks)
    if start.trainer:
        trainer.load_state_dict(load_trainer_state(start.folder, world))
        trainer.resumed = start.resumes
    # The last checkpoint of a finished run may have no optimiser state (save_final_optim=false), and needs none.
    if start.optimizer and trainer.state.step < cfg.last_step:
        load_optimizer(start.folder, optimizer)
    if start.optimizer and ema is not None:
        ema.load(start.folder)
    if world.is_main:
        parts = ", ".join(f"{g} {sum(p.numel() for _, p in m):,}" for g, m in model.parameter_groups().items() if m)
        log.info("parameters: %s", parts)
        if start.folder is None:
            log.info("starting from fresh weights")
        else:
            log.info("%s %s at step %d", "continuing" if start.resumes else "starting from", start.origin, trainer.state.step)
        if start.resumes:
            compare_configs(cfg, start.folder)
    if start.fetched and start.resumes:
        barrier()
        if world.local_rank == 0:
            shutil.rmtree(start.folder, ignore_errors=True)  # the next start of this run fetches a newer one
    return trainer
