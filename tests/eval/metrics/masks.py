"""Masks for tests, written as data sets write them."""

import numpy as np
from pycocotools import mask as coco


def box(height: int, width: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """A picture whose pixels are set from (top, left) up to but not including (bottom, right)."""
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def rle(mask: np.ndarray) -> dict:
    """COCO run lengths as they stand in JSON."""
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def decode(mask: dict) -> np.ndarray:
    """The picture of run lengths, bool [height, width]."""
    return coco.decode(mask).astype(bool)
