"""Scores of a task: which there are, what is counted in them, and what stands beside the values."""

import time

import numpy as np
import pytest

from olmo.eval.metrics import METRICS, Grade, Metric
from olmo.eval.statistics import UNRELIABLE, Score, format_table, score
from olmo.exceptions import OLMoDataError
from tests.eval.statistics.records import record

SHORT = METRICS["short_answer"]


def worth(r) -> float:
    return float(r["prediction"])


def test_scores_by_type_all_and_average():
    records = [record(i, "color", i < 6, chance=1 / 6) for i in range(8)] + [record(i, "count", i < 9, chance=1 / 3) for i in range(8, 10)]
    scores = score(SHORT, records)
    assert list(scores) == ["color", "count", "all", "average"]
    assert (scores["color"].n, scores["color"].correct, scores["color"].value) == (8, 6, 0.75)
    assert scores["count"].value == 0.5 and scores["count"].chance == pytest.approx(1 / 3)
    assert scores["all"].value == pytest.approx(0.7) and scores["all"].chance == pytest.approx((8 / 6 + 2 / 3) / 10)
    assert scores["average"].value == pytest.approx(0.625) and scores["average"].chance == pytest.approx(0.25)


def test_unparsed_answers_stay_in_the_denominator():
    """Seen to fail when records with an empty prediction are filtered out before counting."""
    records = [record(0, "color", True), record(1, "color", True) | {"prediction": ""}]
    found = score(SHORT, records)["color"]
    assert (found.n, found.value, found.unparsed) == (2, 0.5, 1)


def test_constant_answer_is_the_most_frequent_one_of_each_type():
    answers = ["left", "left", "Right", "right", "right"]
    records = [record(i, "direction", True, answer=a) for i, a in enumerate(answers)]
    assert score(SHORT, records)["direction"].constant == score(SHORT, records)["all"].constant == pytest.approx(0.6)
    records += [record(i, "colour", True, answer="red") for i in range(5, 10)]
    assert score(SHORT, records)["all"].constant == score(SHORT, records)["average"].constant == pytest.approx(0.8)


def test_the_constant_answer_to_options_is_a_letter():
    """The right option is the first three times, under three texts. Seen to fail when the texts are counted."""
    options = [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]
    records = [{"options": o, "answer_idx": int(k == 3), "answer": o[int(k == 3)]} for k, o in enumerate(options)]
    records = [{"example_id": str(k), "prediction": "A", **r} for k, r in enumerate(records)]
    assert score(METRICS["option_or_answer"], records)["all"].constant == 0.75


def test_chance_is_unknown_when_any_record_does_not_tell():
    scores = score(SHORT, [record(0, "a", True, chance=None), record(1, "b", True)])
    assert (scores["a"].chance, scores["b"].chance, scores["average"].chance) == (None, 0.25, None)


def test_no_records_give_no_scores():
    assert score(SHORT, []) == {} and format_table({}) == []


def test_several_groups_and_further_quantities():
    """An answer counts in each of its groups once; a quantity that it does not have is not counted."""
    metric = Metric(
        grade=lambda r: Grade(worth(r)),
        groups=lambda r: ("odd", "late", "odd") if int(r["example_id"]) % 2 else ("late",),
        more={"twice": lambda r: None if r["example_id"] == "0" else 2 * worth(r), "never": lambda r: None},
    )
    records = [{"example_id": str(i), "prediction": str(p), "question_type": "t"} for i, p in enumerate((0.5, 0.25, 0.0, 1.0))]
    scores = score(metric, records)
    assert list(scores) == ["late", "odd", "all", "average", "twice", "twice_late", "twice_odd"]
    assert (scores["odd"].n, scores["odd"].value, scores["all"].value) == (2, 0.625, 0.4375)
    assert (scores["twice"].n, scores["twice"].value, scores["twice_odd"].value) == (3, pytest.approx(2.5 / 3), 1.25)
    assert scores["all"].constant is None, "no constant answer where an answer may be partly right"


