"""Writing torch's distributed format one tensor at a time, from one process.

`torch.distributed.checkpoint.save` keeps every tensor of a file until the file is written. The format itself is simple: files
with one `torch.save` archive per tensor, one after the other, and a pickle that says what lies where.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from olmo.checkpoints.sharded import METADATA, SHARDED
from olmo.weights import WeightSource


def write_sharded_files(folder: Path, weights: WeightSource, done: Callable[[int], None], max_bytes: int) -> None:
    """`model_and_optim/` with keys `model.<parameter>`, in a folder that is there; no file has much more than `max_bytes`."""
    (folder / SHARDED).mkdir()
    entries, places = {}, {}
    names = list(weights.shapes)
    number = 0
    while names:
        file = f"__0_{number}.distcp"
        with open(folder / SHARDED / file, "wb") as stream:
            while names and stream.tell() < max_bytes:
                name = names.pop(0)
                start = stream.tell()
                torch.save(own_storage(weights.read(name)), stream)
                entries[f"model.{name}"] = _entry(weights, name)
                index = MetadataIndex(f"model.{name}", torch.Size([0] * len(weights.shapes[name])), 0)
                places[index] = _StorageInfo(file, start, stream.tell() - start)
                done(weights.num_bytes(name))
        number += 1
    metadata = Metadata(entries, {key: (key,) for key in entries}, places, StorageMeta())
    (folder / METADATA).write_bytes(pickle.dumps(metadata))


def own_storage(tensor: torch.Tensor) -> torch.Tensor:
    """Saving a tensor saves all of its storage, which may be a whole mapped file: a part of one is copied."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _entry(weights: WeightSource, name: str) -> TensorStorageMetadata:
    shape = torch.Size(weights.shapes[name])
    properties = TensorProperties(weights.dtypes[name], torch.strided, False, torch.contiguous_format, False)
    return TensorStorageMetadata(properties, shape, [ChunkStorageMetadata(torch.Size([0] * len(shape)), shape)])
