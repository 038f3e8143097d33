"""How many cells of a video are dropped: one function, called by the packer before the model runs and by the model itself.

The number is an exact host integer, so that every length after pruning is known before the forward pass starts and
nothing has to wait for the device. The other two functions say what a model may see instead that drops nothing: fewer
frames, or smaller ones, with as many visual tokens.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from olmo.batch import VisualSegment


def pruning_budget(num_frames: int, cells_per_frame: int, topk: float, prune_from_frame: int = 0) -> int:
    """Cells dropped from one video of `num_frames` frames with `cells_per_frame` cells each.

    `topk` is the fraction *removed*. The order of the roundings is part of the contract (fp32 product of a float64
    product, then truncation): any other order is off by one for some inputs, and checkpoints were trained with this one.
    The first frame is always kept whole, so at most `cells_per_frame * (num_frames - 1)` cells leave.
    """
    return _budget(num_frames, prune_from_frame, cells_per_frame, topk, num_frames - 1)


def video_budgets(video: "VisualSegment", topk: float, prune_from_frame: int = 0) -> tuple[int, int]:
    """Cells dropped from the frames with small cells (of a plain video: all of them), and from the fast frames.

    Each kind has the budget of a video of its own, but there is only one first frame: the kind that does not have it may lose
    cells of all its frames.
    """
    if not video.fast:
        return pruning_budget(video.num_frames, video.cells_per_frame, topk, prune_from_frame), 0
    early = sum(i < prune_from_frame for i in video.fast)
    slow, first_is_fast = video.num_frames - len(video.fast), video.fast[0] == 0
    return (
        _budget(slow, min(prune_from_frame, video.num_frames) - early, video.cells_per_frame, topk, slow - (not first_is_fast)),
        _budget(len(video.fast), early, video.fast_cells, topk, len(video.fast) - first_is_fast),
    )


def _budget(num_frames: int, uncounted: int, cells: int, topk: float, may_lose: int) -> int:
    """The published rounding for `num_frames` frames of which `may_lose` may lose cells."""
    return max(0, min(int(np.float32(cells * topk) * np.float32(num_frames - uncounted)), cells * may_lose))


def frames_within_budget(num_frames: int, cells_per_frame: int, topk: float, prune_from_frame: int = 0) -> int:
    """Whole frames that have at most as many cells as pruning leaves of `num_frames` frames; at least one."""
    kept = num_frames * cells_per_frame - pruning_budget(num_frames, cells_per_frame, topk, prune_from_frame)
    return max(1, kept // cells_per_frame)


def cells_within_budget(shape: tuple[int, int], topk: float) -> tuple[int, int]:
    """Rows and columns of the largest frame with at most 1 - `topk` of the cells of a frame of `shape`; at least one cell.

    The most cells win. Of frames with equally many it is the one whose proportions change least, and the wider one if two do.
    Strips, whose proportions change by more than a factor of two, are chosen only where nothing else fits.
    """
    rows, columns = shape
    limit = max(1, int(rows * columns * (1 - topk) + 1e-6))  # 10 * (1 - 0.9) is a little less than 1

    def distortion(r: int, c: int) -> float:
        return max(r * columns, c * rows) / min(r * columns, c * rows)

    fitting = [(r, c) for r in range(1, rows + 1) for c in range(1, columns + 1) if r * c <= limit]
    return max(fitting, key=lambda s: (distortion(*s) <= 2, s[0] * s[1], -distortion(*s), s[1]))
