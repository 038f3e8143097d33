"""The pruning budget against an oracle that rounds by hand and drops cells one by one."""

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from olmo.budget import cells_within_budget, frames_within_budget, pruning_budget


def fp32(value: float) -> float:
    """The fp32 number nearest to a float64, by writing and reading four bytes."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def slow_budget(num_frames: int, cells: int, topk: float, prune_from_frame: int) -> int:
    """float64 product, rounded to fp32; times the frames (exact in float64), rounded to fp32; then whole cells leave one by
    one, from frame 1 on, for as long as there is room for another."""
    allowed = fp32(fp32(cells * topk) * float(num_frames - prune_from_frame))
    dropped = 0
    for _ in range(cells * (num_frames - 1)):
        if dropped + 1 > allowed:
            break
        dropped += 1
    return dropped


@settings(max_examples=400)
@given(
    st.integers(1, 400),
    st.integers(1, 100),
    st.floats(0, 1, exclude_max=True) | st.integers(0, 99).map(lambda n: n / 100),
    st.integers(0, 4),
)
@example(100, 81, 0.09, 0)
@example(100, 81, 0.23, 0)
@example(165, 81, 0.6, 0)
@example(330, 81, 0.3, 0)
@example(30, 81, 0.7, 0)
@example(1, 81, 0.5, 0)
@example(2, 81, 0.99, 0)
@example(2, 81, 0.5, 4)
def test_budget_equals_cells_dropped_one_by_one(num_frames, cells, topk, prune_from_frame):
    """Seen to fail with either product left in float64, with rounding instead of truncation, without the cap of the first
    frame, and without the floor at zero."""
    assert pruning_budget(num_frames, cells, topk, prune_from_frame) == slow_budget(num_frames, cells, topk, prune_from_frame)


@pytest.mark.parametrize(
    ("num_frames", "topk", "budget"),
    [
        *[(165, 0.6, 8018), (330, 0.3, 8018), (30, 0.7, 1701), (100, 0.03, 243), (100, 0.09, 729), (100, 0.23, 1862)],
        *[(64, 0.5, 2592), (1, 0.5, 0), (2, 0.9, 81), (8, 0.0, 0)],
    ],
)
def test_known_budgets(num_frames, topk, budget):
    """Of 81 cells. Among the first six every other order of the roundings is one off somewhere: seen to fail with the first,
    the second or both products in float64, with one rounding at the end, and with fp32 from the start."""
    assert pruning_budget(num_frames, 81, topk) == budget


@given(st.integers(1, 400), st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.integers(0, 3))
def test_frames_within_budget(num_frames, cells, topk, prune_from_frame):
    """The most whole frames that have no more cells than pruning leaves. Seen to fail with rounding to the nearest."""
    left = num_frames * cells - pruning_budget(num_frames, cells, topk, prune_from_frame)
    found = frames_within_budget(num_frames, cells, topk, prune_from_frame)
    assert 1 <= found <= num_frames and found * cells <= left < (found + 1) * cells


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 99))
@example((4, 5), 90)
def test_cells_within_budget(shape, percent):
    """No more cells than allowed, and no frame of fair proportions that fits has more. Seen to fail without the allowance for
    rounding of 1 - topk."""
    rows, columns = cells_within_budget(shape, percent / 100)
    assert 1 <= rows <= shape[0] and 1 <= columns <= shape[1]
    limit = max(1, shape[0] * shape[1] * (100 - percent) // 100)
    fair = [
        r * c
        for r in range(1, shape[0] + 1)
        for c in range(1, shape[1] + 1)
        if r * c <= limit and max(r * shape[1], c * shape[0]) <= 2 * min(r * shape[1], c * shape[0])
    ]
    assert rows * columns <= limit and (not fair or rows * columns == max(fair))


@pytest.mark.parametrize(
    ("shape", "topk", "found"),
    [
        *[((9, 9), 0.0, (9, 9)), ((9, 9), 0.3, (7, 8)), ((9, 9), 0.5, (5, 8)), ((9, 9), 0.6, (4, 8)), ((9, 9), 0.7, (4, 6))],
        *[((9, 9), 0.8, (4, 4)), ((9, 9), 0.9, (2, 4)), ((3, 3), 0.5, (2, 2)), ((3, 3), 0.95, (1, 1)), ((1, 5), 0.8, (1, 1))],
    ],
)
def test_known_resolutions(shape, topk, found):
    """Wide rather than tall, and no strips: 3 x 9 has more cells than 5 x 5, but stands for another picture."""
    assert cells_within_budget(shape, topk) == found
