"""What readers of several families do alike with published files, and how they tell what they leave out of them."""

import logging
from typing import Any

import numpy as np

from olmo.data.annotations import Entry
from olmo.data.dataset import Example
from olmo.data.records import OE, Record, insert_option, multiple_choice, with_clip
from olmo.exceptions import OLMoDataError

log = logging.getLogger(__name__)

# -- records and examples


def fixed_example(record: Record, rng: np.random.Generator) -> Example:
    """An example in which nothing is left to chance: its `messages` stand in the record, as may `metadata` and `clip`."""
    metadata = with_clip(record.get("metadata", {}), record.get("clip"))
    return {"video": record["video"], "message_list": record["messages"]} | ({"metadata": metadata} if metadata else {})


def unanswered(question: str, style: str = OE, **more: Any) -> dict[str, Any]:
    """A question of a split whose answers its publisher keeps: a model can answer it, and nothing can be learned from it."""
    return {"question": question, "style": style, **more}


def inserted_choice(question: dict[str, Any], rng: np.random.Generator, where: str, **more: Any) -> dict[str, Any]:
    """A multiple-choice message from {question, answer, wrong}, the right answer at a random place among the wrong ones."""
    options, place = insert_option(question["wrong"], question["answer"], rng)
    return multiple_choice(question["question"], options, place, where, **more)


# -- annotations


def some_texts(entry: Entry, key: str) -> list[str]:
    """A list of one text or more."""
    texts = entry.texts(key)
    if not texts:
        raise OLMoDataError(f"{entry.where}: '{key}' is empty; there should be at least one text")
    return texts


def segment(entry: Entry, key: str = "segment") -> list[float]:
    """[start, end] in seconds; whether it makes sense is for `LeftOut.unless_span` to say."""
    values = entry.need(key, list)
    if len(values) != 2:
        raise OLMoDataError(f"{entry.where}: '{key}' should be [start, end] in seconds, but has {len(values)} values")
    ends = Entry({"start": values[0], "end": values[1]}, f"{entry.where}, {key}")
    return [ends.need("start", float), ends.need("end", float)]


class LeftOut:
    """What is wrong in published files and therefore not in the set: counted, and told in the log when the index is made."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def note(self, what: str, where: str) -> None:
        """Leave something out; `what` as a plural noun."""
        self.found.setdefault(what, []).append(where)

    def unless_span(self, span: list[float], where: str) -> bool:
        """Whether `span` is a piece of a video; notes it otherwise."""
        if 0 <= span[0] < span[1]:
            return True
        self.note("spans that do not end after they start", where)
        return False

    def wrong_answers(self, entry: Entry, answer: str, key: str = "NegativeAnswers") -> list[str] | None:
        """The wrong answers, without those that are the right one in disguise; None if no other is left."""
        wrong = [w for w in entry.texts(key) if w.strip() != answer.strip()]
        if not wrong:
            self.note("questions without a wrong answer", entry.where)
        return wrong or None

    def tell(self) -> None:
        for what, places in self.found.items():
            log.warning("left out: %d %s, the first at %s", len(places), what, places[0])
