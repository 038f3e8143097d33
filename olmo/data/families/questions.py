"""Questions as records hold them, and the messages they become: what most readers share.

A record is checked when the index is built, where a mistake still has a place in a file; turning it into messages cannot fail.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from olmo.data.annotations import Entry
from olmo.data.dataset import Example
from olmo.data.records import MC, Record, open_ended, with_clip
from olmo.exceptions import OLMoDataError

T = TypeVar("T")


def choice(entry: Entry, question: str, options: Sequence[str], answer: int | None) -> dict[str, Any]:
    """A question with options, of which number `answer` (from 0) is right; None where the answer is not published."""
    if answer is not None and not 0 <= answer < len(options):
        raise OLMoDataError(f"{entry.where}: the answer is option {answer}, but there are {len(options)}, counted from 0")
    return {"question": question, "options": list(options), "answer": answer}


def numbered_options(entry: Entry, count: int) -> list[str]:
    """The options in the columns or keys a0, a1, ..."""
    return [entry.need(f"a{i}", str) for i in range(count)]


def grouped(items: Iterable[tuple[Hashable, T]]) -> dict[Any, list[T]]:
    """Values by key, keys in the order of their first item."""
    groups: dict[Any, list[T]] = {}
    for key, value in items:
        groups.setdefault(key, []).append(value)
    return groups


def asked(question: dict[str, Any], style: str = MC) -> dict[str, Any]:
    """The message of a question made by `choice`."""
    right = {} if question["answer"] is None else {"answer_idx": question["answer"]}
    return {"question": question["question"], "options": question["options"], **right, "style": style}


def in_context(record: Record, message_list: list[dict]) -> Example:
    """Messages on the video of a record, with the clip, metadata and subtitles that the record may have."""
    example: Example = {"video": record["video"], "message_list": message_list}
    if metadata := with_clip(record.get("metadata", {}), record.get("clip")):
        example["metadata"] = metadata
    if record.get("subtitle"):
        example["subtitle"] = record["subtitle"]
    return example


def choices(style: str = MC) -> Callable[[Record, np.random.Generator], Example]:
    """The `example` of a data set whose records hold only questions made by `choice`."""
    return partial(_choices_example, style=style)


def _choices_example(record: Record, rng: np.random.Generator, style: str) -> Example:
    return in_context(record, [asked(q, style) for q in record["questions"]])


def short_answers(record: Record, rng: np.random.Generator) -> Example:
    """The `example` of a data set whose records hold only questions with a text as answer."""
    return in_context(record, [open_ended(q["question"], q["answer"]) for q in record["questions"]])


def one_of(texts: Sequence[str], rng: np.random.Generator) -> str:
    """One of them, each as likely as the others."""
    return texts[int(rng.integers(len(texts)))]
