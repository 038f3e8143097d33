"""Which patches form one visual token: windows over a grid of patch ids."""

from functools import cache

import numpy as np

NO_PATCH = -1
"""Fills windows that reach over the edge of the grid, and rows of `token_pooling` without a token."""


def pooling_index(ids: np.ndarray, pool_h: int, pool_w: int) -> np.ndarray:
    """Group a grid of patch ids into pool_h x pool_w windows.

    ids: [h, w] int -> [ceil(h / pool_h), ceil(w / pool_w), pool_h * pool_w] int64. A grid that the window does not divide
    is padded with -1 (no patch), half before and the larger half after on each axis.
    """
    pads = [((-size) % pool) for size, pool in zip(ids.shape, (pool_h, pool_w), strict=True)]
    ids = np.pad(ids.astype(np.int64), [(p // 2, p - p // 2) for p in pads], constant_values=NO_PATCH)
    h, w = ids.shape[0] // pool_h, ids.shape[1] // pool_w
    return ids.reshape(h, pool_h, w, pool_w).transpose(0, 2, 1, 3).reshape(h, w, pool_h * pool_w)


@cache
def frame_windows(grid: tuple[int, int], pool_h: int, pool_w: int) -> np.ndarray:
    """`pooling_index` of one whole frame or crop, its patches counted row by row. The same for all of them, so read-only."""
    windows = pooling_index(np.arange(grid[0] * grid[1]).reshape(grid), pool_h, pool_w)
    windows.flags.writeable = False
    return windows


def shifted(pooling: np.ndarray, offset: int | np.ndarray) -> np.ndarray:
    """The same windows over patches that come `offset` later; empty places stay empty."""
    return np.where(pooling >= 0, pooling + offset, NO_PATCH)
