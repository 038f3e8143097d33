"""J&F: values by hand, and outlines by their definition."""

import sys
from math import ceil, hypot

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.eval.metrics.segmentation import contour_accuracy, j_and_f, outline, region_similarity
from olmo.exceptions import OLMoEnvironmentError
from tests.eval.metrics.masks import box

H, W = 60, 80  # a diagonal of 100: outlines may be off by ceil(0.8) = 1 pixel
EMPTY = np.zeros((H, W), dtype=bool)
SQUARE = box(H, W, 10, 10, 30, 30)
ALL_OR_NOTHING = [(SQUARE, SQUARE, 1), (EMPTY, EMPTY, 1), (EMPTY, SQUARE, 0), (SQUARE, EMPTY, 0)]
"""Predicted, true, and the score by any measure."""


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        *ALL_OR_NOTHING,
        (box(H, W, 10, 20, 30, 40), SQUARE, 1 / 3),  # half of each is shared: 200 of 600
        (box(H, W, 10, 10, 30, 20), SQUARE, 1 / 2),
        (box(H, W, 40, 40, 50, 50), SQUARE, 0),
    ],
)
def test_region_by_hand(predicted, truth, expected):
    assert region_similarity(predicted, truth) == pytest.approx(expected)
    assert region_similarity(predicted.astype(np.uint8) * 255, truth.astype(np.uint8)) == pytest.approx(expected)


def test_outline_by_hand():
    """A pixel is on the outline if it differs from its right, lower or lower right neighbour."""
    assert outline(box(4, 4, 1, 1, 3, 3)).astype(int).tolist() == [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert not outline(np.ones((4, 4))).any(), "the edge of the picture is no outline"


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        *ALL_OR_NOTHING,
        (box(H, W, 10, 11, 30, 31), SQUARE, 1),  # off by one pixel, which is tolerated
        (box(H, W, 11, 11, 31, 31), SQUARE, 79 / 80),  # and along both axes: of 80 pixels one corner is too far
        (box(H, W, 30, 50, 50, 70), SQUARE, 0),
        (box(H, W, 0, 0, H, 20), box(H, W, 0, 0, H, 40), 0),
        (box(H, W, 0, 10, H, 20), box(H, W, 0, 10, H, 40), 1 / 2),  # of its two vertical sides one is where it should be
    ],
)
def test_contour_by_hand(predicted, truth, expected):
    assert contour_accuracy(predicted, truth) == pytest.approx(expected)


def test_how_far_an_outline_may_be_off():
    """Vertical lines through the whole picture: right or wrong at once."""
    line = box(H, W, 0, 0, H, 40)
    off = {by: contour_accuracy(box(H, W, 0, 0, H, 40 + by), line) for by in (1, 2)}
    assert off == {1: 1, 2: 0}
    assert contour_accuracy(box(H, W, 0, 0, H, 42), line, tolerance=0.011) == 1, "upwards to whole pixels"


def by_definition(predicted: np.ndarray, truth: np.ndarray, tolerance: float) -> float:
    """F with every pixel of one outline compared with every one of the other."""
    ours, theirs = (
        [(i, j) for i in range(m.shape[0]) for j in range(m.shape[1]) if len({m[a, b] for a, b in _corner(m, i, j)}) > 1]
        for m in (predicted, truth)
    )
    if not ours or not theirs:
        return float(bool(ours) == bool(theirs))
    reach = ceil(tolerance * hypot(*truth.shape))

    def share(first, second):
        return sum(any((a - c) ** 2 + (b - d) ** 2 <= reach**2 for c, d in second) for a, b in first) / len(first)

    precision, recall = share(ours, theirs), share(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _corner(mask: np.ndarray, row: int, column: int) -> list[tuple[int, int]]:
    """A pixel and its neighbours to the right and below, as far as the picture goes."""
    return [(a, b) for a in (row, row + 1) for b in (column, column + 1) if a < mask.shape[0] and b < mask.shape[1]]


@given(st.integers(2, 7), st.integers(2, 7), st.sampled_from([0.008, 0.2, 0.4]), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_contour_against_its_definition(height, width, tolerance, density, seed):
    """Seen to fail when reach is measured along rows and columns, or outlines run along the picture's edge."""
    rng = np.random.default_rng(seed)
    predicted, truth = (rng.random((height, width)) < density for _ in range(2))
    assert contour_accuracy(predicted, truth, tolerance) == pytest.approx(by_definition(predicted, truth, tolerance))


def test_objects_and_frames_count_alike():
    truth = np.stack([np.stack([SQUARE, SQUARE]), np.stack([SQUARE, EMPTY])])
    predicted = np.stack([np.stack([SQUARE, EMPTY]), np.stack([box(H, W, 10, 10, 30, 20), EMPTY])])
    found = j_and_f(predicted, truth)
    assert found.j == pytest.approx((1 + 0 + 1 / 2 + 1) / 4)
    assert found.f == pytest.approx((1 + 0 + contour_accuracy(predicted[1, 0], SQUARE) + 1) / 4)
    assert found.j_and_f == pytest.approx((found.j + found.f) / 2)


@pytest.mark.parametrize(("predicted", "truth"), [((2, 4, 4), (3, 4, 4)), ((4, 4), (4, 4)), ((0, 4, 4), (0, 4, 4))])
def test_masks_of_other_shapes_are_refused(predicted, truth):
    with pytest.raises(ValueError, match="masks should have one shape"):
        j_and_f(np.ones(predicted), np.ones(truth))


def test_a_missing_package_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(OLMoEnvironmentError, match="comparing outlines of masks needs the package 'scipy'"):
        contour_accuracy(SQUARE, SQUARE)
