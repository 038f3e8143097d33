"""Metrics against slow, obvious computations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics import paired_difference, same_short_answer, short_answer, wilson_interval
from olmo.eval.metrics.accuracy import type_averages
from olmo.eval.metrics.intervals import Z95, cluster_weights


def record(example: int, kind: str, right: bool, *, video: int | None = None, chance: float | None = 0.25, answer: str = "red"):
    return {
        "example_id": str(example),
        "video": f"{example if video is None else video}.mp4",
        "question_type": kind,
        "answer": answer,
        "prediction": answer if right else "nonsense",
        "chance": chance,
    }


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_the_equation_it_is_defined_by(pair):
    """Oracle: the ends p satisfy |k/n - p| = z sqrt(p (1 - p) / n). Seen to fail with z² missing from the centre."""
    k, n = pair
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for p in (low, high):
        assert math.isclose(abs(k / n - p), Z95 * math.sqrt(p * (1 - p) / n), abs_tol=1e-9)


def test_wilson_interval_of_known_proportions():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(3, 2)


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("red", "red", True),
        (" Red.\n", "red", True),
        ("top  left", "top left", True),
        ("reddish", "red", False),
        ("", "red", False),
        (".", "", False),
        ("two", ["2", "two"], True),
        ("three", ["2", "two"], False),
    ],
)
def test_short_answers(prediction, answer, right):
    assert same_short_answer(prediction, answer) is right


def test_scores_by_type_all_and_average():
    records = [record(i, "color", i < 6, chance=1 / 6) for i in range(8)] + [record(i, "count", i < 9, chance=1 / 3) for i in range(8, 10)]
    scores = short_answer(records)
    assert list(scores) == ["color", "count", "all", "average"]
    assert (scores["color"].n, scores["color"].correct, scores["color"].value) == (8, 6, 0.75)
    assert scores["count"].value == 0.5 and scores["count"].chance == pytest.approx(1 / 3)
    assert scores["all"].value == pytest.approx(0.7) and scores["all"].chance == pytest.approx((8 / 6 + 2 / 3) / 10)
    assert scores["average"].value == pytest.approx(0.625) and scores["average"].chance == pytest.approx(0.25)
    assert (scores["color"].low, scores["color"].high) == wilson_interval(6, 8)


def test_unreadable_answers_stay_in_the_denominator():
    """Seen to fail when records with an empty prediction are filtered out before counting."""
    records = [record(0, "color", True), record(1, "color", True) | {"prediction": ""}]
    assert (short_answer(records)["color"].n, short_answer(records)["color"].value) == (2, 0.5)


def test_constant_answer_is_the_most_frequent_one_of_each_type():
    answers = ["left", "left", "Right", "right", "right"]
    scores = short_answer([record(i, "direction", True, answer=a) for i, a in enumerate(answers)])
    assert scores["direction"].constant == scores["all"].constant == pytest.approx(0.6)


def test_chance_is_unknown_when_any_record_does_not_tell():
    scores = short_answer([record(0, "a", True, chance=None), record(1, "b", True)])
    assert (scores["a"].chance, scores["b"].chance, scores["average"].chance) == (None, 0.25, None)


def test_type_averages_equal_a_loop_over_resamples():
    """Oracle: draw the records one by one as often as their weight says. Seen to fail with `right` left unweighted."""
    rng = np.random.default_rng(0)
    right, types = rng.random(30) < 0.5, np.array(["a", "b", "c"])[rng.integers(3, size=30)]
    weights = cluster_weights([f"{i // 3}" for i in range(30)], samples=20, seed=1)
    fast = type_averages(right, types, ["a", "b", "c"], weights)
    for row, value in zip(weights, fast, strict=True):
        drawn = {t: [right[i] for i in range(30) for _ in range(row[i]) if types[i] == t] for t in "abc"}
        assert value == pytest.approx(np.mean([np.mean(v) for v in drawn.values() if v]))


def test_cluster_weights_draw_whole_videos():
    weights = cluster_weights(["x", "x", "y", "z", "z", "z"], samples=50, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3:5] == weights[:, 5:]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()


def test_interval_of_the_average_knows_that_questions_share_videos():
    """Ten questions about one video are no more evidence than one: seen to fail when single records are resampled."""
    rng = np.random.default_rng(0)
    outcome = rng.random(40) < 0.5
    alone = [record(i, "a", outcome[i]) for i in range(40)]
    repeated = [record(10 * i + k, "a", outcome[i], video=i) for i in range(40) for k in range(10)]
    wide, also_wide = (short_answer(r)["average"] for r in (alone, repeated))
    assert also_wide.high - also_wide.low == pytest.approx(wide.high - wide.low, rel=0.1)
    assert short_answer(repeated)["all"].high - short_answer(repeated)["all"].low < 0.5 * (wide.high - wide.low)


def test_paired_difference_uses_the_pairing():
    """Two models that differ in 1 of 50 answers: the difference is known far better than either accuracy."""
    first = [record(i, "ab"[i % 2], i % 3 > 0) for i in range(50)]
    second = [r if i else record(0, "a", True) for i, r in enumerate(first)]
    delta = paired_difference(first, second, lambda r: same_short_answer(r["prediction"], r["answer"]))
    assert delta.n == 50 and delta.value == pytest.approx(0.5 * (1 / 25))
    assert 0 <= delta.low <= delta.value <= delta.high < 0.1
    with pytest.raises(ValueError, match="share no question"):
        paired_difference(first, [record(99, "a", True)], lambda r: True)


def test_no_records_give_no_scores():
    assert short_answer([]) == {}
