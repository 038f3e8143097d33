"""Which examples share a row, on two budgets: tokens of the language model and frames of the ViT.

Tokens are counted as the language model will see them, *after* pruning. A small pool of examples is kept; once it is full, every
arriving example makes one row leave it. What leaves is a function of the lengths that arrived, so that every rank of a job
makes the same rows.

`best_fit` starts each row with the example that has waited longest, so that nothing waits for ever, and fills the rest as well as
the pool allows (a 0/1 knapsack). `published` follows the published packer (values, rounding, order,
ties), where an example may wait for ever.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from olmo.batch import EXAMPLE_STRIDE
from olmo.config import BaseConfig, StrEnum
from olmo.exceptions import OLMoConfigurationError
from olmo.preprocessing.example import ProcessedExample
from olmo.preprocessing.pooling import NO_PATCH, shifted

T = TypeVar("T")

TOO_LONG = "too_long"
TOO_MANY_FRAMES = "too_many_frames"

UNITS = 512
"""Steps in which the token budget is counted when a row is chosen: an example takes up to one of them too much."""

SPARE_WEIGHT, SIZE_BONUS = 0.01, 0.001
"""What counts besides the scarcer budget when a row is filled: the other one, and that few large examples go before many small
ones, which fit better later."""


class PackingSolver(StrEnum):
    """Which of the waiting examples make a row."""

    best_fit = "best_fit"
    """The one that waited longest, and with it those that fill the scarcer budget best."""
    published = "published"
    """The most valuable ones, as in the published code."""


@dataclass
class PackingConfig(BaseConfig):
    """How examples share rows."""

    buffer_size: int = 32
    """Examples waiting to be packed; more of them fill the rows better."""

    solver: PackingSolver = PackingSolver.best_fit
    """best_fit, or published; the keys below but for max_frames belong to the one that they name."""

    max_age: int | None = None
    """best_fit: no example waits while more rows than these go before it; null = four times buffer_size."""

    text_weight: float = 1.0
    """published: value of a token when the best row is chosen."""

    image_weight: float = 1.0
    """published: value of a frame or crop when the best row is chosen."""

    shortcut_max_len_images: bool = False
    """published: give an example that fills the frame budget alone a row at once."""

    max_frames: int | None = None
    """Frames and crops of one row; null = twice the most that a single example may have."""

    def check(self) -> None:
        if self.buffer_size < 1:
            raise OLMoConfigurationError(f"data.packing.buffer_size must be at least 1, not {self.buffer_size}")
        if self.max_age is not None and self.max_age < self.buffer_size:
            raise OLMoConfigurationError(
                f"data.packing.max_age must be at least data.packing.buffer_size, {self.buffer_size}, or null, not {self.max_age}"
            )
        if self.max_frames is not None and self.max_frames < 1:
            raise OLMoConfigurationError(f"data.packing.max_frames must be at least 1 or null, not {self.max_frames}")

    @property
    def most_rows_waited(self) -> int:
        """`max_age`, or its default."""
        return 4 * self.buffer_size if self.max_age is None else self.max_age

    def row_frames(self, example_frames: int) -> int:
        """Frames of one row, where a single example has at most `example_frames`."""
        return 2 * example_frames if self.max_frames is None else self.max_frames


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


def best_fit(tokens: Sequence[int], frames: Sequence[int], max_tokens: int, max_frames: int) -> list[int]:
    """Indices of a row: the first item, and those that fill what it leaves of the scarcer budget best.

    Scarcer is the budget of which all items together would take more.
    """
    shares = np.asarray(tokens) / max(max_tokens, 1), np.asarray(frames) / max_frames
    scarce, spare = shares if shares[0].sum() > shares[1].sum() else shares[::-1]
    size = scarce + SPARE_WEIGHT * spare
    values = size + SIZE_BONUS * size**2
    rest = knapsack(tokens[1:], frames[1:], max(0, max_tokens - tokens[0]), max_frames - frames[0], values[1:])
    return [0, *sorted(i + 1 for i in rest)]


@dataclass(frozen=True)
class Item(Generic[T]):
    """Something to pack: its two sizes, a key to find it again, and the thing itself."""

    num_tokens: int
    num_frames: int
    key: Hashable
    value: T
    since: int = 0
    """Rows that had left when it arrived; set by the packer."""


class Packer(Generic[T]):
    """Takes items one by one; gives back a row's worth of them whenever there is one."""

    def __init__(self, config: PackingConfig, max_tokens: int, max_frames: int) -> None:
        config.check()
        self.config, self.max_tokens, self.max_frames = config, max_tokens, max_frames
        self.granularity = max(1, max_tokens // UNITS)
        self.published = config.solver == PackingSolver.published
        self.max_units = self._units(max_tokens) if self.published else max_tokens // self.granularity
        """The published rule rounds the budget up, so that its rows may pass it by less than a unit."""
        self.buffer: list[Item[T]] = []
        self.rows = 0
        """Rows that have left."""
        self.longest_wait = 0
        """Most rows that an item which has left had waited for."""
        self.rejected: Counter[str] = Counter()
        """Items that fit no row, by reason; they are refused at the door, because they would never leave the buffer. (The
        loader sends none: its `Limits` refuse and count such examples before.)"""

    def add(self, item: Item[T], since: int | None = None) -> list[Item[T]] | None:
        """Take one item; returns the row that leaves, if one does. What fills a row alone leaves at once.

        `since`: for an item that waited in another packer, the number of rows that had left when it came there. These go in first.
        """
        full = self._full(item)
        if item.num_frames > self.max_frames and not (self.published and full):
            self.rejected[TOO_MANY_FRAMES] += 1
            return None
        if full and (self.published or (since is None and not self._overdue())):
            return self._leaving([item])
        row = self._take() if since is None and (full or len(self.buffer) >= self.config.buffer_size) else None
        self.buffer.append(replace(item, since=self.rows if since is None else since))
        return row

    def _overdue(self) -> bool:
        """Whether rows of one example have gone before the oldest for so long that all who wait must go now, one row each at worst."""
        return bool(self.buffer) and self.rows - self.buffer[0].since >= self.config.most_rows_waited - self.config.buffer_size

    def _full(self, item: Item[T]) -> bool:
        """Whether nothing fits beside an item."""
        if self.published:
            frames = self.config.shortcut_max_len_images and item.num_frames >= self.max_frames
        else:
            frames = item.num_frames == self.max_frames
        return frames or self._units(item.num_tokens) >= self.max_units

    def _units(self, num_tokens: int) -> int:
        return -(-num_tokens // self.granularity)

    def _take(self) -> list[Item[T]]:
        tokens, frames = [self._units(i.num_tokens) for i in self.buffer], [i.num_frames for i in self.buffer]
        if self.published:
            cfg = self.config
            values = [cfg.text_weight * i.num_tokens + cfg.image_weight * i.num_frames for i in self.buffer]
            chosen = knapsack(tokens, frames, self.max_units, self.max_frames, values)
        else:
            chosen = best_fit(tokens, frames, self.max_units, self.max_frames)
        assert chosen, "every buffered item fits a row alone"
        row = [self.buffer[i] for i in chosen]
        self.buffer = [item for i, item in enumerate(self.buffer) if i not in set(chosen)]
        self.longest_wait = max([self.longest_wait, *(self.rows - item.since for item in row)])
        return self._leaving(row)

    def _leaving(self, row: list[Item[T]]) -> list[Item[T]]:
        self.rows += 1
        return row


def pack_examples(examples: Sequence[ProcessedExample]) -> ProcessedExample:
    """Join examples into one row. Positions restart per example; subsegment ids keep the examples apart.

    No example at all (none of a planned row could be decoded) is a row of one token that nothing is learned from.
    """
    if not examples:
        return _nothing()
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


def _nothing() -> ProcessedExample:
    zero = np.zeros(1, dtype=np.int64)
    return ProcessedExample(
        input_tokens=zero,
        target_tokens=zero,
        loss_masks=np.zeros(1, dtype=np.float32),
        position_ids=zero,
        subsegment_ids=zero,
        name="a row without examples",
        metadata=_joined_metadata(()),
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
