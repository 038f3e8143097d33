"""Compaction: the language model's sequence without the visual tokens that were pruned.

One index per kept token is computed from the keep mask, and every per-token tensor is gathered with it, so order,
branches and loss weights stay what they were. All lengths are host integers (`VisionOutput.dropped_per_segment`): nothing here
waits for the device.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch

from olmo.batch import EXAMPLE_STRIDE, PAD_ID, Batch, RowLayout
from olmo.nn.indices import any_of, check_total


def compact(
    batch: Batch,
    keep_rows: torch.Tensor,
    dropped_per_segment: tuple[tuple[int, ...], ...],
    placeholder_ids: Sequence[int],
    renumber: bool = False,
) -> Batch:
    """Drop the `<im_patch>` tokens whose row of `token_pooling` is not kept (`keep_rows` bool [B, P]).

    `dropped_per_segment`: how many cells the visual segments of every row lose, as host integers. Rows are right-padded to the
    longest one. Position ids keep their values (time stays what it was) unless `renumber` closes the gaps.
    """
    layout = tuple(shorter_row(row, dropped) for row, dropped in zip(batch.layout, dropped_per_segment, strict=True))
    keep = kept_tokens(batch, keep_rows, placeholder_ids)
    check_total(keep, sum(row.num_tokens for row in layout), "tokens after pruning by the layout (<im_patch> tokens and cells must match)")
    if renumber:
        batch = replace(batch, position_ids=closed_positions(batch, keep))
    source, filled = _sources(keep, max(row.num_tokens for row in layout))
    shorter = batch.map_text(lambda t: t.gather(1, source).masked_fill(~filled, PAD_ID))
    return replace(shorter, layout=layout)


def shorter_row(row: RowLayout, dropped: tuple[int, ...]) -> RowLayout:
    """A row and its packed examples, when its visual segments lose so many cells each."""
    lost, counts = sum(dropped), iter(dropped)
    examples = tuple(replace(e, num_tokens=e.num_tokens - sum(islice(counts, e.num_segments))) for e in row.examples)
    return replace(row, num_tokens=row.num_tokens - lost, num_pooled=row.num_pooled - lost, examples=examples)


def kept_tokens(batch: Batch, keep_rows: torch.Tensor, placeholder_ids: Sequence[int]) -> torch.Tensor:
    """Bool [B, S]: the tokens that stay (padding does not)."""
    # the j-th <im_patch> token of a row belongs to the row's j-th pooled group that holds a patch
    pooled = (batch.token_pooling >= 0).any(-1)  # [B, P]
    ordinal = torch.where(pooled, pooled.cumsum(1) - 1, pooled.shape[1])  # empty groups go to a spare column
    keep_nth = torch.zeros(pooled.shape[0], pooled.shape[1] + 1, dtype=torch.bool, device=pooled.device)
    keep_nth = keep_nth.scatter(1, ordinal, keep_rows)
    is_patch = any_of(batch.input_ids, placeholder_ids)  # [B, S]
    nth = (is_patch.cumsum(1) - 1).clamp(0, pooled.shape[1])
    return torch.where(is_patch, keep_nth.gather(1, nth), batch.input_ids != PAD_ID)


def _sources(keep: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(place [B, length] that every new token comes from, bool [B, length]: is there one)."""
    target = torch.where(keep, keep.cumsum(1) - 1, length)  # dropped tokens go to a spare column
    places = torch.arange(keep.shape[1], device=keep.device).expand_as(target)
    source = places.new_zeros(keep.shape[0], length + 1).scatter(1, target, places)[:, :length]
    filled = torch.arange(length, device=keep.device) < keep.sum(1, keepdim=True)
    return source, filled


def closed_positions(batch: Batch, keep: torch.Tensor) -> torch.Tensor:
    """Position ids [B, S] minus the number of dropped tokens that precede in the same packed example.

    Visual tokens stand in the prefix that all branches share, so every branch moves by the same amount.
    """
    dropped = (batch.input_ids != PAD_ID) & ~keep
    before = dropped.cumsum(1) - dropped.long()
    if batch.subsegment_ids is not None:
        example = torch.div(batch.subsegment_ids, EXAMPLE_STRIDE, rounding_mode="floor")
        starts = torch.nn.functional.pad(example[:, 1:] != example[:, :-1], (1, 0), value=True)
        before = before - torch.where(starts, before, 0).cummax(1).values
    return batch.position_ids - before
