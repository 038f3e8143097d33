"""What is known about pruning before a single number is computed: the geometry of cells and the budget of every video.

Everything here is host integers derived from the layout of the batch, so that the forward pass can size its tensors
without asking the device. The device gets index tensors made from them, in one transfer.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from olmo.batch import MultimodalType, RowLayout
from olmo.budget import pruning_budget
from olmo.exceptions import OLMoConfigurationError


@dataclass(frozen=True)
class CellGrid:
    """Cells of a frame: windows over its grid of patches, in raster order.

    A grid that the window does not divide is padded with missing patches, the smaller half before and the larger half
    after on each axis, exactly as the preprocessor pads `token_pooling`.
    """

    grid: tuple[int, int]
    """Rows and columns of patches."""
    window: tuple[int, int]
    """Rows and columns of a cell."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return tuple(-(-g // w) for g, w in zip(self.grid, self.window, strict=True))

    @property
    def num_cells(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def before(self) -> tuple[int, int]:
        """Missing rows above and missing columns left of the grid."""
        return tuple((c * w - g) // 2 for c, w, g in zip(self.shape, self.window, self.grid, strict=True))

    @property
    def regular(self) -> bool:
        """Whether every cell is full."""
        return self.num_cells * self.window[0] * self.window[1] == self.num_patches

    def split(self, x: Tensor) -> Tensor:
        """Patches [F, N, D] to cells [F, C, G, D]; missing patches are zeros."""
        (rows, columns), (h, w), (top, left) = self.shape, self.window, self.before
        x = x.unflatten(1, self.grid)
        if not self.regular:
            bottom, right = rows * h - self.grid[0] - top, columns * w - self.grid[1] - left
            x = F.pad(x, (0, 0, left, right, top, bottom))
        x = x.view(x.shape[0], rows, h, columns, w, -1).transpose(2, 3)
        return x.reshape(x.shape[0], rows * columns, h * w, -1)

    def join(self, x: Tensor) -> Tensor:
        """Cells [F, C, G, D] back to patches [F, N, D]: undoes `split`."""
        (rows, columns), (h, w), (top, left), (height, width) = self.shape, self.window, self.before, self.grid
        x = x.view(x.shape[0], rows, columns, h, w, -1).transpose(2, 3).reshape(x.shape[0], rows * h, columns * w, -1)
        return x[:, top : top + height, left : left + width].flatten(1, 2)

    def spread(self, cells: Tensor) -> Tensor:
        """One value per cell [F, C] to one value per patch [F, N]."""
        (top, left), (height, width) = self.before, self.grid
        x = cells.unflatten(1, self.shape).repeat_interleave(self.window[0], 1).repeat_interleave(self.window[1], 2)
        return x[:, top : top + height, left : left + width].flatten(1)

    def present(self, device: torch.device) -> Tensor | None:
        """[C, G] bool, which patches of a cell exist; None when all do."""
        if self.regular:
            return None
        return self.split(torch.ones(1, self.num_patches, 1, device=device))[0, :, :, 0] > 0

    def edges(self, axis: int) -> np.ndarray:
        """Patch at which every cell begins along an axis, and the end of the last one: [cells + 1]."""
        cuts = np.arange(self.shape[axis] + 1) * self.window[axis] - self.before[axis]
        return np.clip(cuts, 0, self.grid[axis])

    @cached_property
    def sizes(self) -> np.ndarray:
        """Patches of every cell, [C]."""
        return np.outer(np.diff(self.edges(0)), np.diff(self.edges(1))).flatten()


@dataclass(frozen=True)
class PrunableVideo:
    """A video that will lose cells."""

    start: int
    """Its first frame among the batch's frames."""
    num_frames: int
    budget: int
    """Cells to drop, at most all but those of the first frame."""


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """Which frames are up for pruning, and how many cells and patches will be left."""

    cells: CellGrid
    num_frames: int
    """F: frames of the batch, padding included."""
    real: tuple[bool, ...]
    """Per frame: not padding."""
    videos: tuple[PrunableVideo, ...]
    dropped_per_segment: tuple[tuple[int, ...], ...]
    """Cells that leave every visual segment of every row of the batch."""
    device: torch.device
    """Where the forward pass runs."""

    @property
    def dropped_per_row(self) -> tuple[int, ...]:
        """Cells that leave every row."""
        return tuple(sum(segments) for segments in self.dropped_per_segment)

    @property
    def frame_counts(self) -> list[int]:
        """Frames of every prunable video."""
        return [v.num_frames for v in self.videos]

    @cached_property
    def slots(self) -> tuple[int, int]:
        """Room for the kept patches of the batch, and how many of them may be left over (spare).

        Full cells make the count exact. With partly empty cells the number of patches depends on the choice of cells;
        then this is the largest it can be, and its distance from the smallest.
        """
        prunable = sum(self.frame_counts)
        most = least = (sum(self.real) - prunable) * self.cells.num_patches
        for video in self.videos:
            sizes = np.sort(np.tile(self.cells.sizes, video.num_frames - 1))
            kept = len(sizes) - video.budget
            most += self.cells.num_patches + int(sizes[len(sizes) - kept :].sum())
            least += self.cells.num_patches + int(sizes[:kept].sum())
        return most, most - least

    @cached_property
    def on_device(self) -> "PlanTensors":
        """The plan as index tensors; there must be a prunable video."""
        counts = self.frame_counts
        first = np.concatenate([np.arange(n) == 0 for n in counts])
        parts = (
            np.concatenate([np.arange(v.start, v.start + v.num_frames) for v in self.videos]),
            np.repeat(np.arange(len(counts)), counts),
            first,
            np.flatnonzero(~first),
            np.concatenate([np.arange(v.num_frames * self.cells.num_cells) < v.budget for v in self.videos]),
            np.array([v.budget for v in self.videos]),
            np.array(self.real),
        )
        host = torch.from_numpy(np.concatenate(parts).astype(np.int64))
        if self.device.type == "cuda":
            host = host.pin_memory()
        moved = host.to(self.device, non_blocking=True).split([len(part) for part in parts])
        return PlanTensors(*(t.bool() if part.dtype == bool else t for t, part in zip(moved, parts, strict=True)))


@dataclass
class PlanTensors:
    """The plan on the device. P = frames of prunable videos, in the order of the batch; V = prunable videos."""

    frames: Tensor
    """[P] index into the batch's frames."""
    video: Tensor
    """[P] number of the video."""
    first: Tensor
    """[P] bool, first frame of its video."""
    followers: Tensor
    """[P - V] index into the P frames of those that are not first."""
    dropped: Tensor
    """[P * C] bool over cells sorted by video and, within a video, by rising score: these leave."""
    budgets: Tensor
    """[V] cells to drop."""
    real: Tensor
    """[F] bool, not padding."""


def plan_pruning(
    layout: tuple[RowLayout, ...],
    frames_per_row: int,
    cells: CellGrid,
    topk: float,
    prune_from_frame: int = 0,
    device: torch.device | str = "cpu",
) -> PruningPlan:
    """Read the layout of a batch of rows of `frames_per_row` frames."""
    real: list[bool] = []
    videos = []
    dropped_per_segment = []
    for r, row in enumerate(layout):
        start = r * frames_per_row
        dropped = []
        for segment in row.segments:
            budget = 0
            if segment.kind == MultimodalType.VIDEO:
                check_cells(segment.cells_per_frame, cells)
                budget = pruning_budget(segment.num_frames, cells.num_cells, topk, prune_from_frame)
                if budget > 0:
                    videos.append(PrunableVideo(start, segment.num_frames, budget))
            dropped.append(max(budget, 0))
            start += segment.num_frames
        assert row.num_frames <= frames_per_row, f"row {r} has {row.num_frames} frames of {frames_per_row}"
        real += [True] * row.num_frames + [False] * (frames_per_row - row.num_frames)
        dropped_per_segment.append(tuple(dropped))
    return PruningPlan(cells, len(real), tuple(real), tuple(videos), tuple(dropped_per_segment), torch.device(device))


def check_cells(cells_per_frame: int, cells: CellGrid) -> None:
    """The preprocessor and the ViT must cut a video frame into the same cells."""
    if cells_per_frame != cells.num_cells:
        raise OLMoConfigurationError(
            f"the batch has {cells_per_frame} cells per video frame, but the pruned ViT cuts its {cells.grid[0]} x {cells.grid[1]} patches "
            f"into {cells.num_cells} cells of {cells.window[0]} x {cells.window[1]}: mm_preprocessor.video.pooling_h/w must equal "
            f"vision_backbone.vit.pooling_h/w"
        )


@lru_cache(maxsize=16)
def cell_grid(grid: tuple[int, int], window: tuple[int, int]) -> CellGrid:
    """The cells of a grid, with its derived numbers computed once."""
    return CellGrid(grid, window)
