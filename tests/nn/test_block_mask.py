"""Block masks built band by band against torch's own, which sees the whole mask."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from olmo.nn.block_mask import BAND, BLOCK, block_mask


def same_blocks(ours, theirs):
    """The numbers behind the count of a list mean nothing."""
    for kind in ("kv", "full_kv", "q", "full_q"):
        counts = [getattr(mask, f"{kind}_num_blocks") for mask in (ours, theirs)]
        assert torch.equal(*counts), kind
        listed = torch.arange(counts[0].shape[-1]) < counts[0][..., None]
        a, b = (getattr(mask, f"{kind}_indices")[listed] for mask in (ours, theirs))
        assert a.dtype == b.dtype and torch.equal(a, b), kind
    assert ours.seq_lengths == theirs.seq_lengths and ours.BLOCK_SIZE == theirs.BLOCK_SIZE


@given(length=st.integers(1, 2 * BAND + 77), rows=st.integers(1, 2), seed=st.integers(0, 99))
def test_as_torch_builds_it(length, rows, seed):
    """Causal inside random segments, and some tokens that see everything. Seen to fail with bands of 100 queries."""
    random = torch.Generator().manual_seed(seed)
    segment = torch.rand(rows, length, generator=random).lt(0.005).cumsum(1)
    sees_all = segment % 3 == 2

    def rule(b, h, q, k):
        return (q >= k) & (segment[b, q] == segment[b, k]) | sees_all[b, q]

    same_blocks(block_mask(rule, rows, length, torch.device("cpu")), create_block_mask(rule, rows, None, length, length, device="cpu"))


@pytest.mark.parametrize("length", [BLOCK, BAND, BAND + 1])
def test_a_rule_without_rows(length):
    def causal(b, h, q, k):
        return q >= k

    same_blocks(block_mask(causal, 1, length, torch.device("cpu")), create_block_mask(causal, 1, None, length, length, device="cpu"))