@pytest.fixture
def lenient() -> Metric:
    """A published evaluator that leaves out what it cannot read and takes a half for right."""

    def published(r):
        return None if not r["prediction"] else float(r["prediction"] in ("red", "reddish"))

    return Metric(SHORT.grade, SHORT.groups, published=published)


def test_the_published_value_stands_beside_ours_and_with_compat_in_its_place(lenient):
    said = ("red", "reddish", "", "blue")
    records = [record(i, "ab"[i // 2], True) | {"prediction": p} for i, p in enumerate(said)]
    ours, theirs = score(lenient, records), score(lenient, records, compat=True)
    assert (ours["all"].value, ours["all"].published, ours["all"].default) == (0.25, pytest.approx(2 / 3), None)
    assert (theirs["all"].value, theirs["all"].published, theirs["all"].default) == (pytest.approx(2 / 3), None, 0.25)
    assert (ours["all"].n, theirs["all"].n, theirs["all"].correct, theirs["all"].unparsed) == (4, 3, 2, 1)
    assert (theirs["average"].value, theirs["average"].default) == (0.5, 0.25)
    assert (ours["b"].value, ours["b"].published) == (0, None), "the same number is not told twice"
    assert "published evaluator 66.7 %" in format_table(ours)[2] and "25.0 % by default" in format_table(theirs)[2]


def test_with_compat_a_group_that_the_published_evaluator_leaves_out_has_no_score(lenient):
    records = [record(0, "a", True), record(1, "b", True) | {"prediction": ""}]
    assert list(score(lenient, records, compat=True)) == ["a", "all", "average"]


def test_tables_say_what_cannot_be_trusted():
    """Seen to fail with the number of videos not looked at."""
    enough = [record(i, "a", i % 2 == 0, video=i % 100) for i in range(200)]
    assert [UNRELIABLE in line for line in format_table(score(SHORT, enough))] == [False] * 3
    for few in (enough[:199], [r | {"video": f"{i % 99}"} for i, r in enumerate(enough)]):
        assert [UNRELIABLE in line for line in format_table(score(SHORT, few))] == [True] * 3
    for share in (0.09, 0.96):
        assert not score(SHORT, [record(i, "a", i < 1000 * share) for i in range(1000)])["all"].reliable
    (line, *_) = format_table(score(SHORT, [record(0, "a", True), record(1, "a", False) | {"prediction": ""}]))
    assert "50.0 %" in line and "n     2" in line and "1 unparsed" in line and "chance  25.0 %" in line


def test_crowded_questions_are_not_reliable():
    """A hundred videos, but ten of them hold most questions: nine in ten answers right rest on a handful of videos."""
    videos = [v for v in range(100) for _ in range(30 if v < 10 else 1)]
    records = [record(i, "a", i % 10 > 0, video=v) for i, v in enumerate(videos)]
    assert not score(SHORT, records)["all"].reliable
    assert score(SHORT, [r | {"video": str(i % 100)} for i, r in enumerate(records)])["all"].reliable


def test_scores_survive_a_file():
    scores = score(SHORT, [record(i, "a", True) for i in range(3)])
    assert Score.from_dict(scores["all"].asdict()) == scores["all"]
    with pytest.raises(OLMoDataError, match="lacks reliable, unparsed.*older version"):
        Score.from_dict({k: v for k, v in scores["all"].asdict().items() if k not in ("reliable", "unparsed")})


def test_ten_thousand_questions_take_no_time():
    rng = np.random.default_rng(0)
    records = [record(i, f"t{i % 30}", bool(rng.random() < 0.5), video=i // 4) for i in range(10_000)]
    score(SHORT, records[:10])
    start = time.process_time()
    score(SHORT, records)
    assert time.process_time() - start < 1.5, "31 groups of up to 10,000 questions"
