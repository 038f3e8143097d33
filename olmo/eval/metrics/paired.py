"""Two models on the same questions: the difference of their averages, with an interval that uses the pairing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo.eval.metrics.accuracy import BOOTSTRAP_SAMPLES, cluster_of, type_averages
from olmo.eval.metrics.intervals import cluster_weights


@dataclass(frozen=True)
class PairedDifference:
    """Average accuracy (over question types) of the second model minus that of the first."""

    n: int
    """Questions both answered."""
    value: float
    low: float
    high: float


def paired_difference(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], is_correct: Callable[[Mapping[str, Any]], bool]
) -> PairedDifference:
    """Difference second - first on the questions that both answered, with a 95 % bootstrap interval over videos."""
    by_id = {r["example_id"]: r for r in second}
    pairs = [(a, by_id[a["example_id"]]) for a in first if a["example_id"] in by_id]
    if not pairs:
        raise ValueError("the two prediction lists share no question")
    right = np.array([[is_correct(a), is_correct(b)] for a, b in pairs])
    types = np.array([str(a.get("question_type", "all")) for a, _ in pairs])
    names = list(dict.fromkeys(types.tolist()))
    weights = np.concatenate(
        [np.ones((1, len(pairs)), dtype=int), cluster_weights([cluster_of(a) for a, _ in pairs], BOOTSTRAP_SAMPLES, seed=0)]
    )
    delta = type_averages(right[:, 1], types, names, weights) - type_averages(right[:, 0], types, names, weights)
    low, high = np.percentile(delta[1:], [2.5, 97.5])
    return PairedDifference(len(pairs), float(delta[0]), float(low), float(high))
