"""Counts in answers, and how near they are, beside the reference scores of tests/goldens/test_golden_scores.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics.counting import METRICS, count_of, is_close, published_count
from olmo.eval.metrics.metric import Grade
from olmo.eval.questions import split_example
from olmo.exceptions import OLMoDataError
from tests.data.families.conftest import miniature  # noqa: F401
from tests.data.families.fixtures import example
from tests.data.families.test_molmo2_benchmarks import counts

VIDEO_COUNT = METRICS["video_count"]


@pytest.mark.parametrize(
    ("prediction", "count"),
    [
        *(
            (text, 5)
            for text in ("5", " 5.", "five", "Five.", "a total of 5 cups", "a total of five", "There are 5 cups.", "I see 5 cups.")
        ),
        *((text, 5) for text in ("The total number of the 3 red cups is: 5.", "It shows 5 cups, yes 5")),
        ('Counting the <points coords="0.5 1 100 205 2 300 400">cup</points> shows a total of 5.', 5),
        ('<points coords="0.5 1 100 205">cup</points> 5', 5),
        *((text, 0) for text in ("0", "none", "None.", "There are none.", "There are no cups.", "there was no cup")),
        *((text, None) for text in ("", "many", "3 or 4", "There are no more than three", "between 2-5", "at 3.5 s", "-5", "9" * 5000)),
    ],
)
def test_the_count_of_an_answer(prediction, count):
    """Seen to fail with the points of the answer left in the text."""
    assert count_of(prediction) == count


@given(st.text("0123456789 .,-<>aresnotlf:", max_size=40))
def test_any_text_has_a_count_or_none(prediction):
    assert all(count is None or count >= 0 for count in (count_of(prediction), published_count(prediction)))


@pytest.mark.parametrize(("truth", "margin"), [(0, 1), (19, 1), (20, 2), (39, 2), (40, 3), (100, 6)])
def test_counts_that_are_close(truth, margin):
    assert is_close(truth + margin, truth) and is_close(truth - margin, truth) and not is_close(truth + margin + 1, truth)
    assert not is_close(None, truth)


@pytest.mark.parametrize(("count", "name"), [(0, "0_5"), (4, "0_5"), (5, "5_10"), (24, "20_25"), (25, "25_up"), (400, "25_up")])
def test_an_answer_counts_in_its_range_and_subset(count, name):
    record = {"example_id": "1", "prediction": str(count + 1), "metadata": {"count": count, "subset": "action/event"}}
    assert VIDEO_COUNT.groups(record) == (f"correct_{name}", "acc_action/event")
    assert VIDEO_COUNT.grade(record) == Grade(0.0) and VIDEO_COUNT.published(record) == 0.0
    assert {key: rule(record) for key, rule in VIDEO_COUNT.more.items()} == {"close": 1.0, "valid": 1.0}


def test_words_count_here_and_not_in_the_published_evaluator():
    record = {"example_id": "1", "prediction": "There are five.", "metadata": {"count": 5, "subset": "object"}}
    assert VIDEO_COUNT.grade(record) == Grade(1.0) and VIDEO_COUNT.published(record) == 0.0
    silent = record | {"prediction": ""}
    assert VIDEO_COUNT.grade(silent) == Grade(0.0, parsed=False) and VIDEO_COUNT.more["valid"](silent) == 0.0


def test_questions_of_the_benchmark(miniature):  # noqa: F811
    """Their type is the range of their count, so that the average over types is the one over ranges."""
    counts(miniature("Molmo2-VideoCountEval"))
    asked = example("molmo2_video_count_eval", "val")
    record = split_example(asked, 0)[0].record | {"metadata": asked["metadata"], "prediction": "2"}
    assert record["question_type"] == "0_5" and VIDEO_COUNT.groups(record) == ("correct_0_5", "acc_animal")
    assert VIDEO_COUNT.grade(record) == Grade(1.0)
    with pytest.raises(OLMoDataError, match="question abc_0: its 'metadata' has no 'count', which its metric needs, but subset"):
        VIDEO_COUNT.grade(record | {"metadata": {"subset": "animal"}})
