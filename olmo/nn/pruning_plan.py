"""What is known about pruning before a single number is computed: the geometry of cells and the budget of every video.

Everything here is host integers derived from the layout of the batch, so that the forward pass can size its tensors
without asking the device. The device gets index tensors made from them, in one transfer.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isqrt
from operator import itemgetter

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from olmo.batch import MultimodalType, RowLayout, VisualSegment
from olmo.budget import video_budgets
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
        x = x.view(x.shape[0], rows, h, columns, w, x.shape[-1]).transpose(2, 3)
        return x.reshape(x.shape[0], rows * columns, h * w, x.shape[-1])

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
    """Cells to drop, at most those of the frames that are not whole."""
    whole: tuple[int, ...] = (0,)
    """Numbers of its frames that lose nothing: the first one, and with slow and fast frames those of the other kind."""


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """Which frames are up for pruning, and how many cells and patches will be left.

    Videos with slow and fast frames have two budgets over cells of two sizes. The fast frames then have a plan of their own
    (`fast`) over the same frames of the batch; in each plan the frames of the other one are whole.
    """

    cells: CellGrid
    num_frames: int
    """F: frames of the batch, padding included."""
    real: tuple[bool, ...]
    """Per frame: not padding."""
    videos: tuple[PrunableVideo, ...]
    dropped_per_segment: tuple[tuple[int, ...], ...]
    """Cells that leave every visual segment of every row of the batch (in the main plan those of fast frames as well)."""
    device: torch.device
    """Where the forward pass runs."""
    fast: "PruningPlan | None" = None
    """The plan of the fast frames; None = the batch has none."""

    @property
    def dropped_per_row(self) -> tuple[int, ...]:
        """Cells that leave every row."""
        return tuple(sum(segments) for segments in self.dropped_per_segment)

    @property
    def parts(self) -> "tuple[PruningPlan, ...]":
        """This plan and the one of the fast frames, where they drop anything."""
        return tuple(p for p in (self, self.fast) if p is not None and p.videos)

    @property
    def dropped_fast(self) -> int:
        """Cells that leave fast frames."""
        return 0 if self.fast is None else sum(v.budget for v in self.fast.videos)

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
        fewest = most = 0  # patches that leave
        for part in self.parts:
            for video in part.videos:
                sizes = np.sort(np.tile(part.cells.sizes, video.num_frames - len(video.whole)))
                fewest += int(sizes[: video.budget].sum())
                most += int(sizes[len(sizes) - video.budget :].sum())
        return sum(self.real) * self.cells.num_patches - fewest, most - fewest

    @cached_property
    def on_device(self) -> "PlanTensors":
        """The plan as index tensors; there must be a prunable video."""
        counts = self.frame_counts
        first = np.concatenate([np.arange(n) == 0 for n in counts])
        whole = np.concatenate([np.isin(np.arange(v.num_frames), v.whole) for v in self.videos])
        parts = (
            np.concatenate([np.arange(v.start, v.start + v.num_frames) for v in self.videos]),
            np.repeat(np.arange(len(counts)), counts),
            first,
            whole,
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
    whole: Tensor
    """[P] bool, loses nothing."""
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
    fast_cells: CellGrid | None = None,
) -> PruningPlan:
    """Read the layout of a batch of rows of `frames_per_row` frames; `fast_cells`: the cells of its fast frames, if there are any."""
    real: list[bool] = []
    videos: tuple[list[PrunableVideo], ...] = ([], [])  # slow (or all), fast
    dropped: list[list[tuple[int, int]]] = []
    for r, row in enumerate(layout):
        start = r * frames_per_row
        dropped.append([])
        for segment in row.segments:
            budgets = (0, 0)
            if segment.kind == MultimodalType.VIDEO:
                check_cells(segment.cells_per_frame, cells)
                if segment.fast:
                    check_cells(segment.fast_cells, fast_cells)
                budgets = video_budgets(segment, topk, prune_from_frame)
                for found, budget, whole in zip(videos, budgets, whole_frames(segment), strict=True):
                    if budget > 0:
                        found.append(PrunableVideo(start, segment.num_frames, budget, whole))
            dropped[-1].append(budgets)
            start += segment.num_frames
        assert row.num_frames <= frames_per_row, f"row {r} has {row.num_frames} frames of {frames_per_row}"
        real += [True] * row.num_frames + [False] * (frames_per_row - row.num_frames)
    both, of_fast = (tuple(tuple(f(b) for b in row) for row in dropped) for f in (sum, itemgetter(1)))
    shared = (len(real), tuple(real))
    fast = None if fast_cells is None else PruningPlan(fast_cells, *shared, tuple(videos[1]), of_fast, torch.device(device))
    return PruningPlan(cells, *shared, tuple(videos[0]), both, torch.device(device), fast)


def whole_frames(video: VisualSegment) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Frames that lose nothing while the slow ones are pruned, and while the fast ones are."""
    if not video.fast:
        return (0,), ()
    fast = set(video.fast)
    slow = set(range(video.num_frames)) - fast
    return tuple(sorted({0} | fast)), tuple(sorted({0} | slow))


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


def square_cells(grid: tuple[int, int], num_patches: int) -> CellGrid:
    """Cells of as many rows as columns, `num_patches` patches each."""
    return cell_grid(grid, (isqrt(num_patches), isqrt(num_patches)))
