"""What pruning leaves of every frame and of every token, known from host integers before anything runs.

Only the total is certain then. The first frame of a pruned video is whole; that the others keep the same share is a
convention, and the cheapest case.
"""

from typing import Any

import numpy as np

from olmo.batch import EXAMPLE_STRIDE, Batch, MultimodalType, RowLayout, VisualSegment
from olmo.budget import pruning_budget
from olmo.nn.flops_mask import TokenRuns, token_runs
from olmo.tokenizer import IMAGE_TOKENS, SEGMENT_STARTS


def kept_shares(model_config: Any, segment: VisualSegment, topk: float | None) -> list[tuple[int, float]]:
    """(frames, share of their cells that stays): the first frame of a pruned video whole, the others alike."""
    vit, dropped = model_config.vision_backbone.vit, 0
    if segment.kind == MultimodalType.VIDEO and vit.drops_cells:
        configured, prune_from_frame = model_config.mm_preprocessor.pruning(vit)
        dropped = pruning_budget(segment.num_frames, segment.cells_per_frame, configured if topk is None else topk, prune_from_frame)
    if not dropped:
        return [(segment.num_frames, 1.0)]
    followers = segment.num_frames - 1
    return [(1, 1.0), (followers, 1.0 - dropped / (followers * segment.cells_per_frame))]


def dropped_cells(segment: VisualSegment, shares: list[tuple[int, float]]) -> int:
    """Cells that leave a segment; pictures lose none."""
    return round(sum(frames * (1.0 - share) for frames, share in shares) * segment.cells_per_frame)


def batch_runs(model_config: Any, batch: Batch, topk: float | None = None) -> list[TokenRuns]:
    """Every row of a batch on the host as runs of tokens after pruning."""
    special = model_config.special_token_ids()
    pictures, starts = ([special[name] for name in names] for names in (IMAGE_TOKENS, SEGMENT_STARTS))
    runs = []
    for i, row in enumerate(batch.layout):
        ids = batch.input_ids[i].numpy()
        subsegments = None if batch.subsegment_ids is None else batch.subsegment_ids[i].numpy()
        kept = kept_tokens(model_config, row, ids == special["image_patch"], subsegments, topk)
        runs.append(token_runs(ids, subsegments, pictures, starts, kept))
    return runs


def kept_tokens(
    model_config: Any, row: RowLayout, is_cell: np.ndarray, subsegments: np.ndarray | None, topk: float | None
) -> np.ndarray | None:
    """Share of every token [S] that pruning leaves; None = all stay. An example has one visual segment, in the same order."""
    if model_config.vision_backbone is None:
        return None
    shares = [kept_shares(model_config, s, topk) for s in row.segments]
    if all(share == 1.0 for parts in shares for _, share in parts):
        return None
    kept, cells = np.ones(len(is_cell)), np.flatnonzero(is_cell)
    example = np.zeros(len(cells)) if subsegments is None else subsegments[cells] // EXAMPLE_STRIDE
    begins = np.flatnonzero(np.diff(example, prepend=-1))  # where an example's cells begin, among all cells
    if len(begins) != len(row.segments):  # segments cannot be told apart: all cells alike
        kept[cells] = 1.0 - sum(dropped_cells(s, parts) for s, parts in zip(row.segments, shares, strict=True)) / max(len(cells), 1)
        return kept
    for segment, begin, parts in zip(row.segments, begins, shares, strict=True):
        for frames, share in parts:
            end = begin + frames * segment.cells_per_frame
            kept[cells[begin:end]] = share
            begin = end
    return kept
