"""Accuracy with its interval, beside what blind guessing would reach."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from olmo.eval.metrics.answers import normalise
from olmo.eval.metrics.intervals import cluster_weights, wilson_interval

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """One proportion of right answers."""

    n: int
    """Questions asked."""
    correct: int
    """Questions answered correctly (an answer that cannot be read counts as wrong)."""
    value: float
    """Accuracy in 0..1."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    chance: float | None
    """Expected accuracy of a uniform guess among the possible answers, or None when the records do not tell."""
    constant: float
    """Accuracy of always giving the most frequent answer of this type: what a blind model can learn."""

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def accuracy_by_type(records: Sequence[Mapping[str, Any]], is_correct: Callable[[Mapping[str, Any]], bool]) -> dict[str, Score]:
    """Scores per `question_type`, then `all` (every question counts alike) and `average` (every type counts alike).

    Types and `all` carry Wilson intervals. `average` carries a bootstrap interval over videos, because questions about
    one video are not independent.
    """
    if not records:
        return {}
    right = np.array([bool(is_correct(r)) for r in records])
    types = np.array([str(r.get("question_type", "all")) for r in records])
    names = list(dict.fromkeys(types.tolist()))
    scores = {name: _proportion([r for r, t in zip(records, types, strict=True) if t == name], right[types == name]) for name in names}
    by_type = list(scores.values())
    constant = sum(s.constant * s.n for s in by_type) / len(records)
    scores["all"] = _proportion(records, right, constant)
    low, high = _average_interval(records, right, types, names)
    chances = [s.chance for s in by_type]
    scores["average"] = Score(
        n=len(records),
        correct=int(right.sum()),
        value=float(np.mean([s.value for s in by_type])),
        low=low,
        high=high,
        chance=None if None in chances else float(np.mean(chances)),
        constant=float(np.mean([s.constant for s in by_type])),
    )
    return scores


def type_averages(right: np.ndarray, types: np.ndarray, names: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """Mean over types of the weighted accuracy of each type; weights [samples, n] -> [samples] (empty types are left out)."""
    per_type = []
    for name in names:
        chosen = types == name
        total = weights[:, chosen].sum(1)
        hits = weights[:, chosen] @ right[chosen].astype(float)
        per_type.append(np.divide(hits, total, out=np.full(len(weights), np.nan), where=total > 0))
    return np.nanmean(np.stack(per_type), axis=0)


def _average_interval(records, right: np.ndarray, types: np.ndarray, names: Sequence[str]) -> tuple[float, float]:
    weights = cluster_weights([cluster_of(r) for r in records], BOOTSTRAP_SAMPLES, seed=0)
    low, high = np.percentile(type_averages(right, types, names, weights), [2.5, 97.5])
    return float(low), float(high)


def cluster_of(record: Mapping[str, Any]) -> Any:
    """What records share when they are about the same video."""
    return record.get("video") or record["example_id"]


def _proportion(records: Sequence[Mapping[str, Any]], right: np.ndarray, constant: float | None = None) -> Score:
    n, correct = len(records), int(right.sum())
    low, high = wilson_interval(correct, n)
    chances = [r.get("chance") for r in records]
    if constant is None:
        answers = Counter(normalise(r["answer"] if isinstance(r["answer"], str) else r["answer"][0]) for r in records)
        constant = answers.most_common(1)[0][1] / n
    chance = None if None in chances else float(np.mean(chances))
    return Score(n, correct, correct / n, low, high, chance, constant)
