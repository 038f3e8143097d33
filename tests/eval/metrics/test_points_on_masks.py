"""Points against masks: the assignment against all permutations, masks against their definition, scores by hand."""

import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.eval.metrics.points_on_masks import assignment, distances, lies_on, point_scores, says_nothing_there
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError
from tests.eval.metrics.masks import box, decode, rle


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
@settings(max_examples=50)
def test_every_pixel_of_a_mask(height, width, seed):
    """Height and width differ, so that a transposed mask is seen."""
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    written = rle(mask)
    np.testing.assert_array_equal(decode(written), mask)
    found = [[lies_on(written, x, y, width, height, "here") for x in range(width)] for y in range(height)]
    np.testing.assert_array_equal(found, mask)


def test_a_mask_as_large_as_a_picture():
    """Run lengths of more than one digit. Seen to fail when later ones are not differences."""
    rows, columns = np.mgrid[:720, :1280]
    mask = ((rows - 360) / 300) ** 2 + ((columns - 700) / 500) ** 2 < 1
    mask ^= np.random.default_rng(0).random(mask.shape) < 0.001
    written = rle(mask)
    points = np.random.default_rng(1).integers(0, (1280, 720), (300, 2)).tolist()
    assert [lies_on(written, x, y, 1280, 720, "here") for x, y in points] == [mask[y, x] for x, y in points]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"size": [4, 4]}, "the counts of a mask should be run lengths as COCO compresses them, but are 'None'"),
        ({"size": [4, 4], "counts": [1, 2]}, "the counts of a mask"),
        ({"size": [4, 4], "counts": ""}, "the counts of a mask"),
        ({"size": [4, 4], "counts": "\xff"}, "the counts of a mask"),
        ({"size": [4, 4], "counts": "zz"}, "the counts of a mask"),
        ({"size": [4, 4], "counts": "P"}, "the counts of a mask"),  # cut off within a number
        ({"size": [4, 4], "counts": "3"}, "the run lengths of a mask of 4 x 4 should be 0 or more each, and 16 together, but end at 3"),
        ({"size": [4, 4], "counts": "d0L"}, "the run lengths of a mask"),  # 20 and -4
        ({"size": [4], "counts": "0"}, r"the size of a mask should be \[height, width\], but is \[4\]"),
        ({"size": [4, 0], "counts": "0"}, "the size of a mask"),
        ({"size": [4, "4"], "counts": "0"}, "the size of a mask"),
        ({"counts": "0"}, "the size of a mask"),
    ],
)
def test_a_broken_mask_is_named(wrong, sentence):
    with pytest.raises(OLMoDataError, match=f"^example 7: {sentence}"):
        lies_on(wrong, 1, 1, 4, 4, "example 7")


def test_the_pixel_nearest_to_a_point_counts():
    mask = rle(box(10, 20, 2, 5, 4, 9))  # rows 2 and 3, columns 5 to 8
    inside = [(5, 2), (8, 3), (4.6, 3.4)]
    outside = [(4, 2), (9, 3), (5, 1), (5, 4), (4.4, 2), (2, 5)]
    assert all(lies_on(mask, x, y, 20, 10, "here") for x, y in inside)
    assert not any(lies_on(mask, x, y, 20, 10, "here") for x, y in outside)


def test_the_far_edge_and_masks_of_another_size():
    corner = rle(box(10, 20, 9, 19, 10, 20))
    assert lies_on(corner, 20, 10, 20, 10, "here") and not lies_on(corner, 18, 10, 20, 10, "here")
    assert lies_on(corner, 190, 90, 200, 100, "here") and not lies_on(corner, 19, 9, 200, 100, "here")


def test_what_says_that_nothing_is_there():
    assert all(map(says_nothing_there, ["There are none.", "there are none", " There  are none.\n", "No tracks available."]))
    assert not any(map(says_nothing_there, ["", "There are 2.", "I see a dog."]))


def test_a_missing_package_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(OLMoEnvironmentError, match=r"matching points with objects needs the package 'scipy': pip install .*\[eval\]"):
        assignment(np.ones((1, 1)))
