"""Packing: published decisions, the best choice by brute force, and arrays that keep the examples apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.batch import MultimodalType, VisualSegment
from olmo.data.packer import Item, Packer, PackingConfig, knapsack, pack_examples
from olmo.exceptions import OLMoConfigurationError
from olmo.preprocessing.example import ProcessedExample

ARRAYS = ("input_tokens", "target_tokens", "loss_masks", "position_ids", "subsegment_ids", "images", "token_pooling")


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 6), st.integers(1, 9)), min_size=1, max_size=7),
    st.integers(0, 24),
    st.integers(0, 10),
)
def test_knapsack_is_the_best_choice(items, max_tokens, max_frames):
    """Oracle: all subsets. Seen to fail when the frames of a chosen item are not taken off while the table is walked back, and when
    an item never joins another."""
    tokens, frames, values = (list(v) for v in zip(*items, strict=True))
    chosen = knapsack(tokens, frames, max_tokens, max_frames, values)
    assert chosen == sorted(chosen, reverse=True) and len(set(chosen)) == len(chosen)
    assert sum(tokens[i] for i in chosen) <= max_tokens and sum(frames[i] for i in chosen) <= max_frames
    subsets = itertools.chain.from_iterable(itertools.combinations(range(len(items)), n) for n in range(len(items) + 1))
    fitting = (s for s in subsets if sum(tokens[i] for i in s) <= max_tokens and sum(frames[i] for i in s) <= max_frames)
    assert sum(values[i] for i in chosen) == max(sum(values[i] for i in s) for s in fitting)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 700), st.integers(0, 12)), min_size=1, max_size=60), st.integers(1, 9))
def test_every_item_leaves_once_waits_or_is_refused(sizes, buffer_size):
    """Seen to fail when one item of a row stays in the buffer, and when the buffer takes one more than its size."""
    packer = Packer(PackingConfig(buffer_size=buffer_size, image_weight=30), 600, 8)
    left = []
    for number, (tokens, frames) in enumerate(sizes):
        if row := packer.add(Item(tokens, frames, number, None)):
            assert len(row) == 1 or (sum(i.num_tokens for i in row) <= 600 and sum(i.num_frames for i in row) <= 8)
            left += [i.key for i in row]
    assert sorted(left + [i.key for i in packer.buffer] + [-1] * packer.rejected["too_many_frames"])[packer.rejected.total() :] == sorted(
        left + [i.key for i in packer.buffer]
    )
    assert len(left) + len(packer.buffer) + packer.rejected.total() == len(sizes)
    assert len(packer.buffer) <= buffer_size


def test_what_never_fits_is_refused_at_the_door():
    """The published packer kept such items until its buffer held nothing else, and then died.
    Seen to fail in the same way without the refusal."""
    packer = Packer(PackingConfig(buffer_size=2), 100, 4)
    for number in range(20):
        packer.add(Item(10, 5, number, None))
    assert packer.rejected == {"too_many_frames": 20} and not packer.buffer
    rows = [packer.add(Item(40, 2, number, None)) for number in range(4)]
    assert [len(r) if r else 0 for r in rows] == [0, 0, 2, 0]


def test_lengths_after_pruning_add_up():
    """Seen to fail when only the largest count of dropped cells is taken over, and when the patches of one frame instead of all
    frames are counted in front of the next example."""

    def example(dropped):
        return ProcessedExample(
            input_tokens=np.arange(10),
            target_tokens=np.arange(10),
            loss_masks=np.ones(10, dtype=np.float32),
            position_ids=np.arange(10),
            images=np.zeros((2, 4, 12), dtype=np.uint8),
            token_pooling=np.arange(8).reshape(8, 1),
            segments=(VisualSegment(MultimodalType.VIDEO, 2, 4),),
            dropped_cells=dropped,
        )

    row = pack_examples([example(3), example(2), example(0)])
    assert row.num_tokens_after_pruning == 30 - 5 and len(row.segments) == 3 and row.num_frames == 6
    assert row.token_pooling.max() == 23


def test_settings_are_checked():
    with pytest.raises(OLMoConfigurationError, match="buffer_size"):
        Packer(PackingConfig(buffer_size=0), 10, 1)
    with pytest.raises(OLMoConfigurationError, match="max_frames"):
        Packer(PackingConfig(max_frames=0), 10, 1)
