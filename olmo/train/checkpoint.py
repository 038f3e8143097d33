"""Writing checkpoints, and picking a run up again from one.

A checkpoint is written beside its place (`step<N>-tmp`), complete with its `config.yaml`, and renamed when every rank is
done: a folder called `step<N>` is always whole. Its layout is the published one:

    step<N>/config.yaml
    step<N>/model_and_optim/     torch distributed checkpoint; keys model.<parameter>, optim.state.<parameter>.<field>, ema.<parameter>
    step<N>/train/rank<R>.pt     trainer state of a rank: counters, data position, random state
"""

import logging
import os
import pickle
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from olmo.checkpoints import load_sharded, model_tensors, read_metadata, step_of
from olmo.distributed import World, initialized, on_all_ranks, on_main, whole
from olmo.exceptions import OLMoCheckpointError, OLMoEnvironmentError, OLMoError, first_line, os_error
from olmo.train.config import TrainConfig

log = logging.getLogger(__name__)


def cannot_write(folder: str | Path) -> Callable[[BaseException], OLMoError]:
    """Turns any failure while writing below `folder` into one sentence."""

    def translate(err: BaseException) -> OLMoError:
        cause = os_error(err)
        reason = (cause.strerror or str(cause)) if cause is not None else f"{type(err).__name__}: {first_line(err)}"
        return OLMoEnvironmentError(f"cannot write to {folder}: {reason}; give a folder with room and write permission as --save_folder")

    return translate


def probe_save_folder(folder: str | Path) -> None:
    """Create the save folder and write a byte into it, before anything expensive is built."""

    def probe() -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
            os.fsync(file.fileno())

    on_main(probe, cannot_write(folder))


# ---------------------------------------------------------------------------------------------- what is saved


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """`optim.state.<parameter>.<field>` -> tensor, for every parameter that has been updated."""
    tensors = {}
    for group in optimizer.param_groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            for key, value in optimizer.state.get(param, {}).items():
                tensors[f"optim.state.{name}.{key}"] = value
    return tensors


def optimizer_settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optim.param_groups.<i>.<setting>` -> plain value: a record for readers, never read back (the live config rules)."""
    settings = {}
    for i, group in enumerate(optimizer.param_groups):
        for key in ("group_name", "lr", "betas", "eps", "weight_decay"):
            settings[f"optim.param_groups.{i}.{key}"] = group[key]
        settings[f"optim.param_groups.{i}.params"] = list(group["param_names"])
    return settings


def random_state() -> dict[str, Any]:
    """State of every random generator of this process, in types that load without unpickling code."""
    version, words, gauss = random.getstate()
    kind, keys, pos, has_gauss, cached = np.random.get_state()
    state = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), pos, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, pos, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), pos, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


# ---------------------------------------------------------------------------------------------- writing


def save_checkpoint(
    cfg: TrainConfig,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    state: dict[str, Any],
    world: World,
    more: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Path:
    """Write `step<N>` (all ranks call this); without `optimizer` only weights, trainer state and the tensors in `more`."""
    import torch.distributed.checkpoint as dcp

    root = Path(cfg.save_folder)
    final, tmp = root / f"step{step}", root / f"step{step}-tmp"

    def prepare() -> None:
        shutil.rmtree(tmp, ignore_errors=True)
        (tmp / "train").mkdir(parents=True)

    def write_state() -> None:
        torch.save(state, tmp / "train" / f"rank{world.rank}.pt")

    def write_tensors() -> None:
        tensors: dict[str, Any] = {f"model.{n}": p.detach() for n, p in model_tensors(model).items()}
        tensors |= more
        if optimizer is not None:
            tensors |= optimizer_tensors(optimizer) | optimizer_settings(optimizer)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*assuming the intent is to save in a single process.*")
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(tmp / "model_and_optim"), no_dist=not initialized())

    def publish() -> None:
        cfg.save(tmp / "config.yaml")
        if final.exists():
            shutil.rmtree(final)
        tmp.rename(final)

    translate = cannot_write(root)
    try:
        on_main(prepare, translate)
        # One after the other: a rank that fails in the first must not leave the others waiting in the second.
        on_all_ranks(write_state, translate)
        on_all_ranks(write_tensors, translate)
        on_main(publish, translate)
    except OLMoError:
        if world.is_main:
            shutil.rmtree(tmp, ignore_errors=True)
        raise
    return final


def save_unsharded(cfg: TrainConfig, step: int, model: nn.Module, world: World) -> Path:
    """Write `step<N>-unsharded/{model.pt,config.yaml}`: all weights in one file, without prefix (all ranks call this)."""
    root = Path(cfg.save_folder)
    final, tmp = root / f"step{step}-unsharded", root / f"step{step}-unsharded-tmp"
    weights = {}
    for name, param in model_tensors(model).items():
        weight = whole(param.detach())
        if world.is_main:
            weights[name] = weight.cpu()

    def write() -> None:
        for folder in (tmp, final):
            shutil.rmtree(folder, ignore_errors=True)
        tmp.mkdir(parents=True)
        torch.save(weights, tmp / "model.pt")
        cfg.save(tmp / "config.yaml")
        tmp.rename(final)

    on_main(write, cannot_write(root))
    return final


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint; it stops being one before its first file goes (rank 0 only)."""
    doomed = folder.with_name(f"{folder.name}-tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def existing_steps(save_folder: str | Path) -> list[Path]:
    """The `step<N>` folders of a run, oldest first."""
    root = Path(save_folder)
    folders = [p for p in root.glob("step*") if p.is_dir() and step_of(p) is not None and not p.name.endswith("-unsharded")]
    return sorted(folders, key=step_of)


# ---------------------------------------------------------------------------------------------- reading


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimiser's state from a checkpoint (weights are loaded by `checkpoints.read_weights`)."""
    stored = {k for k in read_metadata(folder).state_dict_metadata if k.startswith("optim.state.")}
    if not stored:
        raise OLMoCheckpointError(
            f"{folder} holds no optimiser state (it was saved without); set reset_optimizer_state=true to start with a fresh one"
        )
    without = []
    for group in optimizer.param_groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            if f"optim.state.{name}.exp_avg" not in stored:
                without.append(name)
                continue
            moments = {key: torch.zeros_like(param) for key in ("exp_avg", "exp_avg_sq")}
            # the fused kernel counts steps where the parameters are, the others on the host
            step = torch.zeros((), device=param.device if group["fused"] else "cpu")
            optimizer.state[param] = {"step": step, **moments}
    if without:
        raise OLMoCheckpointError(
            f"{folder} holds no optimiser state for {len(without)} of the trained parameters ({', '.join(without[:3])}); "
            "train the same parameters or set reset_optimizer_state=true"
        )
    load_sharded(folder, optimizer_tensors(optimizer))


def load_trainer_state(folder: Path, world: World) -> dict[str, Any]:
    """Trainer state of this rank; a rank that did not exist when it was saved takes rank 0's."""
    own = folder / "train" / f"rank{world.rank}.pt"
    file = own if own.is_file() else folder / "train" / "rank0.pt"
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OLMoCheckpointError(
            f"{folder} holds no trainer state (train/rank0.pt); set reset_trainer_state=true to start at step 0"
        ) from None
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as err:
        raise OLMoCheckpointError(
            f"{file} cannot be read as trainer state of this package ({first_line(err)[:120]}); "
            "take only its weights with --initial_model_checkpoint"
        ) from None
    state["same_world"] = own.is_file() and state["world_size"] == world.size
    return state
