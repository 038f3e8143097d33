"""What is in a run's checkpoint, and picking the run up again from it.

Its layout is the published one, with one file more (`olmo/train/saving/writing.py` writes it):

    step<N>/config.yaml
    step<N>/model_and_optim/     torch distributed checkpoint; keys model.<parameter>, optim.state.<parameter>.<field>, ema.<parameter>
    step<N>/train/rank<R>.pt     trainer state of a rank: counters, data position, random state
    step<N>/complete.json        written last: every file with its length and check sum
"""

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from olmo.checkpoints import load_sharded, read_metadata
from olmo.distributed import World
from olmo.exceptions import OLMoCheckpointError, OLMoEnvironmentError, OLMoError, first_line, os_error
from olmo.train.optim import fresh_state


def cannot_write(folder: object) -> Callable[[BaseException], OLMoError]:
    """Turns any failure while writing below `folder` into one sentence."""

    def translate(err: BaseException) -> OLMoError:
        cause = os_error(err)
        reason = (cause.strerror or str(cause)) if cause is not None else f"{type(err).__name__}: {first_line(err)}"
        return OLMoEnvironmentError(f"cannot write to {folder}: {reason}; give a folder with room and write permission as --save_folder")

    return translate


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
            optimizer.state[param] = fresh_state(group, param)
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
