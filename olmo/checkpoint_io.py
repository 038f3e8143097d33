"""Reading checkpoints: finding them, checking that they are whole and fit the model, and loading the weights.

A checkpoint is a folder `step<N>` with `config.yaml` and `model_and_optim/` (torch distributed checkpoint, keys
`model.<parameter>` and `optim.*`), or a folder with `config.yaml` and `model.pt` (all weights in one file). Both are
checked by names and shapes before anything is read, so that a wrong one is refused with one sentence.
"""

import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.tensor import DTensor, distribute_tensor

from olmo.config import read_yaml
from olmo.exceptions import OLMoCheckpointError

log = logging.getLogger(__name__)

SCORER = "temporal_token_scorer"
"""Component of the names of the scorer's parameters; plain Molmo2 checkpoints have none of them."""
_STEP = re.compile(r"step(\d+)(-unsharded)?")


def clean_name(name: str) -> str:
    """A parameter's name in checkpoints: without what activation checkpointing and compilation put in between."""
    return name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")


def model_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters under their checkpoint names (models of this package have no buffers worth saving)."""
    return {clean_name(name): p for name, p in model.named_parameters()}


# ---------------------------------------------------------------------------------------------- finding


def step_of(folder: str | Path) -> int | None:
    """The N of a folder called `step<N>` or `step<N>-unsharded`, else None (`step<N>-tmp` is no checkpoint)."""
    match = _STEP.fullmatch(Path(folder).name)
    return int(match.group(1)) if match else None


def is_unsharded(folder: Path) -> bool:
    return (folder / "model.pt").is_file()


def _is_checkpoint(folder: Path) -> bool:
    sharded = folder / "model_and_optim"
    return is_unsharded(folder) or (sharded.is_dir() and any(sharded.iterdir()))


def what_is_missing(folder: Path) -> str | None:
    """Why this folder is not a whole checkpoint, or None when it is."""
    if not (folder / "config.yaml").is_file():
        return "config.yaml"
    if is_unsharded(folder):
        return None
    sharded = folder / "model_and_optim"
    if not (sharded / ".metadata").is_file():
        return "model_and_optim/.metadata"
    ends: dict[str, int] = {}
    for info in read_metadata(folder).storage_data.values():
        ends[info.relative_path] = max(ends.get(info.relative_path, 0), info.offset + info.length)
    for name, end in sorted(ends.items()):
        file = sharded / name
        if not file.is_file():
            return f"model_and_optim/{name}"
        if file.stat().st_size < end:
            return f"the last {end - file.stat().st_size} bytes of model_and_optim/{name}"
    return None


def select_checkpoint(path: str | Path, *, prefer_unsharded: bool = False) -> Path:
    """The checkpoint that `path` stands for: itself, or the newest whole `step<N>` folder inside it."""
    path = Path(path)
    if not path.is_dir():
        raise OLMoCheckpointError(f"there is no checkpoint folder {path}")
    if _is_checkpoint(path):
        missing = what_is_missing(path)
        if missing is not None:
            raise OLMoCheckpointError(f"the checkpoint {path} is not whole: {missing} is missing")
        return path
    steps = [p for p in path.iterdir() if p.is_dir() and step_of(p) is not None]
    steps.sort(key=lambda p: (step_of(p), is_unsharded(p) == prefer_unsharded), reverse=True)
    broken = []
    for folder in steps:
        missing = what_is_missing(folder)
        if missing is None:
            for other, reason in broken:
                log.warning("skipping %s: it is not whole (%s is missing)", other, reason)
            return folder
        broken.append((folder, missing))
    if broken:
        raise OLMoCheckpointError(f"no checkpoint in {path} is whole: {broken[0][0].name} lacks {broken[0][1]}")
    raise OLMoCheckpointError(f"{path} holds no checkpoint: neither model_and_optim/, nor model.pt, nor step<N> folders")


# ---------------------------------------------------------------------------------------------- reading


class _MetadataUnpickler(pickle.Unpickler):
    """Reads `.metadata` of this package and of the published code, and builds nothing but what belongs there."""

    _ALLOWED = {
        "torch.distributed.checkpoint.metadata": {
            *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata"),
            *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch.serialization": {"_get_layout"},
        "torch": {"Size", "strided", *(str(v).removeprefix("torch.") for v in vars(torch).values() if isinstance(v, torch.dtype))},
        "pathlib": {"PosixPath", "PurePosixPath", "WindowsPath", "Path"},
        "pathlib._local": {"PosixPath", "PurePosixPath", "WindowsPath", "Path"},
        "collections": {"OrderedDict"},
        "builtins": {"set", "frozenset"},
    }
    _MOVED = {("olmo.train.remote_filesystem", "_StorageInfo"): ("torch.distributed.checkpoint.filesystem", "_StorageInfo")}

    def find_class(self, module: str, name: str) -> Any:
        module, name = self._MOVED.get((module, name), (module, name))
        if name not in self._ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """What a sharded checkpoint holds and where."""
    file = folder / "model_and_optim" / ".metadata"
    try:
        with open(file, "rb") as stream:
            metadata = _MetadataUnpickler(stream).load()
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError, ValueError) as err:
        raise OLMoCheckpointError(f"{file} cannot be read as checkpoint metadata: {err}") from None
    if not isinstance(metadata, Metadata):
        raise OLMoCheckpointError(f"{file} holds no checkpoint metadata but a {type(metadata).__name__}")
    if getattr(metadata, "storage_meta", None) is None:
        metadata.storage_meta = StorageMeta()
    return metadata


def load_sharded(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Fill `tensors` (checkpoint key -> tensor or DTensor) in place from a sharded checkpoint."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            return read_metadata(folder)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single process.*")
        dcp.load(tensors, storage_reader=Reader(folder / "model_and_optim"), no_dist=not dist.is_initialized())


def read_model_pt(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of an unsharded checkpoint (mapped from the file, not copied)."""
    return _read_pt(folder / "model.pt")


