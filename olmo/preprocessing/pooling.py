"""Which patches form one visual token: windows over a grid of patch ids."""

import numpy as np


def pooling_index(ids: np.ndarray, pool_h: int, pool_w: int) -> np.ndarray:
    """Group a grid of patch ids into pool_h x pool_w windows.

    ids: [h, w] int -> [ceil(h / pool_h), ceil(w / pool_w), pool_h * pool_w] int64. A grid that the window does not divide
    is padded with -1 (no patch), half before and the larger half after on each axis.
    """
    pads = [((-size) % pool) for size, pool in zip(ids.shape, (pool_h, pool_w), strict=True)]
    ids = np.pad(ids.astype(np.int64), [(p // 2, p - p // 2) for p in pads], constant_values=-1)
    h, w = ids.shape[0] // pool_h, ids.shape[1] // pool_w
    return ids.reshape(h, pool_h, w, pool_w).transpose(0, 2, 1, 3).reshape(h, w, pool_h * pool_w)
