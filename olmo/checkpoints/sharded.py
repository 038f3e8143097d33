"""Sharded checkpoints: torch's distributed format in `model_and_optim/`, of this package and as published.

Its `.metadata` is a pickle, which could run code when it is read. It is read by an unpickler that builds nothing but
what belongs there.
"""

import math
import pickle
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner
from torch.futures import Future

from olmo.checkpoints.torch_archive import MappedFiles
from olmo.exceptions import OLMoCheckpointError, OLMoError, first_line
from olmo.weights import WeightSource, by_our_names, is_scorer

SHARDED = "model_and_optim"
METADATA = f"{SHARDED}/.metadata"
EMA = "ema."
"""Prefix of the running averages of parameters."""


class _MetadataUnpickler(pickle.Unpickler):
    """Reads `.metadata` of this package and of the published code."""

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
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which has no place there")
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """What a sharded checkpoint holds and where."""
    file = folder / METADATA
    try:
        stat = file.stat()
        return _read_metadata(file, stat.st_mtime_ns, stat.st_size)
    except OLMoError:
        raise
    except Exception as err:  # a damaged pickle can end in any error of any class that it builds
        raise OLMoCheckpointError(f"{file} cannot be read as checkpoint metadata: {first_line(err)}") from err


@lru_cache(maxsize=4)
def _read_metadata(file: Path, mtime_ns: int, size: int) -> Metadata:
    """With hundreds of tensors on many ranks it takes seconds, so a file that has not changed is read once."""
    with open(file, "rb") as stream:
        metadata = _MetadataUnpickler(stream).load()
    if not isinstance(metadata, Metadata):
        raise OLMoCheckpointError(f"{file} holds no checkpoint metadata but a {type(metadata).__name__}")
    if getattr(metadata, "storage_meta", None) is None:
        metadata.storage_meta = StorageMeta()
    _check_fields(metadata)
    return metadata


def _check_fields(metadata: Metadata) -> None:
    """The unpickler builds objects without looking into them; damage would show only later, as an error of something else."""
    for key, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            sizes = [entry.size, *(part for chunk in entry.chunks for part in (chunk.offsets, chunk.sizes))]
            if not isinstance(key, str) or not isinstance(entry.properties.dtype, torch.dtype):
                raise ValueError(f"{key} is not described as a tensor")
            if any(len(size) != len(entry.size) or any(n < 0 for n in size) for size in sizes):
                raise ValueError(f"the shape of {key} makes no sense")
            if sum(math.prod(chunk.sizes) for chunk in entry.chunks) != math.prod(entry.size):
                raise ValueError(f"the parts of {key} do not make up the whole")
    for index, info in metadata.storage_data.items():
        if not isinstance(info.relative_path, str) or info.offset < 0 or info.length < 0 or not isinstance(index.fqn, str):
            raise ValueError("the place of a tensor makes no sense")


def stored_ends(folder: Path) -> dict[str, int]:
    """File below `model_and_optim` -> how many bytes it must have at least."""
    ends: dict[str, int] = {}
    for info in read_metadata(folder).storage_data.values():
        ends[info.relative_path] = max(ends.get(info.relative_path, 0), info.offset + info.length)
    outside = [name for name in ends if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise OLMoCheckpointError(f"{folder / METADATA} names a file outside its folder: {outside[0]}")
    return ends


class _Reader(dcp.FileSystemReader):
    """torch's reader, with our unpickler, and with tensors mapped from the files instead of read into memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / SHARDED)
        self.folder = folder

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return read_metadata(self.folder)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        files, left = MappedFiles(self.folder / SHARDED), []
        for item in plan.items:
            info = self.storage_data[item.storage_index]
            stored = None
            if item.type == LoadItemType.TENSOR and not getattr(info, "transform_descriptors", None):
                stored = files.tensor(info.relative_path, info.offset, info.length)
            if stored is None:
                left.append(item)
                continue
            target = planner.resolve_tensor(item).detach()
            target.copy_(_part(stored, item.storage_offsets, item.lengths))
            planner.commit_tensor(item, target)
        return super().read_data(LoadPlan(left, plan.storage_data, plan.planner_data), planner)


def _part(tensor: Tensor, offsets: torch.Size, lengths: torch.Size) -> Tensor:
    for dim, (start, length) in enumerate(zip(offsets, lengths, strict=True)):
        tensor = tensor.narrow(dim, start, length)
    return tensor


def load_sharded(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors` (checkpoint key -> tensor or DTensor) in place; every rank reads what its shards need."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single process.*")
            dcp.load(tensors, storage_reader=_Reader(folder), no_dist=not dist.is_initialized())
    except CheckpointException as err:
        cause = next(iter(err.failures.values()))[0]
        if isinstance(cause, OLMoError):
            raise cause from err
        raise OLMoCheckpointError(f"the weights of {folder} cannot be read: {first_line(cause)}") from err


class ShardedWeights(WeightSource):
    """The weights of a sharded checkpoint; its optimiser is none of them. `averaged`: where it holds the running average of a
    parameter, that instead of the parameter."""

    format = "sharded"

    def __init__(self, folder: Path, averaged: bool = False) -> None:
        self.folder = folder
        items = {k: v for k, v in read_metadata(folder).state_dict_metadata.items() if isinstance(v, TensorStorageMetadata)}
        keys = {
            k.removeprefix("model."): k for k in items if k.startswith("model.") or (is_scorer(k) and not k.startswith(("optim.", EMA)))
        }
        if averaged:
            averages = {k.removeprefix(EMA): k for k in items if k.startswith(EMA)}
            if not averages:
                raise OLMoCheckpointError(f"{folder} holds no running average of weights: it was trained without ema")
            keys |= averages
        self._keys = {ours: keys[name] for ours, name in by_our_names(keys).items()}
        self.shapes = {name: tuple(items[key].size) for name, key in self._keys.items()}
        self.dtypes = {name: items[key].properties.dtype for name, key in self._keys.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_sharded(self.folder, {self._keys[name]: tensor for name, tensor in tensors.items()})

    def read(self, name: str) -> Tensor:
        tensor = torch.empty(self.shapes[name], dtype=self.dtypes[name])
        load_sharded(self.folder, {self._keys[name]: tensor})
        return tensor
