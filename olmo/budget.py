"""How many cells of a video are dropped: one function, called by the packer before the model runs and by the model itself.

The number is an exact host integer, so that every length after pruning is known before the forward pass starts and
nothing has to wait for the device.
"""

import numpy as np


def pruning_budget(num_frames: int, cells_per_frame: int, topk: float, prune_from_frame: int = 0) -> int:
    """Cells dropped from one video of `num_frames` frames with `cells_per_frame` cells each.

    `topk` is the fraction *removed*. The order of the roundings is part of the contract (fp32 product of a float64
    product, then truncation): any other order is off by one for some inputs, and checkpoints were trained with this one.
    The first frame is always kept whole, so at most `cells_per_frame * (num_frames - 1)` cells leave.
    """
    per_frame = np.float32(cells_per_frame * topk)
    budget = int(per_frame * np.float32(num_frames - prune_from_frame))
    return max(0, min(budget, cells_per_frame * (num_frames - 1)))
