"""Points against masks: the assignment against all permutations, masks against their definition, scores by hand."""

import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics.points_on_masks import assignment, decode_mask, distances, lies_on, point_scores, says_nothing_there
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError
from tests.eval.metrics.masks import box, rle


def cheapest(cost: np.ndarray) -> float:
    """The smallest total of one entry per row (or column, whichever are fewer), by trying all."""
    cost = cost if cost.shape[0] <= cost.shape[1] else cost.T
    return min(sum(cost[i, j] for i, j in enumerate(order)) for order in permutations(range(cost.shape[1]), cost.shape[0]))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_assignment_is_the_cheapest_of_all(rows, columns, seed):
    """Seen to fail when every row takes its nearest column."""
    cost = np.random.default_rng(seed).integers(0, 10, (rows, columns))
    pairs = assignment(cost)
    assert len(pairs) == len({i for i, _ in pairs}) == len({j for _, j in pairs}) == min(rows, columns)
    assert sum(cost[pair] for pair in pairs) == cheapest(cost)


def test_distances():
    assert distances(np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[3.0, 4.0]])).tolist() == [[5.0], [4.0]]


@pytest.mark.parametrize(
    ("counts", "values"),
    [((0, 0, 0), (1, 1, 1)), ((0, 2, 0), (0, 0, 0)), ((0, 0, 2), (0, 0, 0)), ((1, 2, 4), (1 / 2, 1 / 4, 1 / 3)), ((0, 3, 3), (0, 0, 0))],
)
def test_scores_by_hand(counts, values):
    scores = point_scores(*counts)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx(values)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_f1_is_the_harmonic_mean(predicted, wanted, data):
    scores = point_scores(data.draw(st.integers(1, min(predicted, wanted))), predicted, wanted)
    assert scores.f1 == pytest.approx(2 * scores.precision * scores.recall / (scores.precision + scores.recall))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_masks_are_read_back(height, width, seed):
    """Height and width differ, so that a transposed mask is seen."""
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    np.testing.assert_array_equal(decode_mask(rle(mask), "here"), mask)


@pytest.mark.parametrize(
    "wrong", [{"size": [4, 4]}, {"size": [4], "counts": "0"}, {"size": [4, 4], "counts": "\xff"}, {"size": 4, "counts": None}]
)
def test_a_broken_mask_is_named(wrong):
    with pytest.raises(OLMoDataError, match="^example 7: a mask should be COCO run lengths"):
        decode_mask(wrong, "example 7")


def test_the_pixel_nearest_to_a_point_counts():
    mask = box(10, 20, 2, 5, 4, 9)  # rows 2 and 3, columns 5 to 8
    inside = [(5, 2), (8, 3), (4.6, 3.4)]
    outside = [(4, 2), (9, 3), (5, 1), (5, 4), (4.4, 2), (2, 5)]
    assert all(lies_on(mask, x, y, 20, 10) for x, y in inside)
    assert not any(lies_on(mask, x, y, 20, 10) for x, y in outside)


def test_the_far_edge_and_masks_of_another_size():
    corner = box(10, 20, 9, 19, 10, 20)
    assert lies_on(corner, 20, 10, 20, 10) and not lies_on(corner, 18, 10, 20, 10)
    assert lies_on(corner, 190, 90, 200, 100) and not lies_on(corner, 19, 9, 200, 100)


def test_what_says_that_nothing_is_there():
    assert all(map(says_nothing_there, ["There are none.", "there are none", " There  are none.\n", "No tracks available."]))
    assert not any(map(says_nothing_there, ["", "There are 2.", "I see a dog."]))


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("scipy.optimize", lambda: assignment(np.ones((1, 1)))),
        ("pycocotools", lambda: decode_mask({"size": [1, 1], "counts": "1"}, "here")),
    ],
)
def test_a_missing_package_is_one_clear_line(monkeypatch, module, use):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OLMoEnvironmentError, match=rf"needs the package '{module.partition('.')[0]}': pip install .*\[eval\]"):
        use()
