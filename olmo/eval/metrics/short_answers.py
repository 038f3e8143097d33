"""Questions whose answer is a word or two, and data files of one's own, which may mix them with options."""

from collections.abc import Sequence

from olmo.eval.metrics.answers import normalise, same_short_answer
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.eval.metrics.options import chosen_option


def grade_short_answer(record: Record) -> Grade:
    """The answer must be met exactly (up to case and dots)."""
    right = same_short_answer(record["prediction"], record["answer"])
    return Grade(float(right), parsed=bool(normalise(record["prediction"])))


def grade_option_or_answer(record: Record) -> Grade:
    """The right option where there are options, the exact short answer elsewhere."""
    if not record.get("options"):
        return grade_short_answer(record)
    chosen = chosen_option(record["prediction"], record["options"])
    return Grade(float(chosen == record["answer_idx"]), parsed=chosen is not None)


def question_type(record: Record) -> Sequence[str]:
    return (str(record.get("question_type", "all")),)


METRICS = {
    "short_answer": Metric(grade_short_answer, question_type, headline="average"),
    "option_or_answer": Metric(grade_option_or_answer, question_type),
}
