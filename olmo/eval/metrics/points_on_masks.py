"""Predicted points against the masks of objects: which belong together, whether a point lies on a mask, and the scores that follow."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from olmo.eval.metrics.answers import normalise
from olmo.exceptions import OLMoDataError, missing_package
from olmo.preprocessing.points import NO_POINTS, NO_TRACKS

_COUNTS = re.compile(r"[0-o]*[0-O]")
"""Numbers in digits of five bits, from "0"; all but the last digit of a number have a sixth bit."""
_NOTHING = tuple(normalise(sentence) for sentence in (NO_POINTS, NO_TRACKS))


@dataclass(frozen=True)
class PointScores:
    """Scores of a set of points, each in 0..1."""

    precision: float
    recall: float
    f1: float


WRONG = PointScores(0.0, 0.0, 0.0)
"""What an answer is worth that could not be asked for."""


def point_scores(hits: int, predicted: int, wanted: int) -> PointScores:
    """Scores of `predicted` points, of which `hits` lie on an object of their own, for `wanted` objects. All 1 where both are 0."""
    if not predicted or not wanted:
        value = float(predicted == wanted)
        return PointScores(value, value, value)
    return PointScores(hits / predicted, hits / wanted, 2 * hits / (predicted + wanted))


def assignment(cost: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, column) of the smallest total cost; as many as there are rows or columns, whichever are fewer."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise missing_package("scipy", "eval", "matching points with objects") from None
    rows, columns = linear_sum_assignment(cost)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distance of every point of `first` [n, d] from every point of `second` [m, d], [n, m]."""
    return np.linalg.norm(first[:, None] - second[None], axis=-1)


def lies_on(mask: Mapping[str, Any], x: float, y: float, width: float, height: float, where: str) -> bool:
    """Whether a point of a picture of `width` x `height` lies on a mask: whether the pixel nearest to it does.

    `mask`: as COCO writes it, `size` = [height, width] and `counts` = compressed run lengths. It may be smaller or larger than the
    picture; the far edge belongs to the last pixel. OLMoDataError, which begins with `where`, if it is no such mask.
    """
    size = mask.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise OLMoDataError(f"{where}: the size of a mask should be [height, width], but is {size}")
    rows, columns = size
    counts = mask.get("counts")
    if not (isinstance(counts, str) and _COUNTS.fullmatch(counts)):
        raise OLMoDataError(f"{where}: the counts of a mask should be run lengths as COCO compresses them, but are {str(counts)[:40]!r}")
    ends = _run_ends(counts)
    if ends[-1] != rows * columns or list(ends) != sorted(ends):
        wanted = f"should be 0 or more each, and {rows * columns} together"
        raise OLMoDataError(f"{where}: the run lengths of a mask of {rows} x {columns} {wanted}, but end at {ends[-1]}")
    row, column = (min(round(at * pixels / size), pixels - 1) for at, pixels, size in ((y, rows, height), (x, columns, width)))
    return bisect_right(ends, column * rows + row) % 2 == 1  # down the columns; the first run is outside


@lru_cache(maxsize=1024)  # every quantity of an answer asks for the same masks
def _run_ends(counts: str) -> tuple[int, ...]:
    """Where the runs of a mask end, outside and inside in turn.

    Only pixels are asked for, which takes no picture: decoding one of 720p with pycocotools takes 2 ms, and its operations on run
    lengths never return from a mask that is cut off.
    """
    runs: list[int] = []
    number = bits = 0
    for digit in (ord(letter) - ord("0") for letter in counts):
        number |= (digit & 0b11111) << bits
        bits += 5
        if digit & 0b100000:  # the number goes on
            continue
        if digit & 0b10000:  # it is negative
            number -= 1 << bits
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))  # later runs are told as differences from the last of their kind
        number = bits = 0
    return tuple(accumulate(runs))


def says_nothing_there(text: str) -> bool:
    """Whether an answer without points says that there are none to show, as models are taught to say it."""
    return any(sentence in normalise(text) for sentence in _NOTHING)
