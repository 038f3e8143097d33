"""TempCompass: four forms of question. An answer that the rules cannot read is for a judge; until one has judged it, it is unread."""

import re

from olmo.data.families.temp_compass import CAPTIONING, MATCHING, MULTIPLE_CHOICE, YES_NO
from olmo.eval.metrics.judged_answers import judged_correct
from olmo.eval.metrics.metadata import known
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.eval.metrics.options import chosen_option, options_of, right_option
from olmo.exceptions import OLMoDataError

_YES_OR_NO = re.compile(r"\b(yes|no)\b")
_LETTERS = "ABCD"


def yes_or_no(prediction: str) -> str | None:
    """The word that an answer begins with, or the only one of the two in it."""
    text = prediction.strip(" \t\n\"'*(").lower()
    found = [match[1] for match in _YES_OR_NO.finditer(text)]
    return found[0] if found and (_YES_OR_NO.match(text) or len(set(found)) == 1) else None


def _form(record: Record) -> str:
    form = known(record, "task")
    if form not in (MULTIPLE_CHOICE, YES_NO, MATCHING, CAPTIONING):
        raise OLMoDataError(f"question {record['example_id']}: 'task' is no form of TempCompass: {form!r}")
    return form


def _by_rule(record: Record) -> bool | None:
    """Whether the answer is right, or None where no rule can tell."""
    form = _form(record)
    if form == CAPTIONING:
        return None
    if form == YES_NO:
        said = yes_or_no(record["prediction"])
        return None if said is None else said == known(record, "answer")
    chosen = chosen_option(record["prediction"], options_of(record))
    return None if chosen is None else chosen == right_option(record)


def published_rule(prediction: str, metadata: Record) -> bool | None:
    """What the published rules make of an answer: "B. opens" is B, "yesterday" is yes; None = for the judge."""
    if metadata["task"] == CAPTIONING:
        return None
    answer = metadata["answer"]
    if metadata["task"] == YES_NO:
        said = next((word for word in ("yes", "no") if prediction.lower().startswith(word)), None)
        return None if said is None else said == answer.lower()
    if prediction == answer:
        return True
    if prediction in tuple(_LETTERS) or re.match(rf"[{_LETTERS}][.)]", prediction):
        return prediction[0] == answer[0]
    return None


def _grade(record: Record) -> Grade:
    right = _by_rule(record)
    return judged_correct(record) if right is None else Grade(float(right))


def _published(record: Record) -> float:
    right = published_rule(record["prediction"], record["metadata"])
    return judged_correct(record).value if right is None else float(right)


def _groups(record: Record) -> tuple[str, str]:
    form = _form(record)
    return form, f"{form}_{known(record, 'temporal_aspect')}"


TEMP_COMPASS = Metric(_grade, _groups, published=_published)
