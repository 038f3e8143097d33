"""How many pairs of tokens the decoder's mask allows, counted on the host without ever forming the mask.

The mask (`attention_mask.allowed`) compares a few integers per token, and tokens come in long runs that share them: the
text of a branch, the cells of a frame. Between two runs either all pairs are allowed or none, so a row costs
O(runs x branches) after one pass over its ids.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from olmo.batch import EXAMPLE_STRIDE, PAD_ID
from olmo.nn.attention_mask import BiDirectionalAttn


@dataclass(frozen=True)
class TokenRuns:
    """A sequence as runs of tokens that the mask cannot tell apart; padding is left out. Four arrays [runs]."""

    length: np.ndarray
    """Tokens of every run; a fraction where pruning keeps a share of them."""
    subsegment: np.ndarray
    """EXAMPLE_STRIDE * example + branch."""
    is_image: np.ndarray
    """Bool: belongs to a picture."""
    image_segment: np.ndarray
    """How many images or frames have started up to here; never falls."""

    @property
    def num_tokens(self) -> float:
        return float(self.length.sum())


def token_runs(
    ids: np.ndarray,
    subsegments: np.ndarray | None = None,
    image_token_ids: Collection[int] = (),
    segment_start_ids: Collection[int] = (),
    kept: np.ndarray | None = None,
) -> TokenRuns:
    """The runs of one row: `ids` [S] (-1 = padding), `subsegments` [S] or None, `kept` [S] share of every token that stays."""
    valid = ids != PAD_ID
    subsegments = np.zeros_like(ids) if subsegments is None else subsegments
    columns = np.stack([subsegments, np.isin(ids, list(image_token_ids)), np.isin(ids, list(segment_start_ids)).cumsum()])[:, valid]
    starts = np.flatnonzero(np.concatenate([np.ones(1, bool), (columns[:, 1:] != columns[:, :-1]).any(0)])[: columns.shape[1]])
    weight = np.ones(columns.shape[1]) if kept is None else kept[valid]
    length = np.add.reduceat(weight, starts) if len(starts) else np.zeros(0)
    subsegment, is_image, image_segment = columns[:, starts]
    return TokenRuns(length, subsegment, is_image.astype(bool), image_segment)


def frame_runs(frame_tokens: Collection[float], text_tokens: float) -> TokenRuns:
    """One example: frames of these many tokens each, then text."""
    frames = len(frame_tokens)
    return TokenRuns(
        length=np.array([*frame_tokens, text_tokens], dtype=float),
        subsegment=np.zeros(frames + 1, dtype=np.int64),
        is_image=np.arange(frames + 1) < frames,
        image_segment=np.minimum(np.arange(frames + 1) + 1, frames),
    )


def allowed_pairs(runs: TokenRuns, mode: BiDirectionalAttn | None) -> float:
    """Pairs (query, key) that `attention_mask.allowed` allows among the row's tokens; exact where lengths are whole."""
    n, branch = runs.length, runs.subsegment
    total = float((n * (n + 1) / 2).sum())
    for value in np.unique(branch):
        # queries of this branch, over keys of earlier runs that they may see
        total += _with_earlier(n, branch == value, branch >= value)
    if mode is None:
        return total
    # What causality alone forbids: an earlier image token looking at a later one.
    image = n * runs.is_image
    total += float((image * (image - 1) / 2).sum())
    first_of_segment = np.searchsorted(runs.image_segment, runs.image_segment) if mode == BiDirectionalAttn.within_image else None
    example = branch // EXAMPLE_STRIDE
    for value in np.unique(branch[runs.is_image]):
        same = (branch <= value) & (example == value // EXAMPLE_STRIDE)
        total += _with_earlier(image, branch == value, same, first_of_segment)
    return total


def _with_earlier(n: np.ndarray, these: np.ndarray, others: np.ndarray, since: np.ndarray | None = None) -> float:
    """Pairs of a token in one of `these` runs with one in an earlier of the `others`, counted from run `since` on."""
    counted = n * others
    before = counted.cumsum() - counted
    if since is not None:
        before = before - before[since]
    return float((n * before)[these].sum())
