"""Saving at once: a checkpoint, or all weights in one file (all ranks call these, and training waits)."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from olmo.checkpoints import model_tensors, step_of
from olmo.checkpoints.stores import Store
from olmo.distributed import World, on_main, whole
from olmo.train.config import TrainConfig
from olmo.train.saving.checkpoint import cannot_write
from olmo.train.saving.snapshot import Snapshots
from olmo.train.saving.writing import commit, draft, write_checkpoint


def probe_save_folder(cfg: TrainConfig) -> None:
    """Create the folders of a run and write a byte into them, before anything expensive is built."""
    for location in dict.fromkeys((cfg.save_folder, cfg.checkpoints)):
        store = Store(location)
        on_main(store.probe, cannot_write(store))


def existing_steps(location: str | os.PathLike | Store) -> list[str]:
    """Names of the `step<N>` folders of a run, oldest first."""
    store = location if isinstance(location, Store) else Store(location)
    return sorted((n for n in store.folders() if step_of(n) is not None and not n.endswith("-unsharded")), key=step_of)


def save_checkpoint(
    cfg: TrainConfig,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    state: dict[str, Any],
    world: World,
    more: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Path:
    """Write `step<N>`; without `optimizer` only weights, trainer state and the tensors in `more`."""
    snap = Snapshots().take(cfg, step, model, optimizer, state, more, copy=False)
    return Path(write_checkpoint(Store(cfg.checkpoints), snap, world))


def save_unsharded(cfg: TrainConfig, step: int, model: nn.Module, world: World) -> str:
    """Write `step<N>-unsharded/{model.pt,config.yaml}`: all weights in one file, without prefix; returns its location."""
    store, name = Store(cfg.checkpoints), f"step{step}-unsharded"
    weights = {}
    for key, param in model_tensors(model).items():
        weight = whole(param.detach())
        if world.is_main:
            weights[key] = weight.cpu()
    with draft(store, name, world) as folder:

        def write() -> None:
            with store.writing(f"{folder}/model.pt") as stream:
                torch.save(weights, stream)
            entries = {"model.pt": stream.entry(), "config.yaml": store.write(f"{folder}/config.yaml", cfg.to_yaml().encode())}
            commit(store, name, folder, entries)

        on_main(write, cannot_write(store))
    return store.url(name)
