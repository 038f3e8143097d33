"""MLVU's free answers: marks from 1 to 5 on two scales, for a part of a video and for its summary."""

from functools import partial

from olmo.eval.judges.conversation import Conversation, Judge, Question, render
from olmo.eval.judges.open_answer import reference_of
from olmo.eval.judges.reading import marks
from olmo.eval.metrics.captions import MLVU_SCORES, mlvu_kind
from olmo.eval.metrics.metric import Record

LOW, HIGH = 1, 5


def _converse(record: Record) -> Conversation:
    kind = mlvu_kind(record)
    scales = MLVU_SCORES[kind]
    if not record["prediction"].strip():
        return {scale: LOW for scale in scales}
    form = f"Reply with two lines, each a whole number from {LOW} to {HIGH}:\n" + "\n".join(f"{scale}: <number>" for scale in scales)
    prompt = render(
        f"mlvu_{kind}.jinja",
        question=record["question"],
        reference=reference_of(record),
        points=(record.get("metadata") or {}).get("scoring_points", []),
        answer=record["prediction"],
        form=form,
    )
    typical = "\n".join(f"{scale}: {LOW}" for scale in scales)
    found = yield Question(prompt, form, partial(marks, names=scales, low=LOW, high=HIGH), max_tokens=64, typical=typical)
    return found or {scale: None for scale in scales}


def mlvu_gen(records) -> Judge:
    """Judgement: {"accuracy", "relevance"} or {"completeness", "reliability"}: int | None. An empty answer gets the lowest marks."""
    return Judge(_converse)
