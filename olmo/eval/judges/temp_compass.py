"""TempCompass: the answers that its rules leave undecided, and captions, which are judged by a question about them."""

import re
from functools import partial

from olmo.data.families.temp_compass import CAPTIONING, FORMS
from olmo.eval.judges.conversation import Conversation, Judge, Question, render
from olmo.eval.judges.open_answer import right_or_wrong
from olmo.eval.judges.reading import letter
from olmo.eval.metrics.metric import Record
from olmo.eval.metrics.temp_compass import published_rule
from olmo.exceptions import OLMoDataError

NONE = "None"
"""The reply of a judge who finds none of the options in a caption."""


def _undecided(record: Record) -> bool:
    form = _need(record, "task")
    if form not in FORMS:
        raise OLMoDataError(f"question {record['example_id']}: metadata 'task' should be one of {', '.join(FORMS)}, but is '{form}'")
    for key in ("mc_question", "mc_answer") if form == CAPTIONING else ("question", "answer"):
        _need(record, key)
    return published_rule(record["prediction"].strip(), record["metadata"]) is None


def _need(record: Record, key: str) -> str:
    value = (record.get("metadata") or {}).get(key)
    if not isinstance(value, str) or not value:
        raise OLMoDataError(f"question {record['example_id']}: metadata '{key}' should be a text, but is {value!r}")
    return value


def _from_caption(caption: str, question: str, example_id: str) -> Question:
    letters = re.findall(r"^\s*\(?([A-Z])[.)]", question, re.M)
    if len(letters) < 2:
        raise OLMoDataError(f"question {example_id}: metadata 'mc_question' should list options such as 'A. ...' on lines of their own")
    form = f"Reply with one letter ({', '.join(letters)}), or {NONE} if the description does not tell."
    prompt = render("question_about_caption.jinja", caption=caption, question=question, form=form)
    return Question(prompt, form, partial(letter, letters=letters, none=NONE), max_tokens=64, typical=letters[0])


def _converse(record: Record) -> Conversation:
    prediction = record["prediction"].strip()
    if not prediction:
        return {"correct": False}
    if _need(record, "task") != CAPTIONING:
        return {"correct": (yield right_or_wrong(_need(record, "question"), _need(record, "answer"), prediction))}
    chosen = yield _from_caption(prediction, _need(record, "mc_question"), record["example_id"])
    return {"correct": None if chosen is None else chosen == _need(record, "mc_answer").lstrip("( ")[0]}


def temp_compass(records) -> Judge:
    """Judgement: {"correct": bool | None}, for the answers that the rules leave undecided."""
    return Judge(_converse, applies=_undecided)
