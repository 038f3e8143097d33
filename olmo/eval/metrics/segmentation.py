"""J&F of masks against true masks, as the DAVIS challenge defines it: how much of an object is covered, and how well its outline fits."""

from dataclasses import dataclass
from math import ceil, hypot

import numpy as np

from olmo.exceptions import missing_package

TOLERANCE = 0.008
"""How far an outline may be off, as a share of the picture's diagonal."""


@dataclass(frozen=True)
class RegionAndContour:
    """Means over all masks, each in 0..1."""

    j: float
    """Region similarity."""
    f: float
    """Contour accuracy."""

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2


def j_and_f(predicted: np.ndarray, truth: np.ndarray) -> RegionAndContour:
    """Scores of masks [..., H, W] (objects, frames or both before the picture) against true ones of the same shape.

    Every mask counts alike. An object without a mask in a frame is an empty mask.
    """
    if predicted.shape != truth.shape or truth.ndim < 3 or not truth.size:
        raise ValueError(f"masks should have one shape [..., height, width], but have {predicted.shape} and {truth.shape}")
    pairs = list(zip(predicted.reshape(-1, *truth.shape[-2:]), truth.reshape(-1, *truth.shape[-2:]), strict=True))
    return RegionAndContour(
        float(np.mean([region_similarity(*pair) for pair in pairs])), float(np.mean([contour_accuracy(*pair) for pair in pairs]))
    )


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J of two masks [H, W]: intersection over union; 1 where both are empty."""
    predicted, truth = predicted.astype(bool), truth.astype(bool)
    union = (predicted | truth).sum()
    return float((predicted & truth).sum() / union) if union else 1.0


def contour_accuracy(predicted: np.ndarray, truth: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F of two masks [H, W]: F1 of the pixels of their outlines, each right if the other outline is within reach.

    The reach is `tolerance` times the diagonal, in whole pixels upwards. 1 where neither mask has an outline, 0 where one of them has.
    """
    ours, theirs = outline(predicted), outline(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    reach = ceil(tolerance * hypot(*truth.shape))
    precision = _within(theirs, reach)[ours].mean()
    recall = _within(ours, reach)[theirs].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask [H, W] that differ from the one to the right, below, or right below. The picture's edge is no outline."""
    padded = np.pad(mask.astype(bool), ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:])


def _within(contour: np.ndarray, reach: int) -> np.ndarray:
    """Pixels at most `reach` away from a pixel of the outline."""
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError:
        raise missing_package("scipy", "eval", "comparing outlines of masks") from None
    return distance_transform_edt(~contour) <= reach
