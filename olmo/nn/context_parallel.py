"""Sequences shared by a group of ranks (context parallelism, the Ulysses way).

Every rank of a group has the same batch. In the decoder it holds one contiguous part of every sequence; for attention the ranks
exchange what they hold, so that each has all tokens of a part of the heads, and exchange back. Any mask works, because every
rank applies the whole mask to its heads.

`ContextParallel` holds the group and is the only place that talks to it. What goes where is decided by pure functions.
All exchanges carry gradients to the rank where the values came from.
"""

import zlib
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from olmo.batch import PAD_ID, Batch
from olmo.exceptions import OLMoConfigurationError, OLMoDataError


class ContextParallel:
    """A group of ranks that share their sequences, as one of them sees it."""

    def __init__(self, group: dist.ProcessGroup):
        self.group = group
        self.degree, self.rank = dist.get_world_size(group), dist.get_rank(group)

    # -- sequences

    def pad(self, batch: Batch) -> Batch:
        """Sequences of a length that the ranks can divide evenly."""
        extra = -batch.input_ids.shape[1] % self.degree
        return batch.map_text(lambda t: F.pad(t, (0, extra), value=PAD_ID)) if extra else batch

    def part(self, x: Tensor) -> Tensor:
        """This rank's part of the sequences x [B, S, ...]: [B, S / degree, ...], a view."""
        return x.chunk(self.degree, dim=1)[self.rank]

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads of a part of the tokens, each [B, heads, S / degree, hd], to all tokens of a part of the heads
        [B, heads / degree, S, hd]. One exchange for all three."""
        received = self.exchange(pack_heads((q, k, v), self.degree))
        return unpack_heads(received, [t.shape[1] // self.degree for t in (q, k, v)])

    def to_tokens(self, x: Tensor) -> Tensor:
        """All tokens of a part of the heads [B, heads / degree, S, hd] to all heads of a part of the tokens."""
        return unpack_tokens(self.exchange(pack_tokens(x, self.degree)))

    # -- what the ranks tell each other

    def exchange(self, x: Tensor) -> Tensor:
        """x [degree, ...]: entry i goes to rank i, and entry i of the result came from there."""
        return _Exchange.apply(x, self.group)

    def gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks in their order: x [counts[rank], ...] to [sum(counts), ...]."""
        assert len(x) == counts[self.rank]
        return _Gather.apply(x, self.group, tuple(counts), self.rank)

    def check_same(self, batch: Batch, device: torch.device) -> None:
        """Refuse to go on where the ranks have different batches, say because one of them could not decode a clip.

        batch: still on the host; `device`: where the group can talk.
        """
        own = zlib.crc32(repr(batch.layout).encode(), zlib.crc32(batch.input_ids.contiguous().numpy().tobytes()))
        found = self.gather(torch.tensor([own], device=device), [1] * self.degree)
        if len(set(found.tolist())) > 1:
            raise OLMoDataError(
                "ranks that share their sequences have read different rows, as happens when one of them cannot read a clip that the "
                "others can; the run stops here and can be continued from its last checkpoint (a longer data.decode_timeout may help)"
            )


def check_heads(degree: int, n_heads: int, kv_heads: int) -> None:
    """Refuse a degree that the heads cannot be divided by."""
    for name, heads in (("llm.n_kv_heads", kv_heads), ("llm.n_heads", n_heads)):
        if heads % degree:
            raise OLMoConfigurationError(
                f"parallelism.context_parallel_config.degree={degree} must divide model.{name}={heads}: each of the {degree} ranks "
                f"that share a sequence computes the attention of {name.removeprefix('llm.')} / degree heads"
            )


def pack_heads(parts: Sequence[Tensor], degree: int) -> Tensor:
    """What each rank gets: parts [B, heads, s, hd] of several numbers of heads to [degree, B, sum(heads) / degree, s, hd]."""
    return torch.cat([p.unflatten(1, (degree, -1)).movedim(1, 0) for p in parts], dim=2)


def unpack_heads(received: Tensor, heads: Sequence[int]) -> tuple[Tensor, ...]:
    """What came from each rank, [degree, B, sum(heads), s, hd], to [B, heads, degree * s, hd] each."""
    return received.permute(1, 2, 0, 3, 4).flatten(2, 3).split(list(heads), dim=1)


def pack_tokens(x: Tensor, degree: int) -> Tensor:
    """What each rank gets: x [B, h, S, hd] to [degree, B, h, S / degree, hd]."""
    return x.unflatten(2, (degree, -1)).movedim(2, 0).contiguous()


def unpack_tokens(received: Tensor) -> Tensor:
    """What came from each rank, [degree, B, h, s, hd], to [B, degree * h, s, hd]."""
    return received.movedim(0, 1).flatten(1, 2)


class _Exchange(torch.autograd.Function):
    """Its own transpose."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _exchange(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _exchange(grad.contiguous(), ctx.group), None


class _Gather(torch.autograd.Function):
    """Rows of all ranks; what every rank has to say about a row's gradient is summed where the row came from."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.group, ctx.counts, ctx.rank = group, counts, rank
        most = max(counts)
        if not most:
            return x.clone()
        own = _padded(x, most)
        found = [torch.empty_like(own) for _ in counts]
        dist.all_gather(found, own, group=group)
        return torch.cat([rows[:n] for rows, n in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        most = max(ctx.counts)
        if not most:
            return grad, None, None, None
        parts = torch.stack([_padded(part, most) for part in grad.split(list(ctx.counts))])
        return _exchange(parts, ctx.group).sum(0)[: ctx.counts[ctx.rank]], None, None, None


def _exchange(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x, group=group)
    return out


def _padded(x: Tensor, rows: int) -> Tensor:
    """x with zeros behind it, [rows, ...]."""
    return torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])]) if len(x) < rows else x.contiguous()
