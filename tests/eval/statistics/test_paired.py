"""Two runs on the same questions."""

import numpy as np
import pytest

from olmo.eval.metrics import METRICS
from olmo.eval.statistics import paired_difference
from olmo.eval.statistics.estimates import Sample
from olmo.eval.statistics.paired import resampled
from tests.eval.statistics.records import record

SHORT = METRICS["short_answer"]


def test_paired_difference_uses_the_pairing():
    """Two models that differ in 1 of 50 answers: the difference is known far better than either accuracy."""
    first = [record(i, "ab"[i % 2], i % 3 > 0) for i in range(50)]
    second = [r if i else record(0, "a", True) for i, r in enumerate(first)]
    delta = paired_difference(SHORT, first, second)
    assert (delta.n, delta.videos, delta.reliable) == (50, 50, False) and delta.value == pytest.approx(0.5 * (1 / 25))
    assert 0 <= delta.low <= delta.value <= delta.high < 0.1
    with pytest.raises(ValueError, match="share no question"):
        paired_difference(SHORT, first, [record(99, "a", True)])


def test_resampled_means_equal_a_loop_over_the_drawn_videos():
    """Oracle: the same draws, every question listed as often as its video was drawn. Seen to fail with the questions of a video counted
    once however often it was drawn, and with blocks drawn together."""
    rng = np.random.default_rng(0)
    values, strata, videos = rng.random(40), rng.integers(3, size=40), np.arange(40) // 4
    blocks = np.array([0] * 6 + [1] * 4)
    sample = Sample(values, videos, strata, np.array([0.5, 0.3, 0.2]))
    draws = np.random.default_rng(7)
    fast = resampled(sample, blocks, samples=20, seed=7)
    drawn = np.concatenate([draws.multinomial(6, np.full(6, 1 / 6), size=20), draws.multinomial(4, np.full(4, 1 / 4), size=20)], axis=1)
    for times, value in zip(drawn, fast, strict=True):
        listed = {s: [values[i] for i in range(40) for _ in range(times[videos[i]]) if strata[i] == s] for s in range(3)}
        present = {s: share for s, share in enumerate(sample.shares) if listed[s]}
        assert value == pytest.approx(sum(share * np.mean(listed[s]) for s, share in present.items()) / sum(present.values()))
