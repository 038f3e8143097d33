"""Captions: what of the reference a caption tells (recall), and what of the caption the reference bears out (consistency).

The judge first takes the caption apart into atomic statements with categories, then marks every statement of the reference as stated or
not in the caption, then every statement of the caption as stated or not in the annotators' joined text.
"""

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from olmo.eval.judges.conversation import Conversation, Judge, Judgement, Question, render
from olmo.eval.judges.reading import numbered_verdicts, plain
from olmo.eval.metrics.metric import Record
from olmo.exceptions import OLMoDataError

STATED = {"Stated": True, "Not stated": False}
OTHER = "other"
"""Category of statements that fit none."""
MOST_AT_ONCE = 40
"""Statements of one request: judges lose count in longer lists."""
WORDS_PER_STATEMENT = 10
"""Of a caption, for forecasts."""

Statement = tuple[str, str]
"""(text, category)."""


def captions(records: Sequence[Record]) -> Judge:
    """Judgement: {"statements": [{"kind": "recall" | "consistency", "category": str, "stated": bool | None}]}.

    A caption that could not be taken apart has one statement of kind consistency, which is neither stated nor not.
    """
    categories = sorted({category for record in records for _, category in reference_statements(record)} - {OTHER})
    return Judge(partial(_converse, categories=categories))


def reference_statements(record: Record) -> list[Statement]:
    """The atomic statements of the reference."""
    data = _data(record)
    texts, categories = data.get("atomic_statements"), data.get("categories")
    if not isinstance(texts, list) or not isinstance(categories, list) or len(texts) != len(categories):
        raise OLMoDataError(
            f"question {record['example_id']}: metadata 'data' should have as many 'categories' as 'atomic_statements' in lists"
        )
    return list(zip(texts, categories, strict=True))


def _data(record: Record) -> dict[str, Any]:
    data = (record.get("metadata") or {}).get("data")
    if not isinstance(data, dict) or not isinstance(data.get("aggregated_annotations"), str):
        raise OLMoDataError(
            f"question {record['example_id']}: metadata 'data' should hold 'atomic_statements', 'categories' and 'aggregated_annotations'"
        )
    return data


def _converse(record: Record, categories: Sequence[str]) -> Conversation:
    caption, truth = record["prediction"].strip(), reference_statements(record)
    if not caption:
        return _judgement(truth, [False] * len(truth), [], [])
    said: list[Statement] | None = yield _take_apart(caption, categories)
    recall = yield from _stated_in(caption, [text for text, _ in truth])
    if said is None:
        return _judgement(truth, recall, [("", OTHER)], [None])
    borne_out = yield from _stated_in(_data(record)["aggregated_annotations"], [text for text, _ in said])
    return _judgement(truth, recall, said, borne_out)


def _judgement(truth: Sequence[Statement], recall, said: Sequence[Statement], borne_out) -> Judgement:
    parts = (("recall", truth, recall), ("consistency", said, borne_out))
    return {
        "statements": [
            {"kind": kind, "category": category, "stated": stated}
            for kind, statements, verdicts in parts
            for (_, category), stated in zip(statements, verdicts, strict=True)
        ]
    }


def _take_apart(caption: str, categories: Sequence[str]) -> Question:
    form = "Reply with one line per statement, and nothing else:\n<statement> | <category>"
    prompt = render("statements.jinja", caption=caption, categories=categories, other=OTHER, form=form)
    words = caption.split()
    pieces = [" ".join(words[i : i + WORDS_PER_STATEMENT]) for i in range(0, len(words), WORDS_PER_STATEMENT)]
    typical = "\n".join(f"{piece.replace('|', ' ')} x | {OTHER}" for piece in pieces)
    return Question(prompt, form, partial(read_statements, categories=categories), max_tokens=8192, typical=typical)


def read_statements(text: str, categories: Sequence[str]) -> list[Statement] | None:
    """`statement | category` per line, each statement once; lines of another form are no statements, and a reply of such lines is None."""
    known = {category.lower(): category for category in categories}
    found: dict[str, str] = {}
    for line in text.splitlines():
        statement, bar, category = line.rpartition("|")
        if bar and (statement := statement.strip(" \t-*|")):
            found.setdefault(statement, known.get(plain(category).lower(), OTHER))
    return list(found.items()) or None


def _stated_in(text: str, statements: Sequence[str]) -> Generator[Question, Any, list[bool | None]]:
    """Which statements a text makes; those that a reply leaves out are asked for once more, and are None if left out again."""
    found: dict[int, bool] = {}
    for start in range(0, len(statements), MOST_AT_ONCE):
        asked = list(range(start, min(start + MOST_AT_ONCE, len(statements))))
        found |= yield from _verdicts(text, statements, asked)
        left = [i for i in asked if i not in found]
        if left and len(left) < len(asked):  # a reply without any verdict was asked for twice already
            found |= yield from _verdicts(text, statements, left)
    return [found.get(i) for i in range(len(statements))]


def _verdicts(text: str, statements: Sequence[str], asked: Sequence[int]) -> Generator[Question, Any, dict[int, bool]]:
    form = f"Reply with {len(asked)} lines, each the number of a statement and the words Stated or Not stated, such as:\n1. Not stated"
    prompt = render("stated.jinja", text=text, statements=[statements[i] for i in asked], form=form)
    typical = "\n".join(f"{n}. Not stated" for n in range(1, len(asked) + 1))
    read = partial(numbered_verdicts, count=len(asked), words=STATED)
    verdicts = yield Question(prompt, form, read, max_tokens=16 * len(asked) + 64, typical=typical)
    return {asked[number - 1]: stated for number, stated in (verdicts or {}).items()}
