"""Attention within the segments of a flat run of tokens: every implementation, and what each of them can do.

One signature: q [T, H, hd], k and v [T, KV, hd] with KV dividing H, the segments, the scale; the result is [T, H, hd]. What a
backend supports is data (`Backend`), so that choosing one, and saying why one cannot run, is going through a table.
"""

import functools
import importlib.util
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.block_mask import attend_blocks, block_mask

log = logging.getLogger(__name__)

HALF = (torch.bfloat16, torch.float16)
FLOATS = (*HALF, torch.float32, torch.float64)

TINY = 32
"""Longest segment for which, on CPU, one padded call beats a call per segment (measured: 3x at 9 tokens, even at 40)."""


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
    block_mask: object = field(default=None, repr=False)
    """The mask of flex attention, made when it is first asked for and shared by all blocks of the pass."""

    def host_lengths(self) -> tuple[int, ...]:
        """The lengths as host integers, read from the device once; only the `split` backend asks for them."""
        if self.lengths is None:
            self.lengths = tuple(self.cu_seqlens.diff().tolist())
        return self.lengths

    def owner(self) -> Tensor:
        """[T] number of the segment of every token, counted on the device."""
        token = torch.arange(self.total, device=self.cu_seqlens.device)
        return torch.searchsorted(self.cu_seqlens[1:].long(), token, right=True)


@dataclass(frozen=True)
class Request:
    """What is known about a call before it runs; all of it is constant while code is compiled."""

    device: str
    dtype: torch.dtype
    gqa: bool
    head_dim: int
    """As the kernel sees it: 72, or 80 with the channels of a key bias."""
    gradient: bool
    tiny: bool
    """No segment is longer than TINY."""


@dataclass(frozen=True)
class Backend:
    """An implementation and what it supports."""

    run: Callable[[Tensor, Tensor, Tensor, Segments, float], Tensor]
    devices: tuple[str, ...] | None = None
    """Devices on which it runs; None = all."""
    dtypes: tuple[torch.dtype, ...] = FLOATS
    gradient: tuple[str, ...] | None = None
    """Devices on which it has a backward pass; None = all on which it runs."""
    head_dims: tuple[int, int, int] = (1, 1 << 16, 1)
    """Smallest, largest, and what they must be a multiple of."""
    compiles: bool = True
    """Stands inside a compiled graph; else the graph ends before it and goes on behind it."""
    host_sync: bool = False
    """Reads the lengths from the device, once per pass."""
    auto: Callable[[Request], bool] = lambda request: True
    """Whether `auto` may take it where it can run."""
    missing: Callable[[Request], str | None] = lambda request: None
    """What is not installed that it needs, if anything."""

    def obstacle(self, request: Request) -> str | None:
        """Why it cannot do what is asked; None = it can."""
        least, most, multiple = self.head_dims
        if self.devices is not None and request.device not in self.devices:
            return f"it runs on {' and '.join(self.devices)}, not on {request.device}"
        if request.dtype not in self.dtypes:
            return f"it computes in {_names(self.dtypes)}, not in {_names([request.dtype])}"
        if not least <= request.head_dim <= most or request.head_dim % multiple:
            return f"it takes heads of {least} to {most} channels in multiples of {multiple}, not {request.head_dim}"
        if request.gradient and self.gradient is not None and request.device not in self.gradient:
            return f"it has no backward pass on {request.device}"
        return self.missing(request)


def _names(dtypes) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


# -- the implementations


