"""Reading replies: the form that was asked for, or nothing."""

import pytest

from olmo.eval.judges.captions import STATED, read_statements
from olmo.eval.judges.open_answer import RIGHT
from olmo.eval.judges.reading import letter, marks, numbered_verdicts, verdict


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Correct", True),
        ("incorrect.", False),
        ("**Correct**", True),
        ("The answer names the car.\n\nVerdict: Incorrect\n", False),
        ("", None),
        ("It is correct, I think", None),
        ("Correct or Incorrect", None),
        ("Yes", None),
        ("not correct", None),
    ],
)
def test_verdict(text, meaning):
    """Seen to fail with a search for the word: "incorrect" holds "correct"."""
    assert verdict(text, RIGHT) is meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1. Stated\n2. Not stated\n3. Stated", {1: True, 2: False, 3: True}),
        ("1: **Not stated**\n- 2) stated.\n", {1: False, 2: True}),
        ("1. The car is red: Stated", {1: True}),
        ("1. Stated\n1. Not stated\n2. Stated", {2: True}),
        ("1. Stated\n1. Stated", {1: True}),
        ("0. Stated\n4. Stated\n2. perhaps", None),
        ("Stated\nStated\nStated", None),
        ("all are stated", None),
    ],
)
def test_numbered_verdicts(text, meaning):
    """A number with two verdicts, out of range, or with another word has none; lines are never matched by their place."""
    assert numbered_verdicts(text, 3, STATED) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("accuracy: 4\nrelevance: 5", {"accuracy": 4, "relevance": 5}),
        ("**Accuracy:** 4/5\n- relevance = 1", {"accuracy": 4, "relevance": 1}),
        ("accuracy: 4", None),
        ("accuracy: 4\nrelevance: 6", None),
        ("accuracy: 0\nrelevance: 1", None),
        ("accuracy: 4\nrelevance: 5\nrelevance: 3", None),
        ("accuracy: 4.5\nrelevance: 5", None),
        ("4\n5", None),
    ],
)
def test_marks(text, meaning):
    assert marks(text, ("accuracy", "relevance"), 1, 5) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("B", "B"), ("(A)", "A"), ("C. upwards", "C"), ("none", "None"), ("D", None), ("A or B", None), ("b", None), ("Because", None)],
)
def test_letter(text, meaning):
    assert letter(text, "ABC", "None") == meaning


def test_statements():
    """Lines without a category are no statements, repeated ones count once, unknown categories are `other`."""
    text = "A car is red | colour\n- A car | a truck pass | Action\nA car is red | other\nHere you are:\nIt rains | weather\n | colour"
    found = read_statements(text, ["Colour", "action"])
    assert found == [("A car is red", "Colour"), ("A car | a truck pass", "action"), ("It rains", "other")]
    assert read_statements("I cannot do that.", ["Colour"]) is None
