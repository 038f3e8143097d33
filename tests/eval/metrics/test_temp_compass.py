"""TempCompass: what rules can tell, and what is left to a judge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics.metric import Grade
from olmo.eval.metrics.multiple_choice import METRICS
from olmo.eval.metrics.temp_compass import published_rule, yes_or_no
from olmo.eval.questions import split_example
from olmo.exceptions import OLMoDataError
from tests.data.families.conftest import miniature  # noqa: F401
from tests.data.families.fixtures import example
from tests.data.families.test_temp_compass import FORMS, temp_compass

METRIC = METRICS["temp_compass"]


def record_of(miniature, form):  # noqa: F811
    temp_compass(miniature("TempCompass"))
    asked = example(f"temp_compass_{form}", "validation")
    return split_example(asked, 0)[0].record | {"metadata": asked["metadata"]}


@pytest.mark.parametrize(
    ("prediction", "word"),
    [
        *((text, "yes") for text in ("yes", "Yes, it is.", " YES", "**Yes**", "The answer is yes", "yes, no doubt")),
        *((text, "no") for text in ("no", "No.", "No, yes is wrong", "There is no car")),
        *((text, None) for text in ("", "yesterday", "not sure", "Maybe", "either yes or no", "nothing")),
    ],
)
def test_yes_or_no(prediction, word):
    assert yes_or_no(prediction) == word


RIGHT = {"multi-choice": ("B. dunking", "B", "dunking"), "yes_no": ("yes", "Yes, he is."), "caption_matching": ("B", "The man: he dunks.")}
WRONG = {"multi-choice": ("A", "C. dunking"), "yes_no": ("No.",), "caption_matching": ("A. The man dribbles.",)}


@pytest.mark.parametrize("form", RIGHT)
def test_forms_that_rules_can_grade(miniature, form):  # noqa: F811
    """A judge's verdict does not overrule them."""
    record = record_of(miniature, form)
    for said in RIGHT[form]:
        assert METRIC.grade(record | {"prediction": said, "judgement": {"correct": False}}) == Grade(1.0), said
    for said in WRONG[form]:
        assert METRIC.grade(record | {"prediction": said, "judgement": {"correct": True}}) == Grade(0.0), said


@pytest.mark.parametrize("form", FORMS)
def test_what_rules_cannot_tell_is_for_the_judge(miniature, form):  # noqa: F811
    """Without its verdict the answer is unread, and wrong."""
    record = record_of(miniature, form) | {"prediction": "He does what a man does, I think"}
    assert METRIC.grade(record) == Grade(0.0, parsed=False) and METRIC.published(record) == 0.0
    for correct, grade in ((True, Grade(1.0)), (False, Grade(0.0)), (None, Grade(0.0, parsed=False))):
        judged = record | {"judgement": {"correct": correct}}
        assert METRIC.grade(judged) == grade and METRIC.published(judged) == grade.value
    assert METRIC.groups(record) == (form, f"{form}_action")


def test_a_caption_is_never_graded_by_a_rule(miniature):  # noqa: F811
    """Seen to fail with the letter in a caption taken for the answer to the question that it is judged by."""
    record = record_of(miniature, "captioning") | {"prediction": "B. dunking"}
    assert METRIC.grade(record) == Grade(0.0, parsed=False) and METRIC.published(record) == 0.0


def test_another_form_is_named():
    with pytest.raises(OLMoDataError, match="question 1: 'task' is no form of TempCompass: 'rhyme'"):
        METRIC.grade({"example_id": "1", "prediction": "A", "metadata": {"task": "rhyme"}})


@given(st.text(max_size=30), st.sampled_from(FORMS))
def test_any_text_has_a_published_verdict_or_none(prediction, form):
    assert published_rule(prediction, {"task": form, "answer": "B. dunking"}) in (True, False, None)
