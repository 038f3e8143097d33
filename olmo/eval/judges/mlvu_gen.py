"""MLVU's free answers: marks from 1 to 5 on two scales, for a part of a video and for its summary."""

from functools import partial

from olmo.eval.judges.conversation import Conversation, Judge, Question, render
from olmo.eval.judges.open_answer import reference_of
from olmo.eval.judges.reading import marks
from olmo.eval.metrics.metric import Record
from olmo.exceptions import OLMoDataError

LOW, HIGH = 1, 5
SCALES = {"sub_scene": ("accuracy", "relevance"), "summary": ("completeness", "reliability")}
"""Kind of question -> what its answers get marks for."""
_KINDS = {"sub_scene": "sub_scene", "subPlot": "sub_scene", "8_sub_scene": "sub_scene", "summary": "summary", "9_summary": "summary"}
"""How the files of MLVU call the kinds."""


def kind_of(record: Record) -> str:
    """`sub_scene` or `summary`."""
    task_type = (record.get("metadata") or {}).get("task_type")
    if task_type not in _KINDS:
        raise OLMoDataError(
            f"question {record['example_id']}: metadata 'task_type' should be one of {', '.join(_KINDS)}, but is {task_type!r}"
        )
    return _KINDS[task_type]


def _converse(record: Record) -> Conversation:
    kind = kind_of(record)
    scales = SCALES[kind]
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
