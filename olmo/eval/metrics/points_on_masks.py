"""Predicted points against the masks of objects: which belong together, whether a point lies on a mask, and the scores that follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo.eval.metrics.answers import normalise
from olmo.exceptions import OLMoDataError, missing_package
from olmo.preprocessing.points import NO_POINTS, NO_TRACKS

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


def decode_mask(mask: Mapping[str, Any], where: str) -> np.ndarray:
    """A mask as COCO writes it (`size` = height and width, `counts` = compressed run lengths) as bool [height, width].

    OLMoDataError, which begins with `where`, if it is something else.
    """
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise missing_package("pycocotools", "eval", "reading masks") from None
    try:
        return coco.decode({"size": mask["size"], "counts": mask["counts"]}).astype(bool)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as err:
        reason = f"{type(err).__name__}: {err}"
        wanted = "COCO run lengths (size: [height, width], counts: text)"
        raise OLMoDataError(f"{where}: a mask should be {wanted}, but cannot be read ({reason})") from None


def lies_on(mask: np.ndarray, x: float, y: float, width: float, height: float) -> bool:
    """Whether a point of a picture of `width` x `height` lies on the mask: the pixel nearest to it.

    The mask may be smaller or larger than the picture. The far edge belongs to the last pixel.
    """
    rows, columns = mask.shape
    row, column = (min(round(at * pixels / size), pixels - 1) for at, pixels, size in ((y, rows, height), (x, columns, width)))
    return bool(mask[row, column])


def says_nothing_there(text: str) -> bool:
    """Whether an answer without points says that there are none to show, as models are taught to say it."""
    return any(sentence in normalise(text) for sentence in _NOTHING)