def _read_pt(file: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as err:
        raise OLMoCheckpointError(f"{file} cannot be read as a file of weights: {str(err).splitlines()[0]}") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise OLMoCheckpointError(f"{file} must hold a flat mapping of parameter names to tensors")
    return state


@dataclass(frozen=True)
class Fit:
    """How the weights of a checkpoint and the parameters of a model correspond."""

    folder: Path
    loaded: tuple[str, ...]
    initialised: tuple[str, ...] = ()
    """Parameters that the checkpoint does not have and the model initialises itself."""
    ignored: tuple[str, ...] = ()
    """Scorer weights of the checkpoint for which this model has no use."""

    def describe(self) -> list[str]:
        """One line per thing worth telling."""
        lines = []
        if self.initialised:
            lines.append(
                f"{self.folder} has no {SCORER}: its {len(self.initialised)} tensors start from random values, all others are loaded"
            )
        if self.ignored:
            lines.append(f"{self.folder} has {len(self.ignored)} weights of {SCORER} that this model does not use: left out")
        return lines


def match_weights(folder: Path, model: nn.Module) -> Fit:
    """Compare names and shapes; raises with the list of differences when the checkpoint is of another model."""
    if is_unsharded(folder):
        stored = {name: tuple(t.shape) for name, t in read_model_pt(folder).items()}
    else:
        items = read_metadata(folder).state_dict_metadata.items()
        stored = {
            k.removeprefix("model."): tuple(v.size) for k, v in items if k.startswith("model.") and isinstance(v, TensorStorageMetadata)
        }
    wanted = {name: tuple(p.shape) for name, p in model_tensors(model).items()}
    absent, extra = _compare(f"the checkpoint {folder}", stored, wanted, {n for n in wanted if SCORER in n.split(".")})
    return Fit(folder, tuple(n for n in wanted if n in stored), absent, extra)


def _compare(what: str, stored: dict[str, tuple], wanted: dict[str, tuple], may_lack: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(wanted but not stored, stored but not wanted), or an error that lists what does not fit."""
    absent = tuple(n for n in wanted if n not in stored)
    extra = tuple(n for n in stored if n not in wanted)
    missing = [n for n in absent if n not in may_lack]
    unknown = [n for n in extra if SCORER not in n.split(".")]
    shapes = [f"{n} is {stored[n]}, not {wanted[n]}" for n in wanted if n in stored and stored[n] != wanted[n]]
    problems = [
        *([f"{len(missing)} missing ({_some(missing)})"] if missing else []),
        *([f"{len(unknown)} unknown ({_some(unknown)})"] if unknown else []),
        *([f"{len(shapes)} of another shape ({_some(shapes)})"] if shapes else []),
    ]
    if problems:
        raise OLMoCheckpointError(f"{what} is of another model; of its weights {'; '.join(problems)}")
    return absent, extra


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])


def read_weights(fit: Fit, model: nn.Module) -> None:
    """Copy the matched weights into the model's parameters (sharded or whole, any dtype)."""
    tensors = model_tensors(model)
    if not is_unsharded(fit.folder):
        load_sharded(fit.folder, {f"model.{n}": tensors[n].detach() for n in fit.loaded})
        return
    state = read_model_pt(fit.folder)
    with torch.no_grad():
        for name in fit.loaded:
            target, value = tensors[name], state[name]
            if isinstance(target, DTensor):
                # Every rank maps the file and takes its own part: nothing to communicate.
                value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
            target.copy_(value)


def initialise(model: nn.Module, names: Iterable[str], device: torch.device | str | None = None) -> set[str]:
    """Give the named parameters their initial values without touching any other; returns the names again.

    The largest module that owns only such parameters and can reset itself is reset (and first given memory on `device`,
    if that is named: the rest of a model on the meta device stays there).
    """
    names = set(names)
    left = set(names)
    while left:
        owner, inside = _owner(model, min(left), names)
        if device is not None:
            owner.to_empty(device=device)
        owner.reset_parameters()
        left -= inside
    return names


def _owner(model: nn.Module, name: str, allowed: set[str]) -> tuple[nn.Module, set[str]]:
    """The module to reset for the parameter `name`, and the names of all its parameters."""
    for prefix, module in sorted(model.named_modules(), key=lambda item: item[0].count(".") if item[0] else -1):
        inside = {clean_name(f"{prefix}.{n}" if prefix else n) for n, _ in module.named_parameters()}
        if name in inside and inside <= allowed and hasattr(module, "reset_parameters"):
            return module, inside
    raise OLMoCheckpointError(f"the checkpoint has no {name}, and this model cannot initialise it alone")


def read_pretrained_file(path: str | Path, wanted: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights of a pretrained language model or ViT (`init_path`), under the names that `wanted` gives with their shapes.

    Files may spell the language model with a leading `transformer.` and its embedding `wte.weight`. Embeddings of added
    tokens and the token scorer are nobody's pretrained weights and may be missing.
    """
    if not Path(path).is_file():
        raise OLMoCheckpointError(f"there is no file of pretrained weights {path} (init_path); give a checkpoint to start from instead")
    state = _read_pt(Path(path))
    if all(n.startswith("transformer.") for n in state) and not any(n.startswith("transformer.") for n in wanted):
        state = {n.removeprefix("transformer."): t for n, t in state.items()}
    if "wte.weight" in state and "wte.embedding" in wanted:
        state["wte.embedding"] = state.pop("wte.weight")
    may_lack = {n for n in wanted if n.endswith("wte.new_embedding") or SCORER in n.split(".")}
    _compare(f"the file {path}", {n: tuple(t.shape) for n, t in state.items()}, wanted, may_lack)
    return {n: state[n] for n in wanted if n in state}


# ---------------------------------------------------------------------------------------------- for inference


def read_config(path: str | Path) -> dict[str, Any]:
    """The raw `config.yaml` of a checkpoint."""
    file = select_checkpoint(path) / "config.yaml"
    raw = read_yaml(file)
    if not isinstance(raw.get("model"), dict):
        raise OLMoCheckpointError(f"{file} has no block 'model'")
    return raw


def load_config(path: str | Path, overrides: Sequence[str] = ()):
    """The model config of a checkpoint."""
    from olmo.models.model import build_model_config

    return build_model_config(read_config(path)["model"], overrides)


def load_model(path: str | Path, *, overrides: Sequence[str] = (), device: torch.device | str = "cpu", dtype: torch.dtype | None = None):
    """Build the model of a checkpoint with its weights, in eval mode."""
    folder = select_checkpoint(path)
    model = load_config(folder, overrides).build_model(device="meta")
    fit = match_weights(folder, model)
    for line in fit.describe():
        log.info(line)
    model = model.to(dtype=dtype).to_empty(device=device) if dtype is not None else model.to_empty(device=device)
    initialise(model, fit.initialised)
    read_weights(fit, model)
    return model.eval()
