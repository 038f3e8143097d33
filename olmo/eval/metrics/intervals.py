"""Intervals of proportions and means."""

from collections.abc import Hashable, Sequence
from math import sqrt

import numpy as np

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


def wilson_interval(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion.

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 % or 100 %, where small test sets end up.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} is not a proportion")
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return low, high


def cluster_weights(clusters: Sequence[Hashable], samples: int, seed: int) -> np.ndarray:
    """Bootstrap over clusters: how often each record is drawn in each of `samples` resamples, [samples, n].

    Questions about one video are right or wrong together, so whole videos are drawn, not questions.
    """
    ids = {c: i for i, c in enumerate(dict.fromkeys(clusters))}
    index = np.array([ids[c] for c in clusters])
    draws = np.random.default_rng(seed).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=samples)
    return draws[:, index]
