"""Metrics: pure functions from saved predictions (mappings, one per question) to numbers.

A metric never sees a model, a tokenizer or a process group: whatever it needs stands in the prediction file, so every
number can be computed again later from what was saved.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from olmo.eval.metrics.accuracy import Score, accuracy_by_type
from olmo.eval.metrics.answers import same_short_answer
from olmo.eval.metrics.intervals import wilson_interval
from olmo.eval.metrics.options import chosen_option
from olmo.eval.metrics.paired import PairedDifference, paired_difference

Record = Mapping[str, Any]


def _right_short_answer(record: Record) -> bool:
    """The answer is a word or two that must be met exactly (up to case and dots)."""
    return same_short_answer(record["prediction"], record["answer"])


def _right_option_or_answer(record: Record) -> bool:
    """The right option where there are options, the exact short answer elsewhere."""
    if record.get("options"):
        return chosen_option(record["prediction"], record["options"]) == record["answer_idx"]
    return _right_short_answer(record)


IS_CORRECT: dict[str, Callable[[Record], bool]] = {"short_answer": _right_short_answer, "option_or_answer": _right_option_or_answer}
"""Name in a task record -> what counts as right: scores, differences of models and marks on single answers all ask here."""
METRICS: dict[str, Callable[[Sequence[Record]], dict[str, Score]]] = {
    name: partial(accuracy_by_type, is_correct=rule) for name, rule in IS_CORRECT.items()
}
"""Name in a task record -> function from predictions to scores, by question type."""
short_answer = METRICS["short_answer"]

__all__ = [
    "IS_CORRECT",
    "METRICS",
    "PairedDifference",
    "Record",
    "Score",
    "accuracy_by_type",
    "chosen_option",
    "paired_difference",
    "same_short_answer",
    "short_answer",
    "wilson_interval",
]
