"""What a metric is: how one answer is graded, and in which scores the grade counts.

A metric never sees a model, a tokenizer or a process group: whatever it needs stands in the prediction file, so every number can be
computed again later from what was saved.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
"""One line of a prediction file: a question, what is known about it, and the answer that was given."""


@dataclass(frozen=True)
class Grade:
    """What one answer is worth."""

    value: float
    """0 = wrong .. 1 = right."""
    parsed: bool = True
    """Whether an answer could be read out of the text at all; if not, the value is that of a wrong answer."""


def _no_groups(record: Record) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Metric:
    """How the answers of a task become numbers."""

    grade: Callable[[Record], Grade]
    """The main quantity of one answer."""
    groups: Callable[[Record], Sequence[str]] = _no_groups
    """Names of the scores, besides `all`, that an answer counts in: its category, the length of its video."""
    more: Mapping[str, Callable[[Record], float | None]] = field(default_factory=dict)
    """Further quantities of one answer by their name; None = it has none, and is not counted."""
    published: Callable[[Record], float | None] | None = None
    """What the published evaluator makes of the answer where that differs; None as a result = it leaves the answer out."""
    headline: str = "all"
    """The score that stands for the task in averages over tasks: `all` questions alike, or the `average` over question types."""

    def graded(self, record: Record) -> Grade:
        """The grade of a record; where a video could not be read nothing was answered, which is wrong whatever the question."""
        return Grade(0.0, parsed=False) if record.get("failed") else self.grade(record)

    def published_value(self, record: Record) -> float | None:
        """What the published evaluator makes of a record; wrong too where a video could not be read."""
        assert self.published is not None
        return 0.0 if record.get("failed") else self.published(record)
