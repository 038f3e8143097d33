"""Scores from saved judgements."""

import json

import pytest

from olmo.eval.metrics.captions import METRICS, caption_scores, harmonic, share_stated, statements
from olmo.eval.metrics.metric import Grade
from olmo.exceptions import OLMoDataError

CAPTIONS, MLVU = METRICS["captions"], METRICS["mlvu_gen"]


def statement(kind: str, stated: bool | None, category: str = "action") -> dict:
    return {"kind": kind, "category": category, "stated": stated}


def caption(*judged: dict) -> dict:
    """As it comes back from a prediction file."""
    return json.loads(json.dumps({"example_id": "v1_0", "metadata": {}, "judgement": {"statements": judged}}))


GOOD = caption(
    statement("recall", True),
    statement("recall", True, "object"),
    statement("recall", False, "object"),
    statement("recall", True, "object"),
    statement("recall", None, "object"),
    statement("consistency", True),
    statement("consistency", False, "object"),
)
"""Recall 3 of 4, consistency 1 of 2, one line that cannot be read."""
BAD = caption(statement("recall", False), statement("recall", True), statement("consistency", False), statement("consistency", None))
"""Recall 1 of 2, consistency 0 of 1."""
SILENT = caption(statement("recall", False))
"""Nothing was said."""


def test_one_caption():
    assert CAPTIONS.more["recall"](GOOD) == 3 / 4 and CAPTIONS.more["consistency"](GOOD) == 1 / 2
    assert CAPTIONS.grade(GOOD) == Grade(pytest.approx(2 * 0.75 * 0.5 / 1.25))
    assert CAPTIONS.more["unread_statements"](GOOD) == 1
    assert CAPTIONS.grade(BAD) == Grade(0.0)


def test_nothing_said_is_wrong_but_graded():
    assert CAPTIONS.grade(SILENT) == Grade(0.0) and CAPTIONS.more["consistency"](SILENT) is None


@pytest.mark.parametrize(
    "record", [{"example_id": "a"}, {"example_id": "a", "judgement": None}, caption(), caption(statement("recall", None))]
)
def test_what_was_not_judged_is_not_graded(record):
    assert CAPTIONS.grade(record) == Grade(0.0, parsed=False)
    assert CAPTIONS.more["recall"](record) is None and CAPTIONS.more["consistency"](record) is None


def test_what_was_not_judged_has_no_lines():
    assert CAPTIONS.more["unread_statements"]({"example_id": "a"}) is None


def test_all_captions():
    """F1 is that of the two means, not the mean of the captions' F1 (which is lower here)."""
    scores = caption_scores([GOOD, BAD, SILENT, {"example_id": "unjudged"}])
    recall, consistency = (3 / 4 + 1 / 2 + 0) / 3, (1 / 2 + 0) / 2
    assert (scores.videos, scores.unread) == (3, 2)
    assert (scores.recall, scores.consistency) == pytest.approx((recall, consistency))
    assert scores.f1 == pytest.approx(2 * recall * consistency / (recall + consistency))
    assert scores.f1 > sum(CAPTIONS.grade(r).value for r in (GOOD, BAD, SILENT)) / 3
    assert scores.by_category == {
        "action": {"recall": pytest.approx((1 + 1 / 2 + 0) / 3), "consistency": pytest.approx((1 + 0) / 2)},
        "object": {"recall": pytest.approx(2 / 3), "consistency": 0.0},
    }


def test_no_captions():
    scores = caption_scores([{"example_id": "unjudged"}])
    assert (scores.videos, scores.recall, scores.consistency, scores.f1, scores.by_category) == (0, None, None, 0.0, {})


@pytest.mark.parametrize(("recall", "consistency", "f1"), [(1, 1, 1), (0.5, 1, 2 / 3), (0, 1, 0), (0, 0, 0), (None, 1, 0), (1, None, 0)])
def test_harmonic(recall, consistency, f1):
    assert harmonic(recall, consistency) == pytest.approx(f1)


def test_share_of_a_category():
    judged = statements(GOOD)
    assert share_stated(judged, "recall", "object") == 2 / 3 and share_stated(judged, "recall", "colour") is None


@pytest.mark.parametrize(
    ("judged", "sentence"),
    [
        (
            {"statements": [{"kind": "style", "stated": True}]},
            "judgement, statements[0]: 'kind' should be recall or consistency, but is 'style'",
        ),
        ({"statements": [{"kind": "recall"}]}, "judgement, statements[0]: 'stated' is missing"),
        ({"statements": [{"kind": "recall", "stated": "Stated"}]}, "judgement, statements[0]: 'stated' should be true or false"),
        ({"lines": []}, "judgement: the key 'statements' is missing; there is lines"),
        ([], "'judgement' should be a mapping"),
    ],
)
def test_a_judgement_of_another_form_is_named(judged, sentence):
    with pytest.raises(OLMoDataError) as err:
        CAPTIONS.grade({"example_id": "v1_0", "judgement": judged})
    assert str(err.value).startswith("prediction of example v1_0") and sentence in str(err.value)


# -- MLVU


def answer(task_type: str, **scores) -> dict:
    return {"example_id": "9_summary_0", "metadata": {"task_type": task_type}, "judgement": scores}


SCENE, SUMMARY = answer("subPlot", accuracy=4, relevance=5), answer("summary", completeness=2, reliability=3)


def test_mlvu():
    assert MLVU.grade(SCENE) == Grade(0.9) and MLVU.grade(SUMMARY) == Grade(0.5)
    assert MLVU.headline == "average"
    assert {name: part(SCENE) for name, part in MLVU.more.items()} == {
        "sub_scene_accuracy": 4,
        "sub_scene_relevance": 5,
        "sub_scene_total": 9,
        "summary_completeness": None,
        "summary_reliability": None,
        "summary_total": None,
    }
    assert {name: part(SUMMARY) for name, part in MLVU.more.items() if part(SUMMARY)} == {
        "summary_completeness": 2,
        "summary_reliability": 3,
        "summary_total": 5,
    }


@pytest.mark.parametrize("record", [answer("summary"), answer("summary", completeness=2), answer("summary") | {"judgement": None}])
def test_mlvu_not_judged(record):
    assert MLVU.grade(record) == Grade(0.0, parsed=False) and MLVU.more["summary_total"](record) is None


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (
            answer("count", accuracy=1),
            "question 9_summary_0: metadata 'task_type' should be one of sub_scene, subPlot, 8_sub_scene",
        ),
        (answer("summary", completeness=6, reliability=3), "judgement: 'completeness' should be a score from 1 to 5, but is 6"),
        (answer("summary", completeness="good", reliability=3), "judgement: 'completeness' should be a number"),
    ],
)
def test_mlvu_mistakes_are_named(record, sentence):
    with pytest.raises(OLMoDataError) as err:
        MLVU.grade(record)
    assert "9_summary_0" in str(err.value) and sentence in str(err.value)
