"""McNemar's test: whether two runs that differ on some questions differ by more than luck.

It looks only at the questions that one of the runs alone has right. It takes each for independent and so ignores that questions
about one video are answered alike; where they are, its p is too small, and the interval of the difference is to be believed.
"""

from dataclasses import dataclass
from math import exp, fsum, lgamma, log

import numpy as np

IGNORES = "McNemar's test takes every question for independent: where questions about one video are answered alike, its p is too small"


@dataclass(frozen=True)
class McNemar:
    """Both forms of the test, two-sided."""

    only_first: int
    """Questions that only the first run has right."""
    only_second: int
    exact: float
    """p of the exact test, which errs on the side of no difference."""
    mid: float
    """p with half the probability of what was seen (mid-p), which is closer to what it says."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar | None:
    """Test on values of the same questions, [n] each; None where an answer may be partly right, because then there is no such test."""
    if not np.isin([first, second], (0.0, 1.0)).all():
        return None
    only_first, only_second = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    logs = [lgamma(tosses + 1) - lgamma(k + 1) - lgamma(tosses - k + 1) - tosses * log(2) for k in range(fewer + 1)]
    below = fsum(exp(x) for x in logs)
    return McNemar(only_first, only_second, min(1.0, 2 * below), min(1.0, 2 * below - exp(logs[-1])))
