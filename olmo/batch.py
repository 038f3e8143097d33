"""What crosses from the data side to the model: tensors plus the host integers that describe their layout.

Every count that the model needs to size its tensors after pruning is a Python int here, so that the forward pass never
reads a number back from the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import torch

PAD_ID = -1
"""Fills text tensors behind a row's tokens."""

EXAMPLE_STRIDE = 100_000
"""`subsegment_ids` = EXAMPLE_STRIDE * packed example + branch."""

SHARED_PREFIX = 10_000
"""Branch of the tokens that all branches of an example see: the greatest, because a token sees branches not smaller than its own."""


class MultimodalType(IntEnum):
    """What one packed example holds; the values are those of the published batches."""

    TEXT_ONLY = 0
    IMAGE = 1
    VIDEO = 2
    MULTI_IMAGE = 3


@dataclass(frozen=True)
class VisualSegment:
    """A run of consecutive frames (or crops) of one example in one row of the batch."""

    kind: MultimodalType
    num_frames: int
    """Frames of the video, or crops of the image(s)."""
    cells_per_frame: int = 0
    """Cells of each frame of a video (rows of `token_pooling` per frame); unused for images."""
    spared: int = 0
    """Cells that the model without any pruning would have had on top: of frames left out, or of larger frames."""
    fast: tuple[int, ...] = ()
    """SlowFast: numbers of the frames, rising, that have `fast_cells` (larger) cells each instead."""
    fast_cells: int = 0
    """Cells of each of these frames."""

    @property
    def num_fast_cells(self) -> int:
        return len(self.fast) * self.fast_cells

    @property
    def num_cells(self) -> int:
        """Cells of a video before pruning."""
        return (self.num_frames - len(self.fast)) * self.cells_per_frame + self.num_fast_cells

    @property
    def frame_cells(self) -> list[int]:
        """Cells of every frame of a video."""
        fast = set(self.fast)
        return [self.fast_cells if i in fast else self.cells_per_frame for i in range(self.num_frames)]


@dataclass(frozen=True)
class ExampleLayout:
    """Host-side description of one packed example of a row."""

    num_tokens: int
    num_segments: int = 0
    """Visual segments that belong to it."""
    branched: bool = False
    """Whether some of its tokens may not see all earlier ones: several conversations about the same pictures."""


@dataclass(frozen=True)
class RowLayout:
    """Host-side description of one row of a `Batch`."""

    segments: tuple[VisualSegment, ...]
    """Visual segments in the order of the row's frames; the row's remaining frames are padding."""
    num_tokens: int
    """Tokens of the row that are not padding."""
    num_pooled: int
    """Rows of `token_pooling` that hold at least one patch (= `<im_patch>` tokens of the row)."""
    num_loss_tokens: int = 0
    """Positions with a positive loss weight."""
    examples: tuple[ExampleLayout, ...] = ()
    """The packed examples in order, their tokens and segments adding up to those of the row; empty = not known."""

    @property
    def num_frames(self) -> int:
        return sum(s.num_frames for s in self.segments)

    @property
    def num_spared(self) -> int:
        """Visual tokens that were spared before the model saw anything (those that it drops itself are not among them)."""
        return sum(s.spared for s in self.segments)

    @property
    def num_fast_cells(self) -> int:
        """How many of the `num_pooled` rows of `token_pooling` belong to fast frames."""
        return sum(s.num_fast_cells for s in self.segments)


class FastCells(NamedTuple):
    """The cells of fast frames, whose windows are too large for a row of `token_pooling`."""

    pooling: torch.Tensor
    """[B, Q, G'] int64 indices into the row's T * N patches, -1 = empty."""
    rows: torch.Tensor
    """[B, Q] int64, rising: the row of `token_pooling` that stands for each cell (it names one patch of the cell), -1 = padding."""


@dataclass
class Batch:
    """One device batch: B rows of S tokens and T frames.

    Text tensors are right-padded with -1. `<im_patch>` tokens and the valid rows of `token_pooling` correspond one to
    one, row-major. Frames of a row stand in example order, padding frames last.
    """

    input_ids: torch.Tensor
    """[B, S] int64, -1 = padding."""
    position_ids: torch.Tensor
    """[B, S] int64, -1 = padding; restarts for every packed example and after the shared prefix of every branch."""
    layout: tuple[RowLayout, ...]
    """One per row."""
    labels: torch.Tensor | None = None
    """[B, S] int64 next-token targets (already shifted), -1 = padding."""
    loss_masks: torch.Tensor | None = None
    """[B, S] float32 loss weight per token; <= 0 means no loss."""
    subsegment_ids: torch.Tensor | None = None
    """[B, S] int64: EXAMPLE_STRIDE * example + branch (SHARED_PREFIX: all see it), -1 = padding; None = one conversation per row."""
    images: torch.Tensor | None = None
    """[B, T, N, patch * patch * 3] uint8 patches (0 = padding), or float32 already normalised to -1..1 (-1 = padding)."""
    token_pooling: torch.Tensor | None = None
    """[B, P, G] int64 indices into the row's T * N patches, -1 = empty."""
    image_masks: torch.Tensor | None = None
    """[B, T, N] float32, only for ViTs with a padding embedding."""
    fast_pooling: torch.Tensor | None = None
    """See `FastCells`; None = all frames are pooled alike."""
    fast_rows: torch.Tensor | None = None
    """See `FastCells`."""
    metadata: list[dict[str, Any]] = field(default_factory=list)
    """Whatever evaluation needs, one per row."""

    TEXT = ("input_ids", "position_ids", "labels", "loss_masks", "subsegment_ids")
    """The tensors with one entry per token."""
    TENSORS = (*TEXT, "images", "token_pooling", "image_masks", "fast_pooling", "fast_rows")

    @property
    def fast(self) -> FastCells | None:
        return None if self.fast_pooling is None else FastCells(self.fast_pooling, self.fast_rows)

    def map_tensors(self, fn: Callable[[torch.Tensor], torch.Tensor], names: Sequence[str] = TENSORS) -> "Batch":
        """A copy with `fn` applied to every tensor (of `names`) that is present."""
        return replace(self, **{n: fn(t) for n in names if (t := getattr(self, n)) is not None})

    def map_text(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """A copy with `fn` applied to every tensor that has one entry per token."""
        return self.map_tensors(fn, self.TEXT)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        return self.map_tensors(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        return self.map_tensors(lambda t: t.pin_memory())

    def rows(self, start: int, stop: int) -> "Batch":
        """Rows start..stop as a batch of their own (micro-batching); tensors are views."""
        part = self.map_tensors(lambda t: t[start:stop])
        return replace(part, layout=self.layout[start:stop], metadata=self.metadata[start:stop])

    def __len__(self) -> int:
        return self.input_ids.shape[0]
