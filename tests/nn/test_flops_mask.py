"""Allowed pairs counted by runs against the dense mask of the same tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.batch import EXAMPLE_STRIDE, PAD_ID, SHARED_PREFIX
from olmo.nn.attention_mask import BiDirectionalAttn, dense_mask, token_attributes
from olmo.nn.flops_mask import allowed_pairs, frame_runs, token_runs

TEXT, PATCH, START = 5, 70, 71
MODES = [None, *BiDirectionalAttn]


def brute_force(ids: list[int], subsegments: list[int] | None, mode) -> int:
    """Entries of the dense mask in the rows of real tokens."""
    row = torch.tensor([ids])
    tokens = token_attributes(row, None if subsegments is None else torch.tensor([subsegments]), (PATCH, START), (START,))
    return int(dense_mask(tokens, tokens, mode)[0, 0][row[0] != PAD_ID].sum())


def counted(ids: list[int], subsegments: list[int] | None, mode) -> float:
    arrays = np.array(ids, dtype=np.int64), None if subsegments is None else np.array(subsegments)
    return allowed_pairs(token_runs(*arrays, (PATCH, START), (START,)), mode)


@st.composite
def rows(draw) -> tuple[list[int], list[int]]:
    """Packed examples, each frames and text of a shared prefix and then branches, padding at the end."""
    ids, subsegments = [], []
    for example in range(draw(st.integers(0, 3))):
        branches = draw(st.integers(1, 3))
        prefix = [TEXT] * draw(st.integers(0, 2))
        for _ in range(draw(st.integers(0, 3))):
            prefix += [START, *[PATCH] * draw(st.integers(0, 4)), *[TEXT] * draw(st.integers(0, 2))]
        parts = [(prefix, SHARED_PREFIX if branches > 1 else 0)]
        parts += [([TEXT] * draw(st.integers(0, 3)), b if branches > 1 else 0) for b in range(branches)]
        for tokens, branch in parts:
            ids += tokens
            subsegments += [example * EXAMPLE_STRIDE + branch] * len(tokens)
    padding = draw(st.integers(0, 3))
    return ids + [PAD_ID] * padding, subsegments + [-1] * padding


@pytest.mark.parametrize("mode", MODES)
@given(row=rows())
@settings(max_examples=60, deadline=None)
def test_rows_of_real_batches(mode, row):
    """Seen to fail without the comparison of examples, of branches, of frames (`within_image`), and with padding counted."""
    ids, subsegments = row
    assert counted(ids, subsegments, mode) == brute_force(ids, subsegments, mode)
    assert counted(ids, None, mode) == brute_force(ids, None, mode)


@pytest.mark.parametrize("mode", MODES)
@given(
    tokens=st.lists(
        st.tuples(st.sampled_from([TEXT, PATCH, START, PAD_ID]), st.sampled_from([0, 1, SHARED_PREFIX, 100_000, 110_000])), max_size=30
    )
)
@settings(max_examples=60, deadline=None)
def test_any_row(mode, tokens):
    """Also orders that no packer makes: pictures inside branches, examples that come back, padding in the middle."""
    ids, subsegments = [t for t, _ in tokens], [s for _, s in tokens]
    assert counted(ids, subsegments, mode) == brute_force(ids, subsegments, mode)


@pytest.mark.parametrize("mode", MODES)
def test_runs_from_host_integers(mode):
    """A video and text without ids give the same count as with them; keeping a share shortens the runs."""
    ids = [START, *[PATCH] * 9] * 4 + [TEXT] * 7
    assert allowed_pairs(frame_runs([10] * 4, 7), mode) == brute_force(ids, None, mode)
    kept = np.where(np.array(ids) == PATCH, 1 / 3, 1.0)
    shorter = token_runs(np.array(ids), None, (PATCH, START), (START,), kept)
    assert shorter.num_tokens == pytest.approx(4 * 4 + 7)
    assert allowed_pairs(shorter, mode) == pytest.approx(brute_force([START, *[PATCH] * 3] * 4 + [TEXT] * 7, None, mode))
