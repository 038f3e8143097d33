"""Dropping tokens from the sequence against masking them in the whole sequence, and against loops over tokens."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from olmo.batch import Batch, RowLayout
from olmo.exceptions import OLMoDataError
from olmo.models.molmo2.model import fit_length
from olmo.models.temporal_video_olmo.compaction import compact
from olmo.nn.attention_mask import dense_mask, token_attributes
from olmo.nn.losses import naive_linear_cross_entropy
from tests.models.builders import IDS, Example, batch, model

PATCH = IDS["image_patch"]
ROWS = ([Example(4, (4, 3), 1), Example(3, (5,), 2)], [Example(2, (6,), 3)], [Example(0, (4,), 4), Example(5, (3, 2, 4), 5)])


def kept_by_loop(b: Batch, keep_rows: torch.Tensor) -> list[list[int]]:
    """Indices of the tokens that stay, row by row: the j-th patch token stands for the j-th pooled group with a patch."""
    rows = []
    for ids, pooling, keep in zip(b.input_ids.tolist(), b.token_pooling, keep_rows.tolist(), strict=True):
        groups = iter([k for k, group in zip(keep, pooling.tolist(), strict=True) if max(group) >= 0])
        rows.append([i for i, token in enumerate(ids) if token != -1 and (token != PATCH or next(groups))])
    return rows


def masked_instead(m, b: Batch, vision) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [B, S, d] of the whole sequence in which dropped tokens are keys of nobody, and bool [B, S]: kept."""
    kept = torch.zeros_like(b.input_ids, dtype=torch.bool)
    for row, indices in zip(kept, kept_by_loop(b, vision.keep_rows), strict=True):
        row[indices] = True
    x = m.transformer.embed(b.input_ids)
    x[kept & (b.input_ids == PATCH)] += vision.features
    tokens = token_attributes(b.input_ids, b.subsegment_ids, m._ids(("image_patch", "frame_start", "frame_end")), ())
    mask = dense_mask(tokens, replace(tokens, valid=tokens.valid & kept), m.config.bi_directional_attn)
    return m.transformer(x, b.position_ids, mask), kept


@pytest.mark.parametrize("mode", ["image_tokens", None])
def test_same_logits_and_loss_as_masking(mode):
    """Position ids keep their gaps, so nothing but the length changes. Seen to fail with positions renumbered, with the
    keep mask shifted by one token, and with subsegment ids not gathered."""
    m = model(bi_directional_attn=mode)
    b = batch(*ROWS, extra=3)
    with torch.no_grad():
        vision = m.encode_vision(b)
        hidden, kept = masked_instead(m, b, vision)
        actual = m(b, logits="all")
        expected = m.transformer.logits(hidden[kept])
        weighted = m(b, compute_loss=True).loss
        naive = naive_linear_cross_entropy(
            m.transformer.ln_f(hidden.flatten(0, 1)), m.transformer.wte.embedding, b.labels.flatten(), b.loss_masks.flatten()
        )
    assert vision.keep_rows is not None and actual.tokens_after == tuple(kept.sum(1).tolist())
    assert sum(actual.tokens_after) == sum(row.num_tokens for row in b.layout) - (18 + 13 + 9 + 22)
    torch.testing.assert_close(actual.logits, expected, atol=2e-5, rtol=1e-5)
    for got, wanted in zip(weighted, naive, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)


@st.composite
def _sequences(draw):
    """Rows of tokens with empty pooled groups anywhere, and an arbitrary keep mask."""
    rows = draw(st.lists(st.lists(st.sampled_from([5, PATCH]), min_size=1, max_size=12), min_size=1, max_size=3))
    width, groups = max(map(len, rows)) + draw(st.integers(0, 3)), 14
    ids = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    pooling = torch.full((len(rows), groups, 2), -1)
    keep = torch.zeros(len(rows), groups, dtype=torch.bool)
    for b, row in enumerate(rows):
        places = sorted(draw(st.permutations(range(groups)))[: row.count(PATCH)])
        for place in places:
            pooling[b, place, draw(st.integers(0, 1))] = place
            keep[b, place] = draw(st.booleans())
    layout = tuple(RowLayout((), len(row), row.count(PATCH)) for row in rows)
    positions = torch.where(ids >= 0, torch.arange(width).expand_as(ids), -1)
    subsegments = torch.tensor(
        [sorted(draw(st.sampled_from([0, 100_000, 200_000])) for _ in row) + [-1] * (width - len(row)) for row in rows]
    )
    for b, row in enumerate(rows):  # positions restart with every packed example
        start = 0
        for i in range(len(row)):
            start = i if i and subsegments[b, i] != subsegments[b, i - 1] else start
            positions[b, i] = i - start
    return Batch(ids, positions, layout, loss_masks=torch.rand(ids.shape), subsegment_ids=subsegments, token_pooling=pooling), keep


