"""Metrics: pure functions from saved predictions (mappings, one per question) to numbers.

A metric never sees a model, a tokenizer or a process group: whatever it needs stands in the prediction file, so every
number can be computed again later from what was saved.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from olmo.eval.metrics.accuracy import Score, accuracy_by_type
from olmo.eval.metrics.answers import same_short_answer
from olmo.eval.metrics.intervals import wilson_interval
from olmo.eval.metrics.paired import PairedDifference, paired_difference

Record = Mapping[str, Any]


def short_answer(records: Sequence[Record]) -> dict[str, Score]:
    """Accuracy per question type where the answer is a word or two that must be met exactly (up to case and dots)."""
    return accuracy_by_type(records, lambda r: same_short_answer(r["prediction"], r["answer"]))


METRICS: dict[str, Callable[[Sequence[Record]], dict[str, Score]]] = {"short_answer": short_answer}
"""Name in a task record -> function from predictions to scores."""

__all__ = [
    "METRICS",
    "PairedDifference",
    "Record",
    "Score",
    "accuracy_by_type",
    "paired_difference",
    "same_short_answer",
    "short_answer",
    "wilson_interval",
]
