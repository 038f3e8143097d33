"""Metrics: pure functions from saved predictions (mappings, one per question) to numbers.

A metric grades one answer (`metric.py`); `olmo.eval.statistics` makes scores with intervals of the grades. A family of metrics is a
module with a dict named `METRICS`.
"""

from types import ModuleType

from olmo.eval.metrics import captions, counting, judged_answers, multiple_choice, pointing, short_answers, tracking, vqa
from olmo.eval.metrics.answers import same_short_answer
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.eval.metrics.options import chosen_option


def _merged(*families: ModuleType) -> dict[str, Metric]:
    merged: dict[str, Metric] = {}
    for family in families:
        assert not (twice := merged.keys() & family.METRICS), f"{family.__name__} names {sorted(twice)} again"
        merged |= family.METRICS
    return merged


METRICS = _merged(captions, counting, judged_answers, multiple_choice, pointing, short_answers, tracking, vqa)
"""Name in a task record -> how its answers are graded."""

__all__ = ["METRICS", "Grade", "Metric", "Record", "chosen_option", "same_short_answer"]
