"""Flex attention, and the block-sparse mask that it takes, from a rule about pairs of tokens.

Torch's own `create_block_mask` either holds the whole [S, S] mask, or has to be compiled anew for every length: seconds to minutes
each time. Here the rule is asked band by band of queries, in a few kernels per band and with nothing to compile; the blocks are the same.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
"""Tokens of a block, queries and keys."""
BAND = 8 * BLOCK
"""Queries that are compared with all keys at a time: a few megabytes for every ten thousand keys."""

Rule = Callable[[Tensor, None, Tensor, Tensor], Tensor]
"""(row, head, query, key), integers that broadcast -> bool: may this query see this key? The head plays no part."""


def block_mask(rule: Rule, rows: int, length: int, device: torch.device) -> BlockMask:
    """Blocks of `rows` sequences of `length` tokens in which all, some or no pairs are allowed. Never waits for the device."""
    row, keys = torch.arange(rows, device=device)[:, None, None], torch.arange(length, device=device)
    counts = []
    for queries in torch.arange(length, device=device).split(BAND):
        pairs = rule(row, None, queries[:, None], keys).expand(rows, len(queries), length)
        pairs = F.pad(pairs, (0, -length % BLOCK, 0, -len(queries) % BLOCK))
        counts.append(pairs.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).sum((2, 4)))
    allowed = torch.cat(counts, dim=1)[:, None]  # [B, 1, S / BLOCK, S / BLOCK]
    whole = allowed == BLOCK * BLOCK
    blocks = (*_listed((allowed > 0) & ~whole), *_listed(whole))
    return BlockMask.from_kv_blocks(*blocks, BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(length, length))


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block has, [...], and their numbers, those chosen first, [..., blocks]."""
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1).to(torch.int32), order.to(torch.int32)


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, dynamic: bool | None = None) -> Tensor:
    """Attention of q [B, H, S, hd] over k, v [B, KV, S, hd], with KV dividing H: one fused kernel on GPUs; on CPUs the same
    mathematics with all logits at once, which serves as reference. `dynamic`: of `torch.compile`, for calls from code that is
    not compiled itself."""
    # compiled code takes the operator as it stands; to ask there for what is compiled already would compile the caller twice
    fused = q.is_cuda and not torch.compiler.is_compiling()
    kernel = _fused(dynamic) if fused else flex_attention
    return kernel(q, k, v, block_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


@functools.cache
def _fused(dynamic: bool | None) -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=dynamic)
