"""What a judge asks: questions with a form of reply that can be read, one after another, about one record.

A judge is a generator over `Question`s. It knows nothing of servers: who drives it sends back what was read from each reply, or None where
the reply was nonsense twice. So one piece of code asks a server, and rehearses what would be asked without one.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from olmo.eval.metrics.metric import Record

Judgement = dict[str, Any]
"""What the judge thinks of one answer, in the shape that the metric of the task reads."""
Message = Mapping[str, str]
"""`role` and `content`, as chat endpoints take them."""


@dataclass(frozen=True)
class Question:
    """One request to a judge."""

    prompt: str
    form: str
    """How the reply must look: the reminder after a reply that could not be read."""
    read: Callable[[str], Any]
    """Text of the reply -> its meaning, or None where it has not the form asked for."""
    max_tokens: int
    """Longest reply."""
    typical: str
    """A reply of usual length in the right form, for forecasts."""


Conversation = Generator[Question, Any, Judgement]
"""Asks, is sent what was read (None: nothing could be), and returns the judgement."""


@dataclass(frozen=True)
class Judge:
    """How the answers of a task are judged."""

    converse: Callable[[Record], Conversation]
    applies: Callable[[Record], bool] = lambda record: True
    """Whether this answer needs a judgement at all."""


@dataclass(frozen=True)
class Reply:
    """What a server said."""

    text: str
    cut: bool = False
    """Whether it ended before its end: nothing is read from such a reply."""
    prompt_tokens: int | None = None
    """As counted by the server, where it tells."""
    reply_tokens: int | None = None


Ask = Callable[[Sequence[Message], int], Reply]
"""(messages, longest reply in tokens) -> reply."""


def hold(conversation: Conversation, ask: Ask) -> tuple[Judgement, int]:
    """(judgement, replies that could not be read). Nonsense is asked about once more, with a word about the form."""
    unread, meaning = 0, None
    while True:
        try:
            question = conversation.send(meaning)
        except StopIteration as end:
            return end.value, unread
        meaning = _ask_twice(question, ask)
        unread += meaning is None


def _ask_twice(question: Question, ask: Ask) -> Any:
    messages: list[Message] = [{"role": "user", "content": question.prompt}]
    for _ in range(2):
        reply = ask(messages, question.max_tokens)
        meaning = None if reply.cut else question.read(reply.text)
        if meaning is not None:
            return meaning
        reminder = f"This cannot be read. {question.form}"
        messages = [*messages, {"role": "assistant", "content": reply.text}, {"role": "user", "content": reminder}]
    return None


def rehearse(conversation: Conversation) -> list[Question]:
    """The questions that would be asked if every reply were the typical one."""
    questions: list[Question] = []
    meaning = None
    while True:
        try:
            questions.append(conversation.send(meaning))
        except StopIteration:
            return questions
        meaning = questions[-1].read(questions[-1].typical)
        assert meaning is not None, f"the typical reply cannot be read: {questions[-1].typical}"


def estimate_tokens(text: str) -> int:
    """Generous count without a tokenizer: a token per 3 bytes (English has about 4)."""
    return math.ceil(len(text.encode()) / 3)


@cache
def _templates():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("olmo.eval.judges", "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(template: str, **values: Any) -> str:
    """The text of a prompt."""
    return _templates().get_template(template).render(**values).strip()
