"""Finding moments: which of the segments that an answer gives are those of the truth."""

import re
from collections.abc import Sequence

from olmo.eval.metrics.metadata import known
from olmo.eval.metrics.metric import Grade, Metric, Record

Span = tuple[float, float]
"""(start, end) in seconds."""
LEAST_OVERLAP = 0.5
"""Intersection over union from which two spans are the same."""
_SPAN = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*-\s*(\d{1,9}(?:\.\d+)?)")


def spans_of(prediction: str) -> list[Span]:
    """The spans "start-end" of a text; those that do not end after they start are none."""
    found = [(float(start), float(end)) for start, end in _SPAN.findall(prediction)]
    return [span for span in found if span[0] < span[1]]


def overlap(a: Span, b: Span) -> float:
    """Intersection over union."""
    shared = min(a[1], b[1]) - max(a[0], b[0])
    return max(shared, 0.0) / (a[1] - a[0] + b[1] - b[0] - max(shared, 0.0))


def matches(predicted: Sequence[Span], true: Sequence[Span]) -> int:
    """How many pairs there are of a predicted and a true span that overlap enough, each in one pair; best overlap first."""
    pairs = sorted(((overlap(p, t), i, j) for i, p in enumerate(predicted) for j, t in enumerate(true)), key=lambda pair: -pair[0])
    used_predicted: set[int] = set()
    used_true: set[int] = set()
    for shared, i, j in pairs:
        if shared >= LEAST_OVERLAP and i not in used_predicted and j not in used_true:
            used_predicted.add(i)
            used_true.add(j)
    return len(used_predicted)


def _scores(record: Record) -> tuple[float, float]:
    """(precision, recall)."""
    predicted = spans_of(record["prediction"])
    true = [(start, end) for start, end in known(record, "relevant_windows")]
    hits = matches(predicted, true)
    return hits / max(len(predicted), 1), hits / len(true)


def _f1(record: Record) -> Grade:
    precision, recall = _scores(record)
    value = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return Grade(value, parsed=bool(spans_of(record["prediction"])))


QV_HIGHLIGHTS = Metric(
    grade=_f1,
    more={"precision": lambda record: _scores(record)[0], "recall": lambda record: _scores(record)[1]},
)
