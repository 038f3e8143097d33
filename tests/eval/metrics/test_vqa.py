"""Scores of short answers, beside the reference scores of tests/goldens/test_golden_scores.py."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics.metric import Grade
from olmo.eval.metrics.vqa import METRICS, anls, cleaned, edit_distance, normalised_words, relaxed_correctness, vqa_score


@given(st.text("ab ", max_size=7), st.text("ab ", max_size=7))
def test_edit_distance_is_its_definition(a, b):
    """Oracle: the recursion, without a table. Seen to fail with the row of the last character left out."""

    @functools.cache
    def slow(i, j):
        if not i or not j:
            return i + j
        return min(slow(i - 1, j) + 1, slow(i, j - 1) + 1, slow(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    assert edit_distance(a, b) == slow(len(a), len(b))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Dogs,\tthree of them!", "dogs 3 of them"),
        ("isnt", "isn't"),
        ("U.S.A.", "usa"),
        ("3.5", "3.5"),
        ("1,000,000", "1000000"),
        ("red/blue", "red blue"),
        ("none", "0"),
    ],
)
def test_words_as_vqa_compares_them(text, words):
    assert normalised_words(text) == words


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [(" a  b ", "a b"), ("x Answer: B. c Answer: D", "B. c Answer: D"), ("a\n b\nb ", "b"), ("\n\n", ""), ("a\nb", "a")],
)
def test_what_the_published_evaluator_takes_for_the_answer(prediction, answer):
    assert cleaned(prediction) == answer


def test_one_text_must_be_met_and_several_are_annotators():
    assert vqa_score("two", "2") == 1.0 and vqa_score("two", ["2"]) == pytest.approx(1 / 3)


def test_the_best_of_several_answers_counts():
    assert anls("colour", ["xyz", "color"]) == pytest.approx(5 / 6) and anls("", "") == 1.0
    assert relaxed_correctness("nan", "5") == 0.0 and relaxed_correctness("-100", ["x", "-104"]) == 1.0


def test_no_answer_is_no_article():
    """The published score compares "" with "a" and finds them equal."""
    record = {"example_id": "1", "prediction": " ", "answer": ["a", "a", "a"]}
    assert METRICS["vqa_score"].grade(record) == Grade(0.0, parsed=False) and METRICS["vqa_score"].published(record) == 1.0


@given(st.text(max_size=40), st.lists(st.text(max_size=10), min_size=1, max_size=3), st.sampled_from(sorted(METRICS)))
def test_any_text_has_a_score(prediction, answers, name):
    record = {"example_id": "1", "prediction": prediction, "answer": answers}
    assert 0 <= METRICS[name].grade(record).value <= 1 and 0 <= METRICS[name].published(record) <= 1
