"""The attention rule against the published rules spelled out token by token, and the two kinds of mask against each other."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from olmo.exceptions import OLMoConfigurationError
from olmo.nn import attention_mask
from olmo.nn.attention_mask import BiDirectionalAttn, dense_mask, flex_block_mask, masked_attention, token_attributes

PATCH, FRAME, LOW_RES, WORD = 102, 107, 104, 5
IMAGE_TOKENS, STARTS = (PATCH, FRAME, LOW_RES), (FRAME, LOW_RES)
MODES = [None, BiDirectionalAttn.image_tokens, BiDirectionalAttn.within_image]


def brute_force(ids: list[int], subs: list[int] | None, mode) -> torch.Tensor:
    """The rules of the published mask, one pair of tokens at a time."""
    n = len(ids)
    out = torch.zeros(n, n, dtype=torch.bool)
    started = list(itertools.accumulate(i in STARTS for i in ids))
    for q, k in itertools.product(range(n), range(n)):
        ok = k <= q
        if mode is not None and ids[q] in IMAGE_TOKENS and ids[k] in IMAGE_TOKENS:
            bidirectional = mode == BiDirectionalAttn.image_tokens or started[k] <= started[q]
            if subs is not None and subs[q] // 100_000 != subs[k] // 100_000:
                bidirectional = False
            ok = ok or bidirectional
        if subs is not None and subs[q] > subs[k]:
            ok = False
        out[q, k] = ok and ids[k] != -1
    return out


def built(ids: list[list[int]], subs: list[list[int]] | None, mode) -> torch.Tensor:
    tokens = token_attributes(torch.tensor(ids), None if subs is None else torch.tensor(subs), IMAGE_TOKENS, STARTS)
    return dense_mask(tokens, tokens, mode)[:, 0]


@pytest.mark.parametrize("mode", MODES)
def test_two_branch_tree_with_a_packed_neighbour(mode):
    """Prefix with two frames, two branches, another packed example, padding. Seen to fail with `<` for `<=` between
    branches, with the example check left out, and with segments compared the other way round."""
    tree = [WORD, FRAME, PATCH, PATCH, FRAME, PATCH, PATCH, WORD, WORD, WORD, WORD]
    subs = [10_000] * 7 + [0, 0, 1, 1]
    ids = tree + [WORD, FRAME, PATCH, PATCH, WORD, -1, -1]
    subs = subs + [100_000] * 5 + [-1, -1]
    mask = built([ids], [subs], mode)[0]
    assert torch.equal(mask, brute_force(ids, subs, mode))
    assert mask[10, :11].tolist() == [True] * 7 + [False] * 2 + [True] * 2  # a branch sees the prefix and itself
    assert not mask[11:16, :11].any() and not mask[:11, 11:16].any()  # packed neighbours see nothing of each other
    assert mask[2, 6].item() == (mode == BiDirectionalAttn.image_tokens)  # an earlier frame sees a later one
    assert mask[2, 3].item() == (mode is not None)
    assert mask[:, :16].any(-1).all() and not mask[:, 16:].any()  # every query sees something, nobody sees padding


@given(
    rows=st.lists(
        st.lists(st.tuples(st.sampled_from([WORD, PATCH, FRAME, LOW_RES]), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=12),
        min_size=1,
        max_size=3,
    ),
    mode=st.sampled_from(MODES),
    trees=st.booleans(),
)
def test_any_tokens(rows, mode, trees):
    """500-odd random sequences. Seen to fail with image segments counted after the token instead of up to it."""
    width = max(map(len, rows))
    ids = [[t[0] for t in row] + [-1] * (width - len(row)) for row in rows]
    branch = (10_000, 0, 1, 2)
    subs = [[100_000 * t[1] + branch[t[2]] for t in row] + [-1] * (width - len(row)) for row in rows] if trees else None
    mask = built(ids, subs, mode)
    for b, row in enumerate(ids):
        assert torch.equal(mask[b], brute_force(row, None if subs is None else subs[b], mode))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("mode", MODES)
def test_block_sparse_mask_is_the_dense_one(mode, monkeypatch):
    """Attention and gradients under the block mask (eager reference of flex attention) equal those under the dense mask.
    Seen to fail with q and k swapped in the block rule."""
    monkeypatch.setattr(attention_mask, "_flex_attention", flex_attention)
    g = torch.Generator().manual_seed(1)
    ids = torch.where(torch.rand(2, 520, generator=g) < 0.6, PATCH, WORD)
    ids[:, ::40] = FRAME
    ids[0, 450:] = -1
    subs = torch.full_like(ids, 10_000)
    subs[:, 130:180], subs[:, 180:256], subs[:, 256:] = 0, 1, 100_000
    subs = subs.masked_fill(ids < 0, -1)
    tokens = token_attributes(ids, subs, IMAGE_TOKENS, STARTS)
    q = torch.randn(2, 4, 520, 16)
    k, v = torch.randn(2, 2, 2, 520, 16)
    block = flex_block_mask(tokens, mode, compiled=False)
    dense = dense_mask(tokens, tokens, mode)
    tiles = torch.nn.functional.pad(dense, (0, 120, 0, 120)).unflatten(3, (5, 128)).unflatten(2, (5, 128)).any(-1).any(3)
    assert torch.equal(block.to_dense().bool(), tiles) and not tiles.all()  # empty tiles are skipped
    outputs = [masked_attention(q, k, v, mask) for mask in (block, dense)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_no_dropout_under_a_block_mask():
    tokens = token_attributes(torch.full((1, 4), WORD), None)
    q = torch.randn(1, 1, 4, 16)
    with pytest.raises(OLMoConfigurationError, match="attention_dropout"):
        masked_attention(q, q, q, flex_block_mask(tokens, None, compiled=False), dropout=0.1)
