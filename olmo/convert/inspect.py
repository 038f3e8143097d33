"""What a checkpoint holds, from names, shapes and dtypes alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from olmo.checkpoints import open_weights, read_config, read_metadata
from olmo.checkpoints.finding import format_of
from olmo.weights import WeightSource, is_scorer

PARTS = ("language model", "vision transformer", "token scorer", "connector")


def part_of(name: str) -> str:
    """Which of PARTS a parameter belongs to."""
    if is_scorer(name):
        return "token scorer"
    if name.startswith("vision_backbone.image_vit."):
        return "vision transformer"
    return "connector" if name.startswith("vision_backbone.") else "language model"


@dataclass
class Contents:
    """Sums over some tensors."""

    tensors: int = 0
    numbers: int = 0
    num_bytes: int = 0
    dtypes: Counter[str] = field(default_factory=Counter)

    def add(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        count = torch.Size(shape).numel()
        self.tensors += 1
        self.numbers += count
        self.num_bytes += count * dtype.itemsize
        self.dtypes[str(dtype).removeprefix("torch.")] += 1

    def describe_dtypes(self) -> str:
        """`float32`, or the kinds with their counts, the most frequent first."""
        if len(self.dtypes) == 1:
            return next(iter(self.dtypes))
        return ", ".join(f"{kind} ({count})" for kind, count in self.dtypes.most_common())


@dataclass(frozen=True)
class Summary:
    """A checkpoint at a glance."""

    folder: Path
    format: str
    weights: WeightSource
    model: Mapping[str, Any]
    """The block `model` of its config."""
    parts: dict[str, Contents]
    """Weights by part, only parts that are there."""
    optimizer: Contents
    """State of the optimiser, of which only sharded checkpoints have some."""
    file_bytes: int
    """What its files take on the disk."""

    @property
    def total(self) -> Contents:
        whole = Contents()
        for name, shape in self.weights.shapes.items():
            whole.add(shape, self.weights.dtypes[name])
        return whole


def inspect_checkpoint(folder: Path) -> Summary:
    """Everything that can be said without reading weights."""
    weights = open_weights(folder, merge=False)
    parts = {part: Contents() for part in PARTS}
    for name, shape in weights.shapes.items():
        parts[part_of(name)].add(shape, weights.dtypes[name])
    optimizer = Contents()
    if format_of(folder) == "sharded":
        for key, item in read_metadata(folder).state_dict_metadata.items():
            if key.startswith("optim.") and isinstance(item, TensorStorageMetadata):
                optimizer.add(tuple(item.size), item.properties.dtype)
    return Summary(
        folder=folder,
        format=weights.format,
        weights=weights,
        model=read_config(folder)["model"],
        parts={part: contents for part, contents in parts.items() if contents.tensors},
        optimizer=optimizer,
        file_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )
