"""The one place where attention is computed.

`attend` is dense attention over [batch, heads, tokens, head_dim] with an optional mask. `attend_segments` is attention
over a flat run of tokens in which every token sees its own segment only; it never builds a mask, which is what makes
pruned frames cheap. Both take a key bias (one number added to every logit of a key) that fast kernels do not offer:
it travels as one more channel of the keys, see `append_key_bias`.
"""

import functools
import inspect
import logging
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from olmo.exceptions import OLMoConfigurationError

log = logging.getLogger(__name__)

KERNELS = {
    "all": None,
    "math": [SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH],
}
"""SDPA kernels that each name of `sdpa_backend` allows on CUDA; math stands in where the named one cannot run."""


@dataclass
class Segments:
    """Lengths of the segments of a flat run of tokens.

    Only host integers size the tensors; the lengths themselves may live on the device because they depend on scores.
    """

    cu_seqlens: Tensor
    """int32 [n + 1] on the device: where each segment starts, and the total."""
    total: int
    """Tokens of all segments together."""
    max_len: int
    """No segment is longer."""
    lengths: tuple[int, ...] | None = None
    """The lengths on the host, where they are known."""

    def host_lengths(self) -> tuple[int, ...]:
        """The lengths as host integers, read from the device once; only the `split` backend asks for them."""
        if self.lengths is None:
            self.lengths = tuple(self.cu_seqlens.diff().tolist())
        return self.lengths


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
    key_bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    kernels: str = "all",
) -> Tensor:
    """Dense attention. q: [B, H, S, hd]; k, v: [B, KV, S', hd] with KV dividing H; returns [B, H, S, hd].

    `mask` is boolean (True = may attend) or an additive float, broadcastable to [B, H, S, S']; `key_bias` is [B, S'].
    `kernels` narrows the SDPA kernels on CUDA (see `KERNELS`).
    """
    head_dim = v.shape[-1]
    scale = head_dim**-0.5 if scale is None else scale
    if key_bias is not None:
        q, k, v = append_key_bias(q, k, v, key_bias[:, None, :, None], scale)
    allowed = KERNELS[kernels] if q.is_cuda else None
    with sdpa_kernel(allowed) if allowed else nullcontext():
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out[..., :head_dim]


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

    `auto` takes the first backend that can run: on CUDA `torch_varlen` or `flash_attn` (half precision only) or `padded`,
    none of which synchronises with the host; on CPU `split`, or `padded` where segments are tiny. All give the same
    numbers.
    """
    if segments.total == 0:
        return q
    head_dim = v.shape[-1]
    scale = head_dim**-0.5 if scale is None else scale
    if key_bias is not None:
        q, k, v = append_key_bias(q, k, v, key_bias[:, None, None], scale)
    if backend == "auto":
        tiny = True if segments.max_len <= TINY else False  # a branch: compiled code needs a constant
        backend = _choose_backend(q.device.type, q.dtype, q.shape[1] != k.shape[1], tiny)
    if backend not in SEGMENT_BACKENDS:
        raise OLMoConfigurationError(f"unknown attention backend '{backend}'; known: auto, {', '.join(SEGMENT_BACKENDS)}")
    return SEGMENT_BACKENDS[backend](q, k, v, segments, scale)[..., :head_dim]


def _split(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """One SDPA call per segment: the fastest on CPU. `split` once, not slices, else the backward is 5x slower."""
    lengths = segments.host_lengths()
    parts = []
    for qs, ks, vs in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        if qs.shape[0]:
            heads_first = (x.transpose(0, 1)[None] for x in (qs, ks, vs))  # [1, heads, length, hd]
            parts.append(attend(*heads_first, scale=scale)[0].transpose(0, 1))
    return torch.cat(parts)


def _padded(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """Every segment as one row of a dense masked batch: any device, any dtype, no host synchronisation, more memory."""
    start = segments.cu_seqlens.long()
    slot = torch.arange(segments.max_len, device=q.device)
    where = start[:-1, None] + slot  # [n, max_len]
    valid = where < start[1:, None]
    gather = where.clamp(max=segments.total - 1)
    rows = (x[gather].transpose(1, 2) for x in (q, k, v))  # [n, heads, max_len, hd]
    # A row with no valid key (an empty segment) attends everywhere: its output is read by nobody, and stays finite.
    out = attend(*rows, mask=(valid | ~valid.any(1, keepdim=True))[:, None, None], scale=scale).transpose(1, 2)
    token = torch.arange(segments.total, device=q.device)
    row = torch.searchsorted(start[1:], token, right=True)
    return out[row, token - start[row]]


def _torch_varlen(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    cu, longest = segments.cu_seqlens, segments.max_len
    gqa = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    return varlen_attn(q, k, v, cu, cu, longest, longest, scale=scale, **gqa)


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    cu, longest = segments.cu_seqlens, segments.max_len
    return flash_attn_varlen_func(q, k, v, cu, cu, longest, longest, softmax_scale=scale)


TINY = 32
"""Longest segment for which, on CPU, one padded call beats a call per segment (measured: 3x at 9 tokens, even at 40)."""

SEGMENT_BACKENDS = {"split": _split, "torch_varlen": _torch_varlen, "flash_attn": _flash_attn, "padded": _padded}


@torch.compiler.assume_constant_result
def _choose_backend(device: str, dtype: torch.dtype, gqa: bool, tiny: bool) -> str:
    """The backend to use; compiled code asks once, while it is compiled."""
    return _pick_and_tell(device, dtype, gqa, tiny)


@functools.cache
def _pick_and_tell(device: str, dtype: torch.dtype, gqa: bool, tiny: bool) -> str:
    """Pick the backend for a device and dtype, once, and say so."""
    if device != "cuda":
        choice = "padded" if tiny else "split"
    elif dtype not in (torch.bfloat16, torch.float16):
        choice = "padded"
    elif _offers_varlen(gqa):
        choice = "torch_varlen"
    elif _offers_flash_attn():
        choice = "flash_attn"
    else:
        choice = "padded"
    log.info("attention of pruned frames: %s (%s, %s)", choice, device, dtype)
    return choice


def _offers_varlen(gqa: bool) -> bool:
    """Whether this torch has the variable-length kernel with the arguments needed here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    arguments = inspect.signature(varlen_attn).parameters
    return "scale" in arguments and (not gqa or "enable_gqa" in arguments)


def _offers_flash_attn() -> bool:
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        return False
    return True
