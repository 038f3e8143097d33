"""Packing several examples into one row, on two budgets: tokens of the language model and frames of the ViT.

Tokens are counted as the language model will see them, *after* pruning; the number is exact because pruning budgets are
host integers. A small buffer of examples is kept; once it is full, every arriving example makes the best row that the
buffer allows (a 0/1 knapsack) leave it. The rules (values, rounding, order, ties) are those of the published packer.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from olmo.batch import EXAMPLE_STRIDE
from olmo.config import BaseConfig
from olmo.data.examples import TOO_MANY_FRAMES
from olmo.exceptions import OLMoConfigurationError
from olmo.preprocessing.example import ProcessedExample
from olmo.preprocessing.pooling import NO_PATCH, shifted

T = TypeVar("T")


@dataclass
class PackingConfig(BaseConfig):
    """How examples share rows."""

    buffer_size: int = 32
    """Examples waiting to be packed; more of them fill the rows better."""

    text_weight: float = 1.0
    """Value of a token when the best row is chosen."""

    image_weight: float = 1.0
    """Value of a frame or crop when the best row is chosen."""

    shortcut_max_len_images: bool = False
    """Give an example that fills the frame budget alone a row at once."""

    max_frames: int | None = None
    """Frames and crops of one row; null = the most that a single example may have."""

    def check(self) -> None:
        if self.buffer_size < 1:
            raise OLMoConfigurationError(f"data.packing.buffer_size must be at least 1, not {self.buffer_size}")
        if self.max_frames is not None and self.max_frames < 1:
            raise OLMoConfigurationError(f"data.packing.max_frames must be at least 1 or null, not {self.max_frames}")


def knapsack(tokens: Sequence[int], frames: Sequence[int], max_tokens: int, max_frames: int, values: Sequence[float]) -> list[int]:
    """Indices of the most valuable items within both capacities, last item first; between equals the earlier items stay in.

    Dynamic programming over (tokens, frames) in float32: O(items * max_tokens * max_frames), 48 items of 512 x 128 units
    in about ten milliseconds.
    """
    best = np.zeros((max_tokens + 1, max_frames + 1), dtype=np.float32)
    taken = np.zeros((len(tokens), *best.shape), dtype=bool)
    for item, (t, f, value) in enumerate(zip(tokens, frames, values, strict=True)):
        if t > max_tokens or f > max_frames:
            continue
        without = best[t:, f:]
        with_item = best[: max_tokens + 1 - t, : max_frames + 1 - f] + np.float32(value)
        better = with_item > without
        taken[item, t:, f:] = better
        best[t:, f:] = np.where(better, with_item, without)
    selected, t, f = [], max_tokens, max_frames
    for item in range(len(tokens) - 1, -1, -1):
        if taken[item, t, f]:
            selected.append(item)
            t, f = t - tokens[item], f - frames[item]
    return selected


@dataclass(frozen=True)
class Item(Generic[T]):
    """Something to pack: its two sizes, a key to find it again, and the thing itself."""

    num_tokens: int
    num_frames: int
    key: Hashable
    value: T


class Packer(Generic[T]):
    """Takes items one by one; gives back a row's worth of them whenever there is one."""

    def __init__(self, config: PackingConfig, max_tokens: int, max_frames: int) -> None:
        config.check()
        self.config, self.max_tokens, self.max_frames = config, max_tokens, max_frames
        self.granularity = max(1, max_tokens // 512)
        self.buffer: list[Item[T]] = []
        self.rejected: Counter[str] = Counter()
        """Items that fit no row, by reason; they are refused at the door, because they would never leave the buffer. (The
        loader sends none: its `Limits` refuse and count such examples before.)"""

    def add(self, item: Item[T]) -> list[Item[T]] | None:
        """Take one item; returns the row that leaves, if one does. What fills a row alone leaves at once."""
        full = self._units(item.num_tokens) >= self._units(self.max_tokens)
        if full or (self.config.shortcut_max_len_images and item.num_frames >= self.max_frames):
            return [item]
        if item.num_frames > self.max_frames:
            self.rejected[TOO_MANY_FRAMES] += 1
            return None
        row = None
        if len(self.buffer) >= self.config.buffer_size:
            row = self._take_best()
        self.buffer.append(item)
        return row

    def _units(self, num_tokens: int) -> int:
        return -(-num_tokens // self.granularity)

    def _take_best(self) -> list[Item[T]]:
        cfg = self.config
        chosen = knapsack(
            [self._units(i.num_tokens) for i in self.buffer],
            [i.num_frames for i in self.buffer],
            self._units(self.max_tokens),
            self.max_frames,
            [cfg.text_weight * i.num_tokens + cfg.image_weight * i.num_frames for i in self.buffer],
        )
        assert chosen, "every buffered item fits a row alone"
        row = [self.buffer[i] for i in chosen]
        self.buffer = [item for i, item in enumerate(self.buffer) if i not in set(chosen)]
        return row


def pack_examples(examples: Sequence[ProcessedExample]) -> ProcessedExample:
    """Join examples into one row. Positions restart per example; subsegment ids keep the examples apart."""
    if len(examples) == 1:
        return replace(examples[0], subsegment_ids=_subsegments(examples[0]), metadata=_joined_metadata(examples))
    ids = [_subsegments(e) + EXAMPLE_STRIDE * k for k, e in enumerate(examples)]
    return ProcessedExample(
        input_tokens=np.concatenate([e.input_tokens for e in examples]),
        target_tokens=np.concatenate([e.target_tokens for e in examples]),
        loss_masks=np.concatenate([e.loss_masks for e in examples]),
        position_ids=np.concatenate([e.position_ids for e in examples]),
        subsegment_ids=np.concatenate(ids),
        images=_joined_images(examples),
        token_pooling=_joined_pooling(examples),
        segments=tuple(s for e in examples for s in e.segments),
        dropped_cells=sum(e.dropped_cells for e in examples),
        name=f"the row of {', '.join(e.name or 'an example' for e in examples)}",
        metadata=_joined_metadata(examples),
        packed=tuple(layout for e in examples for layout in e.examples),
    )


def _subsegments(example: ProcessedExample) -> np.ndarray:
    return np.zeros(example.num_tokens, dtype=np.int64) if example.subsegment_ids is None else example.subsegment_ids


def _joined_metadata(examples: Sequence[ProcessedExample]) -> dict[str, Any]:
    return {"examples": [e.metadata for e in examples]}


def _joined_images(examples: Sequence[ProcessedExample]) -> np.ndarray | None:
    images = [e.images for e in examples if e.images is not None]
    return np.concatenate(images) if images else None


def _joined_pooling(examples: Sequence[ProcessedExample]) -> np.ndarray | None:
    """Pooling ids count patches of the whole row; narrow windows (images) are padded to the widest."""
    with_images = [e for e in examples if e.images is not None and e.token_pooling is not None]
    if not with_images:
        return None
    width = max(e.token_pooling.shape[1] for e in with_images)
    parts, offset = [], 0
    for example in with_images:
        pooling = shifted(example.token_pooling, offset)
        parts.append(np.pad(pooling, ((0, 0), (0, width - pooling.shape[1])), constant_values=NO_PATCH))
        offset += example.images.shape[0] * example.images.shape[1]
    return np.concatenate(parts)
