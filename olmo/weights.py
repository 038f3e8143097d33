"""Stored weights, whatever the format: names, shapes and dtypes that are known before anything is read.

Every reader gives its tensors the names of this package's parameters (`transformer.blocks.0.att_proj.weight`), so that
comparing a checkpoint with a model and filling the model are written once, for all formats.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from olmo.exceptions import OLMoCheckpointError

SCORER = "temporal_token_scorer"
"""Component of the names of the scorer's parameters; plain Molmo2 checkpoints have none of them."""
SCORER_PREFIX = f"vision_backbone.image_vit.transformer.{SCORER}"
"""Where the scorer stands in this package's models."""

_SCORER_PARTS = {"q_proj": "wq", "k_proj": "wk", "v_proj": "wv", "o_proj": "wo", "out_proj": "wo"}
"""Hugging Face's names of a projection -> ours, for the pooling attention of the scorer."""


class WeightSource(ABC):
    """Weights stored in a folder, under the names of this package's parameters."""

    format: ClassVar[str]
    """How messages call the format."""

    folder: Path
    """The checkpoint."""
    shapes: dict[str, tuple[int, ...]]
    """Parameter name -> shape of the stored tensor."""
    dtypes: dict[str, torch.dtype]
    """Parameter name -> dtype of the stored tensor."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """One whole tensor on the CPU, in its stored dtype; it may be a view of the mapped file and must not be written to."""

    def num_bytes(self, name: str) -> int:
        return torch.Size(self.shapes[name]).numel() * self.dtypes[name].itemsize

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors in place: any dtype and device, whole or DTensor.

        One stored tensor is held at a time. Nothing is communicated: every rank reads the file and takes its own part.
        """
        with torch.no_grad():
            for name, target in tensors.items():
                fill(target, self.read(name))


def fill(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor of the CPU into a parameter, which may be sharded."""
    if isinstance(target, DTensor):
        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


def is_scorer(name: str) -> bool:
    """Does this name, of any format, belong to the token scorer?"""
    return SCORER in name.split(".")


def scorer_name(name: str) -> str | None:
    """Our name of a scorer tensor wherever it stands in a file, or None if it is no scorer tensor.

    The layout of the released pruned weights is unpublished: whatever stands in front of `temporal_token_scorer` is
    taken to be another way to the same module.
    """
    parts = name.split(".")
    if SCORER not in parts:
        return None
    rest = parts[parts.index(SCORER) + 1 :]
    return ".".join([SCORER_PREFIX, *(_SCORER_PARTS.get(part, part) for part in rest)])


def by_our_names(stored: Iterable[str]) -> dict[str, str]:
    """Parameter name -> stored name, for files in which only the place of the scorer may differ."""
    names: dict[str, str] = {}
    for name in stored:
        ours = scorer_name(name) or name
        if ours in names:
            raise OLMoCheckpointError(f"the weights {names[ours]} and {name} would both be {ours}")
        names[ours] = name
    return names
