"""Random weights that a seed gives under every supported torch.

`torch.nn.init.trunc_normal_` inverts the distribution up to torch 2.10 and rejects what lies outside in 2.13: another model from the same
seed. The rest of `torch.nn.init` draws alike in all of them and is used as it is.
"""

import torch
from torch import Tensor


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float, bound: float) -> None:
    """Fill with normal numbers around 0, those beyond +-`bound` drawn again until none is left."""
    weight.normal_(0.0, std)
    if weight.is_meta:
        return
    while (outside := weight.abs() > bound).any():
        weight.copy_(torch.where(outside, torch.empty_like(weight).normal_(0.0, std), weight))
