"""Reading short answers."""

import pytest

from olmo.eval.metrics import METRICS, Grade, same_short_answer
from olmo.eval.metrics.metric import Metric


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


def test_what_cannot_be_read_is_told_apart_from_what_is_wrong():
    """Nothing said is unreadable, a wrong word is not; of options, whatever names none is unreadable."""
    short, mixed = METRICS["short_answer"].grade, METRICS["option_or_answer"].grade
    said = {"answer": "red", "question_type": "t"}
    assert [short(said | {"prediction": p}) for p in ("red", "blue", " .")] == [Grade(1.0), Grade(0.0), Grade(0.0, parsed=False)]
    choice = said | {"options": ["red", "blue"], "answer_idx": 0}
    assert [mixed(choice | {"prediction": p}) for p in ("A", "blue", "green")] == [Grade(1.0), Grade(0.0), Grade(0.0, parsed=False)]


def test_every_name_is_a_metric():
    assert all(isinstance(m, Metric) for m in METRICS.values()) and METRICS["short_answer"].headline == "average"
