"""The collator against a slow oracle; lengths are counted after pruning."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from olmo.batch import ExampleLayout, MultimodalType, VisualSegment
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.collator import Collator
from olmo.preprocessing.example import ProcessedExample, dropped_cells

PATCH = 1026


def example(frames=0, text=4, cells=4, dropped=0, branches=False, name="") -> ProcessedExample:
    n = frames * cells + text
    tokens = np.asarray([PATCH] * (frames * cells) + list(range(100, 100 + text)))
    loss = np.zeros(n, dtype=np.float32)
    loss[-2:] = 0.5
    return ProcessedExample(
        input_tokens=tokens,
        target_tokens=tokens + 1,
        loss_masks=loss,
        position_ids=np.arange(n),
        subsegment_ids=np.zeros(n, dtype=np.int64) if branches else None,
        images=np.full((frames, 9, 6), 7, dtype=np.uint8) if frames else None,
        token_pooling=np.arange(frames * cells)[:, None] * np.asarray([1]) if frames else None,
        segments=(VisualSegment(MultimodalType.VIDEO, frames, cells),) if frames else (),
        dropped_cells=dropped,
        name=name,
        metadata={"name": name},
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(2, 9), st.booleans()), min_size=1, max_size=4))
def test_padding(rows):
    """Element by element. Seen to fail with labels padded by 0 and with the rows' order reversed."""
    examples = [example(f, t, branches=b) for f, t, b in rows]
    batch = Collator([PATCH])(examples)
    width = max(e.num_tokens for e in examples)
    for i, e in enumerate(examples):
        for name, source in (("input_ids", e.input_tokens), ("labels", e.target_tokens), ("position_ids", e.position_ids)):
            assert getattr(batch, name)[i].tolist() == [*source.tolist(), *[-1] * (width - e.num_tokens)]
        assert batch.layout[i].num_tokens == e.num_tokens
        assert batch.layout[i].num_pooled == (0 if e.token_pooling is None else len(e.token_pooling))
        assert batch.layout[i].num_loss_tokens == 2
        assert batch.layout[i].num_frames == e.num_frames
        if batch.images is not None:
            assert batch.images[i, : e.num_frames].eq(7).all() and batch.images[i, e.num_frames :].eq(0).all()
    assert (batch.subsegment_ids is not None) == any(b for _, _, b in rows)
    assert (batch.images is None) == all(f == 0 for f, _, _ in rows)
    assert batch.images is None or batch.images.dtype == torch.uint8
    assert len(batch) == len(batch.metadata) == len(examples)


def test_sequence_length_counts_what_is_left_after_pruning():
    """20 tokens of which 8 will be dropped fit a sequence of 12. Seen to fail with the limit compared to all 20."""
    batch = Collator([PATCH], pad_to="to_max", seq_len=12)([example(4, 4, dropped=8)])
    assert batch.input_ids.shape == (1, 20) and batch.layout[0].num_tokens == 20
    assert batch.layout[0].num_tokens - 8 == 12


def test_long_text_is_cut_and_the_layout_says_so():
    batch = Collator([PATCH], pad_to="to_max", seq_len=9)([example(1, 6)])
    assert batch.input_ids.shape == (1, 9) and batch.layout[0].num_tokens == 9 and batch.layout[0].num_loss_tokens == 1


def test_the_layout_knows_the_packed_examples():
    """Which tokens and segments belong to which example, and whether branches hide something; text cut at the end comes off the last
    ones. Seen to fail with the rising ids of branches looked for across examples, and with cut examples left at their length."""
    from olmo.data.packer import pack_examples  # on top of preprocessing, whose data it joins

    tree = example(1, 6)
    tree.subsegment_ids = np.asarray([10_000] * 4 + [0, 0, 0, 1, 1, 1])
    row = pack_examples([example(2, 4), tree, example(0, 5), example(0, 3)])
    known = (ExampleLayout(12, 1), ExampleLayout(10, 1, True), ExampleLayout(5), ExampleLayout(3))
    batch = Collator([PATCH])([row, example(0, 4)])
    assert [r.examples for r in batch.layout] == [known, (ExampleLayout(4),)]
    assert pack_examples([tree]).examples == tree.examples == known[1:2]
    cut = Collator([PATCH], pad_to="to_max", seq_len=25)([row]).layout[0]
    assert cut.num_tokens == 25 and cut.examples == (*known[:2], ExampleLayout(3))


def test_errors_name_the_example():
    collate = Collator([PATCH], pad_to="to_max", seq_len=8)
    with pytest.raises(OLMoDataError, match="example 17 has 16 tokens after pruning, and its visual part would be cut"):
        collate([example(3, 4, name="example 17")])
    with pytest.raises(OLMoDataError, match="example 18 .* whole answer would be cut"):
        collate([example(1, 9, name="example 18")])


def test_settings_are_checked():
    with pytest.raises(OLMoConfigurationError, match="needs a sequence length"):
        Collator([PATCH], pad_to="to_max")
    with pytest.raises(OLMoConfigurationError, match="unknown padding"):
        Collator([PATCH], pad_to="longest")


def test_dropped_cells_are_those_of_videos_only():
    segments = (
        VisualSegment(MultimodalType.VIDEO, 8, 81),
        VisualSegment(MultimodalType.IMAGE, 9),
        VisualSegment(MultimodalType.VIDEO, 1, 81),
    )
    assert dropped_cells(segments, 0.5) == 324
    assert dropped_cells(segments, 0.0) == 0
    assert dropped_cells(example(4, 4).segments, 0.5) == 8
