"""Writing a checkpoint in every format that is read: the folder is whole or not there, one tensor is in memory at a time.

Only weights and config are written. An optimiser and a trainer's state belong to the run that made them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from olmo.checkpoints.finding import NATIVE_CONFIG, TORCH_FILE
from olmo.convert.output import atomic_output, progress_bar, sync
from olmo.convert.safetensors_file import MAX_FILE_BYTES, write_safetensors_files
from olmo.convert.sharded_files import write_sharded_files
from olmo.convert.torch_file import write_torch_file
from olmo.weights import WeightSource


class CastWeights(WeightSource):
    """The same weights in another dtype, each cast when it is read."""

    def __init__(self, source: WeightSource, dtype: torch.dtype) -> None:
        self.source, self.folder, self.shapes = source, source.folder, source.shapes
        self.format = source.format
        self.dtypes = {name: dtype if kept.is_floating_point else kept for name, kept in source.dtypes.items()}

    def read(self, name: str) -> Tensor:
        return self.source.read(name).to(self.dtypes[name])


def write_sharded(weights: WeightSource, config: Mapping[str, Any], out: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """`config.yaml` and `model_and_optim/`, as training writes it (without optimiser)."""
    with native_folder(weights, config, out) as (tmp, done):
        write_sharded_files(tmp, weights, done, max_bytes)


def write_unsharded(weights: WeightSource, config: Mapping[str, Any], out: Path) -> None:
    """`config.yaml` and `model.pt`."""
    with native_folder(weights, config, out) as (tmp, done):
        write_torch_file(tmp / TORCH_FILE, weights, done)


def write_safetensors(weights: WeightSource, config: Mapping[str, Any], out: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """`config.yaml` and `model.safetensors`, or its parts with an index."""
    with native_folder(weights, config, out) as (tmp, done):
        write_safetensors_files(tmp, weights, done, max_bytes)


@contextmanager
def native_folder(weights: WeightSource, config: Mapping[str, Any], out: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """(where to write, whom to tell about bytes): a folder with its `config.yaml` that becomes `out` when the block ends well."""
    with new_folder(weights, out) as (tmp, done):
        (tmp / NATIVE_CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False))
        yield tmp, done


@contextmanager
def new_folder(weights: WeightSource, out: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """An empty folder with room for these weights, which becomes `out` with every file on the disk."""
    total = sum(weights.num_bytes(name) for name in weights.shapes)
    with atomic_output(out, total) as tmp, progress_bar(f"writing {out.name}", total) as done:
        tmp.mkdir()
        yield tmp, done
        for file in sorted(path for path in tmp.rglob("*") if path.is_file()):
            sync(file)


def write_checkpoint(weights: WeightSource, config: Mapping[str, Any], out: Path, kind: str, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Write the format that is called `kind`. `config`: raw settings with a block `model`, as `read_config` gives them."""
    match kind:
        case "sharded":
            write_sharded(weights, config, out, max_bytes)
        case "unsharded":
            write_unsharded(weights, config, out)
        case "safetensors":
            write_safetensors(weights, config, out, max_bytes)
        case "huggingface":
            from olmo.convert.export import write_huggingface

            write_huggingface(weights, config, out, max_bytes)
