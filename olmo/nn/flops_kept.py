"""What pruning leaves of every frame and of every token, known from host integers before anything runs.

Only the total is certain then. The first frame of a pruned video is whole; that the others keep the same share is a
convention, and the cheapest case.
"""

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from olmo.batch import EXAMPLE_STRIDE, Batch, MultimodalType, RowLayout, VisualSegment
from olmo.budget import video_budgets
from olmo.nn.flops_mask import TokenRuns, token_runs
from olmo.tokenizer import IMAGE_TOKENS, SEGMENT_STARTS


class Share(NamedTuple):
    """Consecutive frames of a segment that are treated alike."""

    frames: int
    cells: int
    """Of each of them; 0 for pictures, which are no videos."""
    kept: float
    """Share of the cells that stays."""
    fast: bool = False
    """Whether the cells are the large ones of fast frames."""

    @property
    def dropped(self) -> float:
        return self.frames * self.cells * (1.0 - self.kept)


def kept_shares(model_config: Any, segment: VisualSegment, topk: float | None) -> list[Share]:
    """A segment in order: the first frame of a pruned video whole, the others (of one kind) alike."""
    vit, budgets = model_config.vision_backbone.vit, (0, 0)
    if segment.kind == MultimodalType.VIDEO and vit.drops_cells:
        configured, prune_from_frame = model_config.mm_preprocessor.pruning(vit)
        budgets = video_budgets(segment, configured if topk is None else topk, prune_from_frame)
    is_fast = np.isin(np.arange(segment.num_frames), segment.fast)
    cells = segment.cells_per_frame, segment.fast_cells  # of slow frames, of fast ones
    followers = [int((is_fast[1:] == fast).sum()) * cells[fast] for fast in (False, True)]
    kept = [1.0 - dropped / max(n, 1) for dropped, n in zip(budgets, followers, strict=True)]
    each = [Share(1, cells[fast], kept[fast] if f else 1.0, fast) for f, fast in enumerate(is_fast.tolist())]
    return [run[0]._replace(frames=len(run)) for run in (list(group) for _, group in groupby(each))]


def dropped_cells(shares: list[Share]) -> int:
    """Cells that leave a segment; pictures lose none."""
    return round(sum(s.dropped for s in shares))


def batch_runs(model_config: Any, batch: Batch, topk: float | None = None) -> list[TokenRuns]:
    """Every row of a batch on the host as runs of tokens after pruning."""
    special = model_config.special_token_ids()
    pictures, starts = ([special[name] for name in names] for names in (IMAGE_TOKENS, SEGMENT_STARTS))
    runs = []
    for i, row in enumerate(batch.layout):
        ids = batch.input_ids[i].numpy()
        subsegments = None if batch.subsegment_ids is None else batch.subsegment_ids[i].numpy()
        kept = kept_tokens(model_config, row, np.isin(ids, model_config.placeholder_ids()), subsegments, topk)
        runs.append(token_runs(ids, subsegments, pictures, starts, kept))
    return runs


def kept_tokens(
    model_config: Any, row: RowLayout, is_cell: np.ndarray, subsegments: np.ndarray | None, topk: float | None
) -> np.ndarray | None:
    """Share of every token [S] that pruning leaves; None = all stay. An example has one visual segment, in the same order."""
    if model_config.vision_backbone is None:
        return None
    shares = [kept_shares(model_config, s, topk) for s in row.segments]
    if all(share.kept == 1.0 for parts in shares for share in parts):
        return None
    kept, cells = np.ones(len(is_cell)), np.flatnonzero(is_cell)
    example = np.zeros(len(cells)) if subsegments is None else subsegments[cells] // EXAMPLE_STRIDE
    begins = np.flatnonzero(np.diff(example, prepend=-1))  # where an example's cells begin, among all cells
    if len(begins) != len(row.segments):  # segments cannot be told apart: all cells alike
        kept[cells] = 1.0 - sum(map(dropped_cells, shares)) / max(len(cells), 1)
        return kept
    for begin, parts in zip(begins, shares, strict=True):
        for share in parts:
            end = begin + share.frames * share.cells
            kept[cells[begin:end]] = share.kept
            begin = end
    return kept
