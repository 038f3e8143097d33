"""Means over tasks, McNemar's test and the size of test sets."""

import itertools
import math

import numpy as np
import pytest

from olmo.eval.metrics import METRICS, Metric
from olmo.eval.statistics import average_of_tasks, score
from olmo.eval.statistics.estimates import Sample, estimate, variance
from olmo.eval.statistics.mcnemar import mcnemar
from olmo.eval.statistics.paired import difference_of, pairs_of
from olmo.eval.statistics.pooling import TaskValues, average_of, pool
from olmo.eval.statistics.power import needed_for
from tests.eval.statistics.records import record

SHORT = METRICS["short_answer"]
PLAIN = Metric(SHORT.grade)


def values_of(rng, n: int, name: str) -> TaskValues:
    return TaskValues((rng.random(n) < 0.6).astype(float), [f"{name}{i}" for i in range(n)], ["all"] * n)


def test_every_task_counts_alike_whatever_its_size():
    """A task by the mean of its types, another by all its questions. Seen to fail with the questions of all tasks thrown together."""
    first = [record(i, "a", i < 8) for i in range(10)] + [record(i, "b", i < 12) for i in range(10, 20)]
    first += [record(20, "a", False)]
    second = [record(i, "ab"[i % 2], i < 10, video=100 + i) for i in range(100)]
    found = average_of_tasks([(SHORT, first), (PLAIN, second)])
    expected = (score(SHORT, first)["average"].value + score(PLAIN, second)["all"].value) / 2
    assert (found.tasks, found.n, found.value) == (2, 121, pytest.approx(expected)) and found.low < expected < found.high


def test_the_variance_of_independent_tasks_adds():
    rng = np.random.default_rng(0)
    tasks = [values_of(rng, 300, "x"), values_of(rng, 500, "y")]
    single = [variance(pool([t])[0]) for t in tasks]
    assert variance(pool(tasks)[0]) == pytest.approx(sum(single) / 4, rel=0.01)
    assert average_of(tasks).reliable


def test_tasks_about_the_same_videos_are_not_independent():
    """The same answers under two names of a task are no more evidence than once. Seen to fail with the task as part of a video's name."""
    task = values_of(np.random.default_rng(0), 300, "x")
    once, twice = average_of([task]), average_of([task, task])
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=2e-3)
    renamed = TaskValues(task.values, [f"other {v}" for v in task.videos], task.types)
    apart = average_of([task, renamed])
    assert apart.high - apart.low < 0.8 * (once.high - once.low)


def test_videos_are_drawn_together_only_within_tasks_that_share_some():
    """Tasks 0 and 2 share a video and 2 and 3 another; 1 shares none."""
    names = (["a", "b"], ["c"], ["b", "d"], ["d", "e"])
    sample, blocks = pool([TaskValues(np.ones(len(n)), n, ["all"] * len(n)) for n in names])
    a, b, c, d, e = blocks
    assert a == b == d == e != c and sample.num_videos == 5


def test_joint_resampling_of_shared_videos():
    """Differences that cancel within every video leave nothing to vary, if and only if both tasks get the same draws."""
    rng = np.random.default_rng(0)
    gain = rng.choice([-1.0, 0.0, 1.0], size=300)
    videos = [f"v{i}" for i in range(300)]
    tasks = [TaskValues(gain, videos, ["all"] * 300), TaskValues(-gain, videos, ["all"] * 300)]
    together = difference_of(*pool(tasks))
    assert (together.low, together.high) == pytest.approx((0, 0), abs=1e-12)
    tasks[1] = TaskValues(-gain, [f"w{i}" for i in range(300)], ["all"] * 300)
    assert difference_of(*pool(tasks)).high > 0.05


def test_the_headline_may_be_a_further_quantity():
    metric = Metric(SHORT.grade, more={"f1": lambda r: None if r["example_id"] == "0" else 0.25}, headline="f1")
    records = [record(i, "a", True) for i in range(5)]
    assert average_of_tasks([(metric, records)]).value == 0.25
    assert len(pairs_of(metric, records, records).differences.values) == 4


def test_mcnemar_equals_the_sum_over_all_outcomes():
    """Oracle: every way in which the discordant questions could have fallen. Seen to fail with one tail only."""
    for only_first, only_second in ((0, 5), (3, 4), (2, 9), (4, 8)):
        n = only_first + only_second
        found = mcnemar(*(np.repeat([a, 1.0 - a, 1.0], [only_first, only_second, 7]) for a in (1.0, 0.0)))
        heads = [sum(way) for way in itertools.product((0, 1), repeat=n)]
        exact = np.mean([abs(2 * k - n) >= abs(only_first - only_second) for k in heads])
        assert (found.only_first, found.only_second, found.exact) == (only_first, only_second, pytest.approx(exact))
        assert found.mid == pytest.approx(exact - heads.count(only_first) / len(heads))


def test_mcnemar_of_many_and_of_partly_right_answers():
    first, second = np.repeat([1.0, 0.0], [3000, 3000]), np.repeat([0.0, 1.0], [3000, 3000])
    assert mcnemar(first, second).exact == 1.0
    assert mcnemar(first[:1], first[:1]).exact == 1.0
    assert 0 < mcnemar(first, np.repeat([0.0, 1.0], [2900, 3100])).exact
    assert mcnemar(np.array([0.5]), np.array([1.0])) is None


def test_as_many_questions_as_needed_have_the_power():
    """Simulated: runs that disagree on a fifth of the questions and differ by 2 points, on a test set of the size asked for."""
    rng = np.random.default_rng(0)

    def differences(videos: int) -> Sample:
        chances = np.repeat(rng.choice([0.05, 0.15], size=videos), 3)
        drawn = rng.random(3 * videos)
        return Sample.plain(
            np.where(drawn < chances + 0.01, 1.0, np.where(drawn < 2 * chances, -1.0, 0.0)), np.repeat(np.arange(videos), 3)
        )

    large = differences(20_000)
    needed = needed_for(large, difference=0.02)
    assert needed.questions == pytest.approx(3 * needed.videos, abs=3)
    found = [differences(needed.videos) for _ in range(400)]
    seen = np.mean([s.value() / math.sqrt(variance(s)) > 1.96 for s in found])
    assert 0.72 < seen < 0.88
    assert needed_for(large, difference=0.01).questions == pytest.approx(4 * needed.questions, rel=0.01)
    assert needed_for(Sample.plain(np.zeros(300), np.arange(300))) is None
    assert estimate(large).value == pytest.approx(0.02, abs=0.01)
