"""The one place where attention is computed.

`attend` is dense attention over [batch, heads, tokens, head_dim] with an optional mask. `attend_segments` is attention
over a flat run of tokens in which every token sees its own segment only; it never builds a mask, which is what makes
pruned frames cheap. Both take a key bias (one number added to every logit of a key) that fast kernels do not offer:
it travels as one more channel of the keys, see `append_key_bias`.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from olmo.nn.segment_backends import SEGMENT_BACKENDS, TINY, Segments, choose_backend

__all__ = ["KERNELS", "Segments", "append_key_bias", "attend", "attend_segments"]

KERNELS = {
    "all": None,
    "math": [SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH],
}
"""SDPA kernels that each name of `sdpa_backend` allows on CUDA; math stands in where the named one cannot run."""


FEW_KEYS = 16
"""Up to so many keys of a single query are pooled by compiled code of our own instead of an attention kernel."""


def append_key_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Express `logit[i, j] += bias[j]` as extra channels: q' = [q, 1], k' = [k, bias / scale], v' = [v, 0].

    `bias` must broadcast against k[..., :1]. Half precision would round the bias too coarsely, so there it is split into
    a rounded part and the remainder, one channel each; autograd sees their sum, so the bias gets its gradient once.
    Kernels want a multiple of 8 channels. The caller passes `scale` to the kernel (its default would be that of the
    padded width) and cuts the output back.
    """
    exact = (bias / scale).to(torch.promote_types(k.dtype, torch.float32)).expand(*k.shape[:-1], 1)
    parts = [exact.to(k.dtype)]
    if k.dtype in (torch.bfloat16, torch.float16):
        parts.append((exact - parts[0].float()).to(k.dtype))
    width = q.shape[-1] + len(parts)
    pad = -width % 8
    q = torch.cat([q, q.new_ones(*q.shape[:-1], len(parts)), q.new_zeros(*q.shape[:-1], pad)], dim=-1)
    k = torch.cat([k, *parts, k.new_zeros(*k.shape[:-1], pad)], dim=-1)
    return q, k, F.pad(v, (0, width + pad - v.shape[-1]))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    key_bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    kernels: str = "all",
) -> Tensor:
    """Dense attention. q: [B, H, S, hd]; k, v: [B, KV, S', hd] with KV dividing H; returns [B, H, S, hd].

    `mask` is boolean (True = may attend) or an additive float, broadcastable to [B, H, S, S']; `key_bias` is [B, S'].
    `causal` (instead of a mask) hides later keys. `kernels` narrows the SDPA kernels on CUDA (see `KERNELS`).
    """
    head_dim = v.shape[-1]
    scale = head_dim**-0.5 if scale is None else scale
    if key_bias is not None:
        q, k, v = append_key_bias(q, k, v, key_bias[:, None, :, None], scale)
    if q.shape[2] == 1 and q.shape[1] != k.shape[1] and (mask is None or mask.shape[1] == 1):
        # decoding: the heads that share a key are as many queries of it, so that no kernel has to repeat the cache
        queries = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])
        out = attend(queries, k, v, mask=mask, scale=scale, dropout=dropout, kernels=kernels)
        return out.reshape(*q.shape[:-1], head_dim)
    if q.shape[2] == 1 and k.shape[2] <= FEW_KEYS and q.shape[1] == k.shape[1] and not dropout and torch.compiler.is_compiling():
        return attend_few(q, k, v, mask, scale)[..., :head_dim]
    allowed = KERNELS[kernels] if q.is_cuda else None
    with sdpa_kernel(allowed) if allowed else nullcontext():
        gqa = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=gqa)
    return out[..., :head_dim]


def attend_few(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """One query over a handful of keys, as the scorer and the connector pool a cell: q [B, H, 1, hd], k and v [B, H, n, hd].

    Written out, because compiled it is one pass over keys and values, where kernels for long sequences pad queries and keys (0.85 ms
    for the cells of 64 frames on an H200, of which reading keys and values is 0.05). Eager code would store every product.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = (q.to(wide) * k.to(wide)).sum(-1) * scale  # [B, H, n]
    if mask is not None:
        mask = mask[..., 0, :]
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return (logits.softmax(-1)[..., None] * v.to(wide)).sum(-2, keepdim=True).to(v.dtype)


def attend_segments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Segments,
    *,
    key_bias: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention within segments of a flat run. q: [T, H, hd]; k, v: [T, KV, hd]; key_bias: [T]; returns [T, H, hd].

    `auto` takes the first of `SEGMENT_BACKENDS` that can run without synchronising with the host; on CPU that is `split`, or
    `padded` where segments are tiny. All give the same numbers; one that cannot run is an error that says why.
    """
    if segments.total == 0:
        return q
    head_dim = v.shape[-1]
    scale = head_dim**-0.5 if scale is None else scale
    if key_bias is not None:
        q, k, v = append_key_bias(q, k, v, key_bias[:, None, None], scale)
    tiny = True if segments.max_len <= TINY else False  # a branch: compiled code needs a constant
    gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    request = (q.device.type, q.dtype, q.shape[1] != k.shape[1], q.shape[-1], gradient, tiny)
    return SEGMENT_BACKENDS[choose_backend(backend, *request)].run(q, k, v, segments, scale)[..., :head_dim]
