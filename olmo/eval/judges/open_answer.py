"""Free answers to questions with a known answer (VideoEval-Pro in its open form, own data): right or not."""

from functools import partial

from olmo.eval.judges.conversation import Conversation, Judge, Question, render
from olmo.eval.judges.reading import verdict
from olmo.eval.metrics.metric import Record
from olmo.exceptions import OLMoDataError

RIGHT = {"Correct": True, "Incorrect": False}
FORM = "Reply with one word: Correct or Incorrect."


def right_or_wrong(question: str, reference: str, answer: str) -> Question:
    """Whether an answer says the same as the reference."""
    prompt = render("right_or_wrong.jinja", question=question, reference=reference, answer=answer, form=FORM)
    return Question(prompt, FORM, partial(verdict, words=RIGHT), max_tokens=64, typical="Incorrect")


def reference_of(record: Record) -> str:
    """The right answer in words; several accepted ones are told apart."""
    answer = (record.get("metadata") or {}).get("answer_text") or record.get("answer")
    if not answer:
        raise OLMoDataError(f"question {record['example_id']}: there is no 'answer' to judge by")
    return answer if isinstance(answer, str) else " (or) ".join(answer)


def _converse(record: Record) -> Conversation:
    if not record["prediction"].strip():
        return {"correct": False}
    return {"correct": (yield right_or_wrong(record["question"], reference_of(record), record["prediction"]))}


def open_answer(records) -> Judge:
    """Judgement: {"correct": bool | None}; no answer is wrong without asking."""
    return Judge(_converse)
