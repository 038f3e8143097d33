"""A whole run, in its fixed order: check, decide where to start, build, load, train."""

import logging
import shutil
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from olmo.checkpoints import match_weights, read_config
from olmo.checkpoints.stores import Store
from olmo.distributed import World, barrier, on_main
from olmo.exceptions import OLMoCheckpointError, OLMoConfigurationError
from olmo.train import build
from olmo.train.callbacks.standard import sinks, standard_callbacks
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import RuntimeData
from olmo.train.data import build_loader
from olmo.train.duration import RunLength
from olmo.train.limits import Limits
from olmo.train.optim import build_optimizer
from olmo.train.saving.checkpoint import cannot_write, load_optimizer, load_trainer_state
from olmo.train.saving.folder import existing_steps, probe_save_folder
from olmo.train.saving.writing import clear_leftovers
from olmo.train.scheduler import Scheduler
from olmo.train.start import Start, cannot_find_start, fetch_start, find_start
from olmo.train.start_record import note_start
from olmo.train.step import TrainStep, out_of_memory
from olmo.train.trainer import Trainer
from olmo.version import __version__

log = logging.getLogger(__name__)


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
    for sink in sinks(cfg):
        sink.require()
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
    note_start(cfg, world, start, trainer.state.step, command)
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
    length = RunLength.of(cfg, loader.epoch_size)
    step = TrainStep(cfg, model, optimizer, Scheduler(cfg.scheduler, length.steps), world)
    callbacks = standard_callbacks(cfg, model, console, protected=None if start.resumes else start.origin)
    trainer = Trainer(step, loader, callbacks, Limits(cfg, world, length))
    if start.trainer:
        trainer.load_state_dict(load_trainer_state(start.folder, world))
        trainer.resumed = start.resumes
    # The last checkpoint of a finished run may have no optimiser state (save_final_optim=false), and needs none.
    if start.optimizer and not trainer.limits.ended:
        load_optimizer(start.folder, optimizer)
    if start.optimizer:
        for callback in callbacks:
            callback.load_tensors(start.folder)
    if world.is_main:
        parts = ", ".join(f"{g} {sum(p.numel() for _, p in m):,}" for g, m in model.parameter_groups().items() if m)
        log.info("parameters: %s", parts)
        if str(cfg.max_duration) != str(length.steps):
            log.info("length of the run: max_duration=%s is %s", cfg.max_duration, length)
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
