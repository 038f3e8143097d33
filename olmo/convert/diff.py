"""What two checkpoints differ in: settings, names, shapes, and by how much every tensor."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from olmo.weights import WeightSource

_CHUNK = 1 << 24


@dataclass(frozen=True)
class TensorDifference:
    """One tensor of both; `a` is the reference."""

    name: str
    shape: tuple[int, ...]
    largest: float
    """max |a - b|; infinite where only one of them is a number."""
    relative: float
    """The same over max |a|."""
    differing: int
    """How many numbers differ at all."""

    @property
    def count(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Difference:
    """Two checkpoints side by side."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shapes: tuple[str, ...]
    """Names of tensors of different shapes."""
    dtypes: tuple[str, ...]
    """Names of tensors that are stored in different types (their numbers are compared in the wider one)."""
    tensors: tuple[TensorDifference, ...]
    """Those that differ, the relatively largest difference first."""
    equal: int
    """How many tensors are equal, number by number."""
    settings: tuple[str, ...]
    """Lines about keys of the model's config that differ."""

    @property
    def same(self) -> bool:
        return not (self.only_a or self.only_b or self.shapes or self.tensors or self.settings)


def compare(
    a: WeightSource, b: WeightSource, settings: tuple[Mapping[str, Any], Mapping[str, Any]], done: Callable[[int], None] = lambda _: None
) -> Difference:
    """Compare number by number; two tensors are in memory at a time. `done` is called with the bytes of `a` behind us."""
    both = [name for name in a.shapes if name in b.shapes]
    alike = [name for name in both if a.shapes[name] == b.shapes[name]]
    found = []
    for name in alike:
        found.append(_compare_tensors(name, a.read(name), b.read(name)))
        done(a.num_bytes(name))
    differing = sorted((d for d in found if d.differing), key=lambda d: d.relative, reverse=True)
    return Difference(
        only_a=tuple(name for name in a.shapes if name not in b.shapes),
        only_b=tuple(name for name in b.shapes if name not in a.shapes),
        shapes=tuple(name for name in both if a.shapes[name] != b.shapes[name]),
        dtypes=tuple(name for name in alike if a.dtypes[name] != b.dtypes[name]),
        tensors=tuple(differing),
        equal=len(found) - len(differing),
        settings=tuple(_compare_settings("model", *settings)),
    )


def _compare_tensors(name: str, a: Tensor, b: Tensor) -> TensorDifference:
    wide = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    largest = loudest = 0.0
    differing = 0
    for x, y in zip(a.reshape(-1).split(_CHUNK), b.reshape(-1).split(_CHUNK), strict=True):
        x, y = x.to(wide), y.to(wide)
        unequal = (x != y) & ~(x.isnan() & y.isnan())
        differing += int(unequal.sum())
        if unequal.any():
            gap = (x[unequal] - y[unequal]).abs().nan_to_num(nan=float("inf"))
            largest = max(largest, gap.max().item())
        if x.numel():
            loudest = max(loudest, x.abs().nan_to_num(nan=0.0).max().item())
    return TensorDifference(name, tuple(a.shape), largest, largest / loudest if loudest else largest, differing)


def _compare_settings(key: str, a: Any, b: Any) -> Iterator[str]:
    """Lines `key: a -> b` for the leaves of two mappings."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        # Where parts of the model came from, and where its tokenizer lies, says nothing about it.
        for name in [n for n in [*a, *(n for n in b if n not in a)] if n not in ("init_path", "tokenizer_dir")]:
            yield from _compare_settings(f"{key}.{name}", a.get(name), b.get(name))
    elif a != b:
        yield f"{key}: {a} -> {b}"
