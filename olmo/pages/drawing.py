"""Colours and curves that look alike on every page."""

from collections.abc import Sequence

import numpy as np

COLOURS = ("#8a94a6", "#0f8a7e", "#c2703d", "#6d5bd0", "#b8435f")
"""One per run, in order."""


def run_colours(names: Sequence[str]) -> dict[str, str]:
    """The colour of every run, the same in all charts and in the text, whichever runs a chart shows."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Mean over up to `reach` neighbours on either side, shorter at the ends, so that the curve keeps its length."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