def _torch_varlen(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """The variable-length FlashAttention that comes with torch."""
    from torch.nn.attention.varlen import varlen_attn

    cu, longest = segments.cu_seqlens, segments.max_len
    options = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    if _varlen_takes("scale"):
        options["scale"] = scale
    elif scale != q.shape[-1] ** -0.5:
        q = q * (scale * q.shape[-1] ** 0.5)  # torch 2.10 always divides by the square root of the width
    return varlen_attn(*_dense_channels(q, k, v), cu, cu, longest, longest, **options)


@torch.compiler.assume_constant_result
def _varlen_takes(argument: str) -> bool:
    """Whether this torch has the kernel and the kernel has the argument."""
    return argument in _varlen_arguments()


@functools.cache
def _varlen_arguments() -> frozenset[str]:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """That of the package flash-attn."""
    from flash_attn import flash_attn_varlen_func

    cu, longest = segments.cu_seqlens, segments.max_len
    return flash_attn_varlen_func(*_dense_channels(q, k, v), cu, cu, longest, longest, softmax_scale=scale)


def _dense_channels(*tensors: Tensor) -> tuple[Tensor, ...]:
    # the kernels take any stride but that of the channels
    return tuple(t if t.stride(-1) == 1 else t.contiguous() for t in tensors)


@torch.compiler.disable
def _split(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """One SDPA call per segment: the fastest on CPU. `split` once, not slices, else the backward is 5x slower."""
    lengths = segments.host_lengths()
    parts = []
    for qs, ks, vs in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        if qs.shape[0]:
            heads_first = (x.transpose(0, 1)[None] for x in (qs, ks, vs))  # [1, heads, length, hd]
            parts.append(_sdpa(*heads_first, None, scale)[0].transpose(0, 1))
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
    out = _sdpa(*rows, (valid | ~valid.any(1, keepdim=True))[:, None, None], scale).transpose(1, 2)
    row = segments.owner()
    return out[row, torch.arange(segments.total, device=q.device) - start[row]]


@torch.compiler.disable
def _flex(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """Flex attention under a block-sparse mask made from the segments' numbers."""
    if segments.block_mask is None:
        segments.block_mask = _block_mask(segments, q.device)
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, heads, T, hd]
    return attend_blocks(*heads_first, segments.block_mask, scale=scale, dynamic=True)[0].transpose(0, 1)


def _block_mask(segments: Segments, device: torch.device):
    owner = segments.owner()

    def same(b, h, q_index, k_index):
        return owner[q_index] == owner[k_index]

    return block_mask(same, 1, segments.total, device)


def _dense(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
    """The oracle: one [T, T] mask over everything."""
    owner = segments.owner()
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
    return _sdpa(*heads_first, owner[:, None] == owner, scale)[0].transpose(0, 1)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


# -- what they can do, in the order in which `auto` goes through them


def _no_torch_varlen(request: Request) -> str | None:
    """Whether this torch has the kernel, with the arguments needed here."""
    if not _varlen_takes("query"):
        return "this torch has no torch.nn.attention.varlen"
    if request.gqa and not _varlen_takes("enable_gqa"):
        return "this torch's varlen_attn has no argument enable_gqa"
    return None


def _no_flash_attn(request: Request) -> str | None:
    return None if importlib.util.find_spec("flash_attn") else "the package flash-attn is not installed"


FLASH_HEAD_DIMS = (8, 256, 8)

SEGMENT_BACKENDS: dict[str, Backend] = {
    "torch_varlen": Backend(_torch_varlen, ("cuda",), HALF, head_dims=FLASH_HEAD_DIMS, missing=_no_torch_varlen),
    "flash_attn": Backend(_flash_attn, ("cuda",), HALF, head_dims=FLASH_HEAD_DIMS, compiles=False, missing=_no_flash_attn),
    "split": Backend(_split, compiles=False, host_sync=True, auto=lambda r: r.device == "cpu" and not r.tiny),
    "padded": Backend(_padded),
    # below 16 channels triton has no matrix product; eager flex is no kernel, and on CPU it has no backward pass
    "flex": Backend(_flex, dtypes=(*HALF, torch.float32), gradient=("cuda",), head_dims=(16, 256, 1), compiles=False, auto=lambda r: False),
    "dense": Backend(_dense, auto=lambda r: False),
}


@torch.compiler.assume_constant_result
def choose_backend(wanted: str, *request) -> str:
    """The name of the backend that runs (`request`: the fields of `Request`); compiled code asks once, while it is compiled."""
    return _choose(wanted, Request(*request))


@functools.cache
def _choose(wanted: str, request: Request) -> str:
    """The backend asked for if it can run, or the first that can."""
    if wanted != "auto":
        if wanted not in SEGMENT_BACKENDS:
            raise OLMoConfigurationError(f"unknown attention backend '{wanted}'; known: auto, {', '.join(SEGMENT_BACKENDS)}")
        if obstacle := SEGMENT_BACKENDS[wanted].obstacle(request):
            raise OLMoConfigurationError(f"the attention backend '{wanted}' cannot be used: {obstacle}")
        return wanted
    name = next(name for name, backend in SEGMENT_BACKENDS.items() if backend.auto(request) and not backend.obstacle(request))
    _tell(name, request.device, request.dtype)
    return name


@functools.cache
def _tell(name: str, device: str, dtype: torch.dtype) -> None:
    log.info("attention of pruned frames: %s (%s, %s)", name, device, _names([dtype]))
