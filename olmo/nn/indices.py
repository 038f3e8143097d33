"""Masks to indices where the host knows how many there are: nothing waits for the device to count.

`mask.nonzero()` and boolean indexing ask the device for the size of their result. Here the size comes from the layout of
the batch, and that the two agree is checked without waiting.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from olmo.exceptions import OLMoDataError


def any_of(ids: Tensor, wanted: Sequence[int]) -> Tensor:
    """Bool, where `ids` is one of a few values."""
    return torch.stack([ids == value for value in wanted]).any(0) if len(wanted) > 1 else ids == wanted[0]


def kept_indices(mask: Tensor, total: int) -> Tensor:
    """Positions of the True entries of a flat bool mask, in order: int64 [total], without asking the device how many.

    `total` must be at least the number of True entries; slots beyond it point at position 0.
    """
    slot = torch.where(mask, mask.cumsum(0) - 1, total)
    positions = torch.zeros(total + 1, dtype=torch.int64, device=mask.device)
    return positions.scatter_(0, slot, torch.arange(len(mask), device=mask.device))[:total]


def check_total(mask: Tensor, total: int, what: str) -> None:
    """Refuse a batch whose tensors and layout disagree (on a GPU the kernel asserts it, nothing waits for the answer)."""
    if mask.device.type != "cpu":
        torch._assert_async(mask.sum() == total, f"the batch does not have {total} {what}")
    elif (found := int(mask.sum())) != total:
        raise OLMoDataError(f"the batch has {found} positions but {total} {what}")


def flat_positions(mask: Tensor, total: int, what: str) -> Tensor:
    """Indices [total] of the True entries of the flattened mask, which must be that many."""
    check_total(mask, total, what)
    return kept_indices(mask.flatten(), total)


def kept_rows(token_pooling: Tensor, keep: Tensor | None = None) -> Tensor:
    """Bool [B, P]: the rows of `token_pooling` [B, P, G] that hold a patch and, with keep [B * T, N], whose patches are kept."""
    rows = (token_pooling >= 0).any(-1)
    if keep is None:
        return rows
    # a cell keeps or loses all of its patches
    some_patch = token_pooling.amax(-1).clamp(min=0).long()
    return rows & keep.view(len(token_pooling), -1).gather(1, some_patch)
