"""From graded answers to the scores of a task: per group, for all questions, and as the mean over question types."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isclose
from typing import Any

import numpy as np

from olmo.eval.metrics.answers import normalise
from olmo.eval.metrics.metric import Metric, Record
from olmo.eval.statistics.clusters import cluster_of, codes
from olmo.eval.statistics.estimates import Sample, estimate
from olmo.exceptions import OLMoDataError

OVERALL = ("all", "average")
"""Scores that every task has: each question counts alike; each question type counts alike."""


@dataclass(frozen=True)
class Score:
    """One number of a task: a proportion of right answers, or the mean of what each answer is worth."""

    n: int
    """Questions counted."""
    correct: float
    """Sum of the values of the answers: how many are right, where an answer is right or wrong."""
    value: float
    """Mean value, in 0..1 for everything that is right or wrong."""
    low: float
    """Lower end of the 95 % interval, clustered by video."""
    high: float
    """Upper end of the 95 % interval."""
    reliable: bool
    """Whether the interval can be trusted: enough questions and videos, and a value that is not close to 0 or 1."""
    unparsed: int
    """Answers in which no answer could be read. They are counted, as wrong ones."""
    chance: float | None
    """Expected value of a uniform guess among the possible answers, or None when the records do not tell."""
    constant: float | None
    """Value of always giving the most frequent answer of each question type, what a blind model can learn; None where an answer may be
    partly right."""
    published: float | None = None
    """What the published evaluator makes of the same answers, where that differs from `value`."""
    default: float | None = None
    """Where `value` is the published evaluator's (`compat`) and the rule of this project gives another number: that number."""

    def asdict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Score":
        """A score of a `metrics.json`; an error if the file is of an older version."""
        if missing := [f.name for f in fields(cls) if f.name not in raw]:
            raise OLMoDataError(f"a score lacks {', '.join(missing)}: metrics.json is of an older version; evaluate again with --overwrite")
        return cls(**{f.name: raw[f.name] for f in fields(cls)})


def score(metric: Metric, records: Sequence[Record], compat: bool = False) -> dict[str, Score]:
    """Scores of a task by name: the groups of the metric, then `all` and `average`, then the further quantities of the metric as
    `<quantity>` and `<quantity>_<group>`.

    `average` is the mean over `question_type`. `compat`: the value is that of the published evaluator, which may leave answers out.
    No records give no scores.
    """
    if not records:
        return {}
    answers = _Answers(metric, records, compat)
    every = np.arange(len(records))
    groups = answers.rows_by(metric.groups)
    scores = {name: answers.score(rows) for name, rows in groups.items()} | {
        "all": answers.score(every),
        "average": answers.score(every, True),
    }
    for quantity, function in metric.more.items():
        values = _numbers(function(r) for r in records)
        scores[quantity] = answers.quantity(values, every)
        scores |= {f"{quantity}_{name}": answers.quantity(values, rows) for name, rows in groups.items()}
    return {name: found for name, found in scores.items() if found is not None}


def headline_values(metric: Metric, records: Sequence[Record], compat: bool = False) -> np.ndarray:
    """What each answer is worth for the headline of the metric, [n]; NaN = it is not counted there. `compat`: see `score`."""
    if metric.headline in OVERALL:
        if compat and metric.published is not None:
            return _numbers(metric.published_value(r) for r in records)
        return np.array([metric.graded(r).value for r in records], dtype=float)
    return _numbers(metric.more[metric.headline](r) for r in records)


class _Answers:
    """The answers of a task, graded once, as arrays with one entry per record."""

    def __init__(self, metric: Metric, records: Sequence[Record], compat: bool) -> None:
        self.records = records
        grades = [metric.graded(r) for r in records]
        self.values = np.array([g.value for g in grades], dtype=float)
        self.parsed = np.array([g.parsed for g in grades])
        self.types = codes(str(r.get("question_type", "all")) for r in records)
        self.videos = codes(cluster_of(r) for r in records)
        self.chance = _numbers(r.get("chance") for r in records)
        self.truths = _truths(records) if np.isin(self.values, (0.0, 1.0)).all() else None
        published = None if metric.published is None else _numbers(metric.published_value(r) for r in records)
        self.main, self.other = (published, self.values) if compat and published is not None else (self.values, published)
        self.other_is = "default" if compat else "published"

    def rows_by(self, names: Callable[[Record], Sequence[str]]) -> dict[str, np.ndarray]:
        """Name -> the records it is a name of. Questions without a type are called `all`; they are no group of their own."""
        rows: dict[str, list[int]] = defaultdict(list)
        for i, record in enumerate(self.records):
            for name in dict.fromkeys(names(record)):
                if name not in OVERALL:
                    rows[name].append(i)
        return {name: np.array(found) for name, found in rows.items()}

    def score(self, rows: np.ndarray, by_type: bool = False) -> Score | None:
        """Score of some records; None where the values leave all of them out."""
        counted = rows[~np.isnan(self.main[rows])]
        if not len(counted):
            return None
        found = estimate(self._sample(self.main, counted, by_type))
        chance = self._mean(self.chance, rows, by_type)
        other = None if self.other is None else self._mean(self.other, rows[~np.isnan(self.other[rows])], by_type)
        differs = other is not None and not isclose(other, found.value, abs_tol=1e-9)
        return Score(
            n=len(counted),
            correct=float(self.main[counted].sum()),
            **asdict(found),
            unparsed=int((~self.parsed[rows]).sum()),
            chance=None if chance is None or np.isnan(chance) else chance,
            constant=None if self.truths is None else self._constant(rows, by_type),
            **{self.other_is: other if differs else None},
        )

    def quantity(self, values: np.ndarray, rows: np.ndarray) -> Score | None:
        """Score of a further quantity on those of some records that have it; None if none has."""
        counted = rows[~np.isnan(values[rows])]
        if not len(counted):
            return None
        found = estimate(self._sample(values, counted, False))
        unparsed = int((~self.parsed[counted]).sum())
        return Score(len(counted), float(values[counted].sum()), **asdict(found), unparsed=unparsed, chance=None, constant=None)

    def _sample(self, values: np.ndarray, rows: np.ndarray, by_type: bool) -> Sample:
        videos = codes(self.videos[rows].tolist())
        return Sample.balanced(values[rows], videos, codes(self.types[rows].tolist())) if by_type else Sample.plain(values[rows], videos)

    def _mean(self, values: np.ndarray, rows: np.ndarray, by_type: bool) -> float | None:
        return self._sample(values, rows, by_type).value() if len(rows) else None

    def _constant(self, rows: np.ndarray, by_type: bool) -> float:
        """Share of the questions whose truth is the most frequent one of their type."""
        types, truths = codes(self.types[rows].tolist()), codes(self.truths[rows].tolist())
        most = np.zeros((types.max() + 1, truths.max() + 1))
        np.add.at(most, (types, truths), 1)
        return float(np.mean(most.max(1) / most.sum(1)) if by_type else most.max(1).sum() / len(rows))


def _truths(records: Sequence[Record]) -> np.ndarray | None:
    """A code of the right answer of each record: its option's place, else its (first accepted) text; None if any has no answer."""
    truths = []
    for record in records:
        answer = record.get("answer_idx")
        if answer is None:
            answer = record.get("answer")
            answer = normalise(str(answer[0] if isinstance(answer, list) else answer)) if answer or answer == 0 else None
        if answer is None:
            return None
        truths.append(answer)
    return codes(truths)


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    """As an array in which NaN stands for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)
