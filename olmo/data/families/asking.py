"""Questions with options as benchmarks word them, and what benchmarks have for an answer.

These wordings are part of a benchmark: a model is asked exactly so, and the formatter adds nothing to them.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.annotations import Entry, read_parquet
from olmo.data.dataset import Example
from olmo.data.records import DatasetRow, Record, with_clip
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.multiple_choice import option_letters

ONLY_THE_LETTER = "Please respond with only the letter of the correct answer."
LETTER_DIRECTLY = "Answer with the option's letter from the given choices directly."

_LETTER = re.compile(r"\s*\(?([A-Z])(?:[).:].*|\s*)", re.DOTALL)
_LABELLED = re.compile(r"\s*\(?([A-Z])[).:]\s*(.*)", re.DOTALL)


def lettered(options: Sequence[str]) -> list[str]:
    """One line per option: "A. ...", "B. ..."."""
    return [f"{letter(number)}. {option}" for number, option in enumerate(options)]


def worded(question: str, lines: Sequence[str], instruction: str) -> str:
    """The question, a line per option, and how to answer."""
    return "\n".join([question, *lines, instruction])


def option_texts(entry: Entry, key: str) -> list[str]:
    """At least two options; numbers among them as text."""
    options = Entry({key: [_as_text(value) for value in entry.need(key, list)]}, entry.where).texts(key)
    if len(options) < 2:
        raise OLMoDataError(f"{entry.where}: '{key}' should have two options or more, but has {len(options)}")
    return options


def _as_text(value: Any) -> Any:
    """A whole number as it is read out, anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# -- which option is right, as a number from 0: files give a number, a letter, or its text


def number_of(entry: Entry, key: str, count: int) -> int:
    """A right option given by its number; OLMoDataError if it is none of `count`."""
    number = entry.need(key, int)
    if not 0 <= number < count:
        raise OLMoDataError(f"{entry.where}: '{key}' is option {number}, but there are {count}, counted from 0")
    return number


def number_of_letter(entry: Entry, key: str, count: int) -> int:
    """A right option given by its letter, alone or before its text ("B", "(B)", "B. a cat"); OLMoDataError if none of `count`."""
    text, letters = entry.need(key, str), option_letters(count)
    found = _LETTER.fullmatch(text)
    if not found or found[1] not in letters:
        raise OLMoDataError(f"{entry.where}: '{key}' should be one of the letters {letters[0]} to {letters[-1]}, but is '{text[:60]}'")
    return letters.index(found[1])


def number_of_text(entry: Entry, key: str, options: Sequence[str]) -> int:
    """A right option given by its text; OLMoDataError if none reads so."""
    value = _as_text(entry.get(key))
    text = value if isinstance(value, str) else entry.need(key, str)
    if text not in options:
        raise OLMoDataError(f"{entry.where}: '{key}' is none of the options: '{text[:60]}'")
    return options.index(text)


def letter(number: int) -> str:
    """A, B, C, ..."""
    return option_letters(number + 1)[-1]


# -- options inside a question


def split_options(text: str, where: str) -> tuple[str, list[str]]:
    """A question and the options in the lines below it, whose labels ("A.", "(A)", "A:") follow the alphabet.

    What stands below an option without the next label belongs to that option.
    """
    question: list[str] = []
    options: list[str] = []
    for line in text.split("\n"):
        found = _LABELLED.fullmatch(line)
        if found and found[1] == letter(len(options)):
            options.append(found[2])
        elif options:
            options[-1] += f"\n{line}"
        else:
            question.append(line)
    if len(options) < 2:
        raise OLMoDataError(f"{where}: its question should have options A and B in lines of their own, but is '{text[:60]}'")
    return "\n".join(question), [option.strip() for option in options]


# -- examples


def parquet_rows(folder: Path, pattern: str) -> Iterator[Entry]:
    """The rows of all parquet files that match, one file after another."""
    for path in sorted(folder.glob(pattern)):
        yield from read_parquet(path)


_FIELDS = ("video", "question", "options", "answer_idx", "answer", "label")


def benchmark_example(record: Record, rng: np.random.Generator, style: str) -> Example:
    """One question about a video at the top level of an example. Nothing about it is random.

    A record may name a `style` of its own, a `clip`, and its `subtitle` as a list of (start, end, text).
    """
    example = {name: record[name] for name in _FIELDS if name in record}
    if "subtitle" in record:
        example["subtitle"] = _by_time(record["subtitle"])
    return {**example, "style": record.get("style", style), "metadata": with_clip(record["metadata"], record.get("clip"))}


def benchmark_row(style: str, **fields: Any) -> DatasetRow:
    """A row of the catalogue whose examples are `benchmark_example`s, in `style` unless a record names another."""
    return DatasetRow(style=style, example=partial(benchmark_example, style=style), **fields)


def _by_time(lines: Sequence[tuple[float, float, str]]) -> dict[tuple[float, float], str]:
    """(start, end) -> text; what is said at the very same time is one text."""
    texts: dict[tuple[float, float], str] = {}
    for start, end, text in lines:
        span = (start, end)
        texts[span] = f"{texts[span]} {text}" if span in texts else text
    return texts
