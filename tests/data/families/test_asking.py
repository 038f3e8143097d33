"""Options inside questions, and the ways in which files say which one is right."""

import pickle
from pathlib import Path

import pytest

from olmo.data.annotations import Entry
from olmo.data.catalogue import ROWS
from olmo.data.families.asking import lettered, number_of, number_of_letter, number_of_text, option_texts, split_options, worded
from olmo.data.index import IndexedDataset
from olmo.data.records import DatasetRow
from olmo.exceptions import OLMoDataError

WHERE = "f.json, entry 3"


def entry(**values):
    return Entry(values, WHERE)


def test_what_is_asked():
    assert worded("Why?", lettered(["a", "b"]), "Answer.") == "Why?\nA. a\nB. b\nAnswer."


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Why?\n(A) a cat\n(B) a dog", ("Why?", ["a cat", "a dog"])),
        ("Why?\nA. a\nB. b\nC. c\n", ("Why?", ["a", "b", "c"])),
        ("Two lines.\nWhy?\n A: a \n B: b", ("Two lines.\nWhy?", ["a", "b"])),
        ("Why?\nA. one\nand more\nB. two", ("Why?", ["one\nand more", "two"])),
        ("B. what?\nA. a\nC. not a label yet\nB. b", ("B. what?", ["a\nC. not a label yet", "b"])),
    ],
)
def test_options_are_split_off(text, parts):
    assert split_options(text, WHERE) == parts


@pytest.mark.parametrize("text", ["Why?", "Why?\nA. only one", "Why? A. a B. b"])
def test_questions_without_options(text):
    with pytest.raises(OLMoDataError, match=f"^{WHERE}: its question should have options A and B in lines of their own, but is 'Why"):
        split_options(text, WHERE)


@pytest.mark.parametrize("text", ["B", "B.", "(B)", " B ", "B. a dog", "B) a dog", "(B) a dog"])
def test_letters(text):
    assert number_of_letter(entry(answer=text), "answer", 2) == 1


@pytest.mark.parametrize("text", ["", "C", "AB", "b", "Because", "1"])
def test_wrong_letters(text):
    """Seen to fail when a letter is looked for in a string of letters, which has "" and "AB" too."""
    with pytest.raises(OLMoDataError, match=f"^{WHERE}: 'answer' should be one of the letters A to B, but is '{text}'"):
        number_of_letter(entry(answer=text), "answer", 2)


def test_counts_as_options():
    assert option_texts(entry(options=["3", 4]), "options") == ["3", "4"]
    assert number_of_text(entry(answer=4), "answer", ["3", "4"]) == 1
    with pytest.raises(OLMoDataError, match=rf"^{WHERE}: 'options\[1\]' should be text, but is true"):
        option_texts(entry(options=["3", True]), "options")
    with pytest.raises(OLMoDataError, match=f"^{WHERE}: the key 'answer' is missing; there is q$"):
        number_of_text(entry(q=""), "answer", ["3", "4"])


def test_numbers_and_texts():
    assert number_of(entry(answer="1"), "answer", 2) == number_of_text(entry(answer="dog"), "answer", ["cat", "dog"]) == 1
    with pytest.raises(OLMoDataError, match=f"^{WHERE}: 'answer' is option 2, but there are 2, counted from 0"):
        number_of(entry(answer=2), "answer", 2)
    with pytest.raises(OLMoDataError, match=f"^{WHERE}: 'answer' is none of the options: 'cow'"):
        number_of_text(entry(answer="cow"), "answer", ["cat", "dog"])
    with pytest.raises(OLMoDataError, match=f"^{WHERE}: 'options' should have two options or more, but has 1"):
        option_texts(entry(options=["cat"]), "options")


def test_examples_reach_worker_processes():
    """Of every row; seen to fail with a function inside a function as `example`."""
    for row in ROWS.values():
        if isinstance(row, DatasetRow):
            dataset = IndexedDataset(row, row.splits[0], None, Path("videos"))
            assert pickle.loads(pickle.dumps(dataset)).name == row.name
            assert set(row.counts) <= set(row.splits)
