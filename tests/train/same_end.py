"""Comparing what two runs of the training command left, bit for bit."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from olmo.checkpoints import load_sharded, read_metadata, select_checkpoint
from tests.train.command import records, without_times

CLOCKS = ("seconds",)
"""Trainer state that counts time."""


def stored_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, whole: weights, moments and step counters of the optimiser, averages."""
    items = read_metadata(checkpoint).state_dict_metadata.items()
    tensors = {k: torch.empty(v.size, dtype=v.properties.dtype) for k, v in items if isinstance(v, TensorStorageMetadata)}
    load_sharded(checkpoint, tensors)
    return tensors


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Places at which two nested states differ; tensors by value, all else by `==`."""
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{where}/{k}" for k in a.keys() ^ b.keys()]
        return missing + [d for k in a.keys() & b.keys() if k not in CLOCKS for d in differences(a[k], b[k], f"{where}/{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else type(a) is type(b) and a == b
    return [] if same else [where]


def assert_same_checkpoint(a: Path, b: Path) -> None:
    """Parameters, optimiser, and of every rank: counters, place in the data, random state."""
    first, second = stored_tensors(a), stored_tensors(b)
    assert any(k.startswith("model.") for k in first) and any(k.startswith("optim.state.") for k in first)
    assert differences(first, second) == []
    files = [sorted((f / "train").glob("rank*.pt")) for f in (a, b)]
    assert [f.name for f in files[0]] == [f.name for f in files[1]] != []
    for x, y in zip(*files, strict=True):
        states = [torch.load(f, weights_only=True) for f in (x, y)]
        assert {"loader", "random", "step"} <= states[0].keys()
        assert differences(*states) == [], x.name


def assert_same_records(a: Path, b: Path, last: int | None = None) -> None:
    """Losses, norms and counts of every step (up to `last`)."""
    for x, y in zip(records(a)[:last], records(b)[:last], strict=True):
        assert without_times(x) == without_times(y)


def assert_same_end(a: Path, b: Path, stored_a: str | Path | None = None, stored_b: str | Path | None = None) -> None:
    """Every record and the newest checkpoint. `stored_*`: where the checkpoints lie, if not in the run's folder."""
    assert_same_records(a, b)
    assert_same_checkpoint(select_checkpoint(stored_a or a), select_checkpoint(stored_b or b))
