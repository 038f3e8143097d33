"""Patches back to pictures."""

import numpy as np


def unpatchify(patches: np.ndarray, grid: tuple[int, int], patch: int) -> np.ndarray:
    """Inverse of `olmo.preprocessing.images.patchify`: [T, N, patch * patch * 3] -> [T, H, W, 3]."""
    h, w = grid
    x = patches.reshape(-1, h, w, patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, h * patch, w * patch, 3)
