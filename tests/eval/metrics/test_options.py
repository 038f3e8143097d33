"""Reading an option out of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.eval.metrics.options import MOST_LETTERS, chosen_option, options_of, right_option, without_letters
from olmo.exceptions import OLMoDataError

OPTIONS = ["play with toy", "look at camera", "eat food", "walk away", "sit down"]


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        *((form, "B") for form in ("B", "b", "B.", "b.", " B) ", "(B)", "(b)", "[B]", "B:", "**B**", '"B"', "B.\n")),
        *(
            (form, "B")
            for form in (
                "B. look at camera",
                "(B) look at camera",
                "B look at camera",
                "b) look at camera",
                "B, because he looks",
                "B\nHe looks up.",
            )
        ),
        *((form, "B") for form in ("Answer: B", "**Answer:** B", "The answer is B", "The answer is (B).", "the correct answer is: b.")),
        *((form, "B") for form in ("Best option: B", "The best answer is:\nB", "Option B", "option b", "I choose B.", "I think it is B")),
        *((form, "C") for form in ("I pick C, not B", "I'd not say it is B, it is C", "A man eats, so it is (C)")),
        *(
            (form, "A")
            for form in ("A", "a", "A.", "A\nThe man plays", "The answer is A", "A. A man", "A play with toy", "Answer: A. Toys")
        ),
        *((form, "B") for form in ("look at camera", "Look at camera.", "1. look at camera", "Answer: look at camera")),
        ("In the end he will look at camera, I suppose", "B"),
        ("E", "E"),
    ],
)
def test_what_names_an_option(prediction, letter):
    assert chosen_option(prediction, OPTIONS) == "ABCDE".index(letter)


@pytest.mark.parametrize(
    "prediction",
    [
        *("", " ", ".", "F", "(F)", "I", "AB", "BC", "no idea", "None of these", "Because.", "Both of them", "sit"),
        *("A man", "A dog walks", "A man opens B", "The answer is a man", "A because of that", "a man plays"),
        *(
            "B or C",
            "B or A",
            "B and A",
            "B, A",
            "B/C",
            "B, C",
            "B C",
            "A and B",
            "(A) (B)",
            "C. B.",
            "A. but (B)",
            "C\nB\nB",
            "Option A or option C",
        ),
        *("The answer is not B", "It is not (B)", "I would never choose B", "he does not walk away", "eat food, then walk away"),
    ],
)
def test_what_names_none(prediction):
    """Seen to fail with any capital letter taken for an option, and with the first of several taken."""
    assert chosen_option(prediction, OPTIONS) is None


@pytest.mark.parametrize(
    ("prediction", "options", "number"),
    [
        ("It is dark red", ["red", "dark red"], 1),
        ("The car is not moving", ["moving", "not moving"], 1),
        ("No, he does not", ["Yes", "No"], 1),
        ("There are 3 cars", ["2", "3", "13"], 1),
        ("13", ["2", "3", "13"], 2),
        ("B. opens", ["opens", "closes"], 1),  # asked for a letter, it gives one
        ("A man", ["A man", "A woman"], 0),
        ("B. vitamin (A)", ["vitamin (B)", "vitamin (A)"], 1),
        ("A", ["B", "A"], 0),  # a letter is a label first
        ("red", ["red", "red"], None),
        ("he is at the bus stop", ["at the bus stop", "at the stop"], 0),
        ("C is eating", ["C is eating", "C is sleeping", "C walks"], 0),
        ("C is eating out", ["C is drinking", "C is sleeping", "C walks"], None),  # a person, in words of its own
        ("The answer is C is sleeping", ["C is eating", "C is sleeping", "C walks"], 1),
        ("B. C sleeps well", ["C is eating", "C is sleeping", "C walks"], 1),
        ("C. C walks", ["C is eating", "C is sleeping", "C walks"], 2),
        ("AB. x", [f"option {i}" for i in range(30)], 27),
    ],
)
def test_options_that_look_alike(prediction, options, number):
    """Seen to fail with the first option that stands in the text taken, not the longest."""
    assert chosen_option(prediction, options) == number


LABELS = ("{}", "{}.", "({})", "{}:", "{}. {t}", "({}) {t}", "Answer: {}", "The answer is {}.", "The best option is ({})", "Option {}\n")
WORDS = st.text("abcdefghij ", min_size=3, max_size=12).map(str.strip).filter(lambda t: len(t) > 2)


@given(st.lists(WORDS, min_size=2, max_size=9, unique_by=lambda t: " ".join(t.split())), st.data())
def test_every_form_of_a_label_is_understood_whatever_the_options_say(options, data):
    number = data.draw(st.integers(0, len(options) - 1))
    form = data.draw(st.sampled_from(LABELS))
    assert chosen_option(form.format("ABCDEFGHI"[number], t=options[number]), options) == number
    assert chosen_option(options[number], options) == number


PIECES = st.sampled_from(["A", "b", "(C)", "D.", " ", "\n", "the answer is", "not", "Answer:", "option", "**", ")", "İ", "K", "0", "look"])
ANY_TEXT = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map(" ".join), st.lists(PIECES, max_size=12).map("".join))


@given(ANY_TEXT, st.lists(st.text(max_size=8), max_size=30))
def test_any_text_is_an_option_or_none(prediction, options):
    found = chosen_option(prediction, options)
    assert found is None or 0 <= found < len(options)


# -- options and truth of a record


def test_options_come_from_the_record_its_metadata_or_its_question():
    record = {"example_id": "1", "question": "What?\nA. red\nB. blue\nAnswer with the option's letter."}
    assert options_of(record) == ["red", "blue"]
    assert options_of(record | {"metadata": {"options": ["A. up", "B. down"]}}) == ["up", "down"]
    assert options_of(record | {"options": ["left", "right"], "metadata": {"options": ["A. up"]}}) == ["left", "right"]
    assert options_of({"example_id": "1", "question": "What?"}) == [""] * MOST_LETTERS
    assert chosen_option("(C)", options_of({"example_id": "1"})) == 2


def test_letters_are_taken_off_only_where_all_options_have_theirs():
    assert without_letters(["A. red", "(B) blue", "C) green"]) == ["red", "blue", "green"]
    assert without_letters(["B. Goodman", "A. Smith"]) == ["B. Goodman", "A. Smith"]


@pytest.mark.parametrize(("answer", "number"), [("B", 1), ("B.", 1), ("(C)", 2), ("D. blue", 3), ("Z", 25)])
def test_the_right_option_by_its_letter(answer, number):
    assert right_option({"example_id": "1", "answer": answer}) == number
    assert right_option({"example_id": "1", "answer": answer, "answer_idx": 0}) == 0


@pytest.mark.parametrize("answer", ["", None, "Blue", "AB.", ["A"]])
def test_a_record_without_truth_is_not_graded(answer):
    with pytest.raises(OLMoDataError, match="question 7: "):
        right_option({"example_id": "7", "answer": answer})
