"""Intervals of means: where the formulas are known they must give these, elsewhere slow sums over pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.statistics.clusters import cluster_of, codes
from olmo.eval.statistics.estimates import Sample, correlation, degrees_of_freedom, deviations, equal_videos, estimate, evenness, variance
from olmo.eval.statistics.estimates import wilson_interval as wilson
from olmo.eval.statistics.quantiles import Z95, student95


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_the_equation_it_is_defined_by(pair):
    """Oracle: the ends p satisfy |k/n - p| = z sqrt(p (1 - p) / n). Seen to fail with z² missing from the centre."""
    k, n = pair
    low, high = wilson(k / n, n, Z95)
    assert 0 <= low <= k / n <= high <= 1
    for p in (low, high):
        assert math.isclose(abs(k / n - p), Z95 * math.sqrt(p * (1 - p) / n), abs_tol=1e-9)


def test_wilson_interval_of_known_proportions():
    assert wilson(0, 10, Z95)[0] == 0.0 and wilson(0, 10, Z95)[1] == pytest.approx(0.2775, abs=1e-4)
    assert wilson(81 / 263, 263, Z95) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize(("df", "expected"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (99, 1.984), (1e9, Z95)])
def test_students_points_are_those_of_tables(df, expected):
    assert student95(df) == pytest.approx(expected, rel=0.01 if df < 5 else 0.0015)


def test_one_question_per_video_gives_the_textbook_interval():
    values = np.arange(300) % 3 == 0
    found = estimate(Sample.plain(values.astype(float), np.arange(300)))
    assert (found.low, found.high) == pytest.approx(wilson(1 / 3, 299, student95(299)))


def test_equal_answers_to_a_video_are_one_answer():
    """Ten questions about each video, all alike, are as uncertain as one each. Seen to fail when videos are ignored."""
    right = (np.arange(150) % 3 == 0).astype(float)
    alone = estimate(Sample.plain(right, np.arange(150)))
    repeated = estimate(Sample.plain(np.repeat(right, 10), np.repeat(np.arange(150), 10)))
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high), rel=1e-3)
    scattered = estimate(Sample.plain(np.repeat(right, 10), np.arange(1500)))
    assert scattered.high - scattered.low < 0.5 * (alone.high - alone.low)


def test_variance_equals_a_sum_over_pairs_of_questions():
    """Oracle: loops over all pairs of questions about one video. Seen to fail with the pairs weighted by the size of their video."""
    rng = np.random.default_rng(0)
    videos, strata = np.sort(rng.integers(12, size=60)), rng.integers(2, size=60)
    sample = Sample((rng.random(60) < 0.4).astype(float), codes(videos.tolist()), strata, np.array([0.7, 0.3]))
    errors, weights = deviations(sample), sample.weights()
    spread = np.array([math.sqrt(np.mean(errors[strata == s] ** 2)) for s in strata])
    pairs = [(i, j) for i in range(60) for j in range(60) if i != j and videos[i] == videos[j]]
    sizes = np.bincount(sample.videos)
    several = sum(m for m in sizes if m > 1)
    alike = sum(errors[i] * errors[j] / (spread[i] * spread[j]) / (sizes[sample.videos[i]] - 1) for i, j in pairs) / several
    assert correlation(sample, errors, spread) == pytest.approx(alike)
    robust = sum((weights * errors)[i] ** 2 for i in range(60)) + sum((weights * errors)[i] * (weights * errors)[j] for i, j in pairs)
    model = sum((weights * spread)[i] ** 2 for i in range(60)) + alike * sum(
        weights[i] * spread[i] * weights[j] * spread[j] for i, j in pairs
    )
    assert variance(sample) == pytest.approx(max(robust, model))


def test_nothing_varies():
    """All right: as uncertain as if every video were one question; a single video tells next to nothing."""
    ten = estimate(Sample.plain(np.ones(50), np.repeat(np.arange(10), 5)))
    assert (ten.value, ten.high, ten.reliable) == (1.0, 1.0, False) and ten.low == pytest.approx(wilson(1, 10, student95(9))[0])
    one = estimate(Sample.plain(np.ones(50), np.zeros(50, dtype=int)))
    assert one.low < 0.05
    mixed = estimate(Sample.plain(np.array([0.0, 1.0] * 25), np.zeros(50, dtype=int)))
    assert mixed.low < 0.05 and mixed.high > 0.95


def test_values_outside_of_0_and_1_get_a_symmetric_interval():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = estimate(Sample.plain(values, np.arange(400)))
    half = student95(399) * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half)) and found.reliable
    one = estimate(Sample.plain(values[:5], np.zeros(5, dtype=int)))
    assert (one.low, one.high, one.reliable) == (values[:5].min(), values[:5].max(), False)


def test_a_rare_type_decides_how_well_an_average_is_known():
    """Ten questions of one type beside 500 of another: the degrees of freedom are close to nine, not to 509."""
    strata = np.repeat([0, 1], [500, 10])
    sample = Sample.balanced((np.arange(510) % 2).astype(float), np.arange(510), strata)
    found, degrees = estimate(sample), degrees_of_freedom(sample)
    assert 9 < degrees < 10
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 0.25 / variance(sample), student95(degrees)))
    assert degrees_of_freedom(Sample.plain(sample.values, sample.videos)) == pytest.approx(509)


def test_a_type_of_one_video_does_not_look_certain():
    """One question more, of a type of its own: seen to fail (a narrower interval) when its only value is its mean."""
    values = (np.arange(200) % 2).astype(float)
    strata = np.repeat([0, 1], [199, 1])
    found = estimate(Sample.balanced(values, np.arange(200), strata))
    assert found.high - found.low > 0.4


def test_equal_videos_and_clusters():
    assert equal_videos(Sample.plain(np.ones(12), np.repeat(np.arange(4), 3))) == pytest.approx(4)
    assert equal_videos(Sample.plain(np.ones(12), np.array([0] * 9 + [1, 2, 3]))) < 2
    assert [cluster_of(r) for r in ({"video": "a", "example_id": "1"}, {"video": "", "example_id": "2"})] == ["a", "2"]
    assert codes("xyxz").tolist() == [0, 1, 0, 2]


def test_evenness_by_hand():
    """Videos of 1, 1 and 4 questions count as 36 / 18 = 2 of 3; a second stratum, of two equal videos, as all of them."""
    one = Sample.plain(np.zeros(6), np.array([0, 1, 2, 2, 2, 2]))
    assert evenness(one) == pytest.approx(2 / 3)
    both = Sample(np.zeros(8), np.array([0, 1, 2, 2, 2, 2, 0, 3]), np.array([0] * 6 + [1] * 2), np.array([0.25, 0.75]))
    assert evenness(both) == pytest.approx(0.25 * 2 / 3 + 0.75)


def test_very_uneven_videos_give_no_reliable_interval():
    values = np.tile([1.0, 0.0], 500)
    assert estimate(Sample.plain(values, np.arange(1000) // 4)).reliable
    crowded = np.concatenate([np.arange(200), np.repeat(np.arange(200, 220), 40)])  # 20 videos hold four fifths of the questions
    assert not estimate(Sample.plain(values, crowded)).reliable