def dropped(b: Batch, keep: torch.Tensor) -> tuple[tuple[int], ...]:
    """What every row loses, as if it had one segment."""
    return tuple((row.num_pooled - kept,) for row, kept in zip(b.layout, keep.sum(1).tolist(), strict=True))


@given(case=_sequences(), extra=st.sampled_from([None, 0, 2]))
def test_gather_equals_a_loop(case, extra):
    """Any tokens, any mask. Seen to fail with empty groups counted, and with padding kept."""
    b, keep = case
    rows = kept_by_loop(b, keep)
    longest = max(map(len, rows))
    short = compact(b, keep, dropped(b, keep), (PATCH,))
    if extra is not None:
        short = fit_length(short, longest + extra)
    assert short.input_ids.shape[1] == longest + (extra or 0)
    assert [row.num_tokens for row in short.layout] == [len(r) for r in rows]
    for name in ("input_ids", "position_ids", "loss_masks", "subsegment_ids"):
        before, after = getattr(b, name), getattr(short, name)
        for i, indices in enumerate(rows):
            assert torch.equal(after[i, : len(indices)], before[i, indices])
            assert (after[i, len(indices) :] == -1).all()


@given(case=_sequences())
def test_renumbering_counts_what_is_left(case):
    """Without gaps the positions are those of a sequence that never had the dropped tokens. Seen to fail with the count
    not restarted for every packed example."""
    b, keep = case
    short = compact(b, keep, dropped(b, keep), (PATCH,), True)
    for positions, subsegments, row in zip(short.position_ids.tolist(), short.subsegment_ids.tolist(), short.layout, strict=True):
        seen: dict[int, int] = {}
        for position, example in zip(positions[: row.num_tokens], subsegments, strict=False):
            assert position == seen.get(example, 0)
            seen[example] = position + 1


def test_branches_follow_their_prefix_after_renumbering():
    """All branches start one after the shared prefix, with and without gaps."""
    b = batch([Example(3, (4, 2), 1), Example(2, (3, 3), 2)])
    for compacted in (False, True):
        m = model(compact_positions=compacted)
        with torch.no_grad():
            vision = m.encode_vision(b)
            short = m.shorten(b, vision, None)
        positions, subs = short.position_ids[0], short.subsegment_ids[0]
        for example in (0, 1):
            starts = [positions[(subs == example * 100_000 + i).nonzero()[0, 0]].item() for i in (0, 1)]
            prefix = positions[subs == example * 100_000 + 10_000]
            assert starts == [prefix.max().item() + 1] * 2
            assert (prefix.diff() == 1).all().item() == compacted


def test_padding_to_a_fixed_length_changes_nothing():
    """Static shapes for the language model; seen to fail with padding filled with a token."""
    m = model()
    b = batch(*ROWS)
    with torch.no_grad():
        expected, padded = m(b, logits="all"), m(b, logits="all", pad_to=120)
        torch.testing.assert_close(padded.logits, expected.logits, atol=1e-5, rtol=1e-5)
        assert m.shorten(b, m.encode_vision(b), 120).input_ids.shape == (3, 120)
        with pytest.raises(OLMoDataError, match="does not fit into sequences of 20"):
            m(b, pad_to=20)


def test_a_pruned_video_needs_no_images_elsewhere():
    """A batch in which some rows, or all, hold no video."""
    m = model()
    mixed = batch([Example(3, (4,), 1)], [Example(0, (6,), 2)])
    with torch.no_grad():
        together = m(mixed, logits="all").logits
        alone = [m(batch([e]), logits="all").logits for e in (Example(3, (4,), 1), Example(0, (6,), 2))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
