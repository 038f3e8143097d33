"""Tiny checkpoints in every layout that is read, written by hand where the layout is somebody else's."""

import json
import pickle
import sys
import types
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from olmo.safetensors_files import checksum


def fresh(config, seed=0):
    """A model with random weights."""
    torch.manual_seed(seed)
    model = config.build_model("cpu")
    model.reset_parameters()
    return model


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def write_config(folder, config, **model_changes):
    folder.mkdir(parents=True, exist_ok=True)
    raw = yaml.safe_load(config.to_yaml()) | model_changes
    (folder / "config.yaml").write_text(yaml.safe_dump({"run_name": "x", "model": raw}))


def write_unsharded(folder, weights):
    torch.save(weights, folder / "model.pt")


def write_safetensors(folder, weights, checksums=False):
    metadata = {"crc32": json.dumps({n: checksum(t) for n, t in weights.items()})} if checksums else {}
    save_file(weights, folder / "model.safetensors", metadata=metadata | {"format": "pt"})


def write_indexed(folder, weights, parts=3):
    names = sorted(weights)
    index = {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        mine = {n: weights[n] for n in names[i::parts]}
        save_file(mine, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": index}))


class _PublishedStorageInfo:
    """Stand-in for the class that published `.metadata` files name; it has three fields only."""


_PublishedStorageInfo.__module__ = "olmo.train.remote_filesystem"
_PublishedStorageInfo.__qualname__ = _PublishedStorageInfo.__name__ = "_StorageInfo"


def write_published_sharded(folder, weights, ranks=2, extra=()):
    """The layout of released folders: tensors cut by rank along their rows, an optimiser beside them, no storage_meta."""
    target = folder / "model_and_optim"
    target.mkdir(parents=True)
    tensors = {f"model.{n}": t for n, t in weights.items()}
    tensors |= {f"optim.state.{n}.exp_avg": torch.zeros_like(t) for n, t in weights.items()} | dict(extra)
    streams = [open(target / f"__{r}_0.distcp", "wb") for r in range(ranks)]
    entries, storage = {}, {}
    for key, tensor in tensors.items():
        pieces = list(tensor.chunk(ranks)) if tensor.dim() else [tensor]
        chunks, start = [], 0
        for rank, piece in enumerate(pieces):
            offsets = torch.Size([start, *[0] * (tensor.dim() - 1)][: tensor.dim()])
            chunks.append(ChunkStorageMetadata(offsets, piece.shape))
            info = _PublishedStorageInfo()
            begin = streams[rank].tell()
            torch.save(piece.clone(), streams[rank])
            info.__dict__.update(relative_path=f"__{rank}_0.distcp", offset=begin, length=streams[rank].tell() - begin)
            storage[MetadataIndex(key, offsets, rank)] = info
            start += piece.shape[0] if piece.dim() else 0
        properties = TensorProperties(tensor.dtype, torch.strided, False, torch.contiguous_format, False)
        entries[key] = TensorStorageMetadata(properties, tensor.shape, chunks)
    for stream in streams:
        stream.close()
    metadata = Metadata(entries, {}, storage)
    del metadata.storage_meta
    module = types.ModuleType("olmo.train.remote_filesystem")
    module._StorageInfo = _PublishedStorageInfo
    sys.modules[module.__name__] = module
    try:
        data = pickle.dumps(metadata)
    finally:
        del sys.modules[module.__name__]
    assert b"olmo.train.remote_filesystem" in data
    (target / ".metadata").write_bytes(data)


NATIVE = {
    "published": write_published_sharded,
    "unsharded": write_unsharded,
    "safetensors": write_safetensors,
    "indexed": write_indexed,
}


def write_native(kind, folder: Path, config, weights, **model_changes) -> Path:
    """A checkpoint folder with `config.yaml`; returns it."""
    write_config(folder, config, **model_changes)
    NATIVE[kind](folder, weights)
    return folder


def write_huggingface(folder, config, weights, parts=1, topk=None, rename=None):
    """A Hugging Face folder of a plain model's config, with whatever weights: a scorer among them is of unknown layout."""
    from olmo.hf_model.config import OWN_BLOCK, to_hf_config
    from olmo.hf_model.names import stored_name

    folder.mkdir(parents=True, exist_ok=True)
    raw = {k: v for k, v in to_hf_config(config).items() if k != OWN_BLOCK}
    raw["text_config"] |= {} if topk is None else {"topk": topk}
    (folder / "config.json").write_text(json.dumps(raw))
    stored = {(rename or stored_name)(name): value for name, value in weights.items()}
    stored.setdefault("lm_head.weight", weights["transformer.wte.embedding"].clone())
    if parts == 1:
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        write_indexed(folder, stored, parts)
    return folder
