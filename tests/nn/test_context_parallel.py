"""Exchanges between ranks that share sequences, against plain slices of the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.attention import attend
from olmo.nn.attention_mask import SharedMask, masked_attention
from olmo.nn.context_parallel import check_heads, pack_heads, pack_tokens, unpack_heads, unpack_tokens
from tests.models.in_threads import in_threads

sizes = st.tuples(*(st.integers(1, n) for n in (4, 2, 3, 2, 3)))
"""(degree, rows, query heads per key head, key heads per rank, tokens per rank)."""


@given(sizes)
def test_heads_and_tokens_change_places(size):
    """After the exchange a rank has all tokens of its heads, and exchanging back gives it all heads of its tokens."""
    degree, rows, repeat, own, tokens = size
    q, k, v = (torch.randn(rows, n * own * degree, tokens * degree, 2) for n in (repeat, 1, 1))
    sent = [pack_heads([t.chunk(degree, 2)[r] for t in (q, k, v)], degree) for r in range(degree)]
    for r in range(degree):
        found = unpack_heads(torch.stack([s[r] for s in sent]), [repeat * own, own, own])
        for a, b in zip(found, (q, k, v), strict=True):
            assert torch.equal(a, b.chunk(degree, 1)[r])
    back = [pack_tokens(q.chunk(degree, 1)[r], degree) for r in range(degree)]
    for r in range(degree):
        assert torch.equal(unpack_tokens(torch.stack([b[r] for b in back])), q.chunk(degree, 2)[r])


@settings(max_examples=20)
@given(sizes, st.integers(0, 9))
def test_attention_under_any_mask(size, seed):
    """Output and gradients. Seen to fail with key heads that belong to the query heads of another rank."""
    degree, rows, repeat, own, tokens = size
    torch.manual_seed(seed)
    q, k, v = (torch.randn(rows, n * own * degree, tokens * degree, 2, dtype=torch.float64, requires_grad=True) for n in (repeat, 1, 1))
    mask = torch.rand(rows, 1, tokens * degree, tokens * degree) < 0.6
    mask |= torch.eye(tokens * degree, dtype=torch.bool)
    expected = attend(q, k, v, mask=mask)
    parts = in_threads(degree, lambda c: masked_attention(*(t.chunk(degree, 2)[c.rank] for t in (q, k, v)), SharedMask(c, mask)))
    found = torch.cat(parts, dim=2)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad((out * weights).sum(), (q, k, v)) for out in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_heads_must_be_divisible():
    check_heads(4, 32, 8)
    with pytest.raises(OLMoConfigurationError, match="degree=16 must divide model.llm.n_kv_heads=8"):
        check_heads(16, 32, 8)
    with pytest.raises(OLMoConfigurationError, match="degree=3 must divide model.llm.n_kv_heads=4"):
        check_heads(3, 4, 4)
