"""Which token may attend to which, in the LLM: one rule over a few integers per token.

The rule knows nothing of tensors' shapes, so the same function gives the dense mask of the CPU path and the block-sparse
mask that flex attention compiles for GPUs, where no [S, S] tensor is ever built. On CPUs a mask per packed example is
enough, and none where an example is plain causal: which examples lie where is known to the host.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn.attention.flex_attention import BlockMask

from olmo.batch import EXAMPLE_STRIDE, PAD_ID, ExampleLayout, RowLayout
from olmo.config import StrEnum
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.attention import attend
from olmo.nn.block_mask import attend_blocks, block_mask
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.indices import check_total


class BiDirectionalAttn(StrEnum):
    """Which image tokens also see later ones."""

    image_tokens = "image_tokens"
    within_image = "within_image"


@dataclass(frozen=True)
class TokenAttributes:
    """The integers that the rule compares; every field has the same shape ([B, S], or 0-d inside flex attention)."""

    index: torch.Tensor
    """Place in the sequence."""
    subsegment: torch.Tensor
    """EXAMPLE_STRIDE * example + branch; a token sees branches whose id is not smaller than its own."""
    example: torch.Tensor
    """Packed example of the row."""
    is_image: torch.Tensor
    """Bool: belongs to the visual part of the sequence (patches, markers)."""
    image_segment: torch.Tensor
    """How many images or frames have started up to here."""
    valid: torch.Tensor
    """Bool: not padding."""

    def map(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> "TokenAttributes":
        return TokenAttributes(*(fn(getattr(self, f.name)) for f in fields(self)))


def token_attributes(
    input_ids: torch.Tensor,
    subsegment_ids: torch.Tensor | None,
    image_token_ids: Collection[int] = (),
    segment_start_ids: Collection[int] = (),
) -> TokenAttributes:
    """Read the integers off a batch of sequences (`input_ids` [B, S], -1 = padding)."""
    subsegment = torch.zeros_like(input_ids) if subsegment_ids is None else subsegment_ids
    return TokenAttributes(
        index=torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids),
        subsegment=subsegment,
        example=torch.div(subsegment, EXAMPLE_STRIDE, rounding_mode="floor"),
        is_image=_is_any(input_ids, image_token_ids),
        image_segment=_is_any(input_ids, segment_start_ids).cumsum(1),
        valid=input_ids != PAD_ID,
    )


def _is_any(ids: torch.Tensor, members: Collection[int]) -> torch.Tensor:
    # compared one by one: a tensor of the members would have to be copied to the device every time
    found = torch.zeros_like(ids, dtype=torch.bool)
    for member in members:
        found = found | (ids == member)
    return found


def allowed(q: TokenAttributes, k: TokenAttributes, mode: BiDirectionalAttn | None) -> torch.Tensor:
    """May token `q` attend to token `k`? The shapes of the two only have to broadcast.

    Causal, plus image tokens of the same example in both directions if `mode` says so, minus other branches of the
    message tree (their ids are smaller, or larger but earlier) and padding.
    """
    visible = k.index <= q.index
    if mode is not None:
        both = q.is_image & k.is_image & (q.example == k.example)
        if mode == BiDirectionalAttn.within_image:
            both = both & (k.image_segment <= q.image_segment)
        visible = visible | both
    return visible & (q.subsegment <= k.subsegment) & k.valid


def dense_mask(q: TokenAttributes, k: TokenAttributes, mode: BiDirectionalAttn | None) -> torch.Tensor:
    """The rule as a bool mask [B, 1, Sq, Sk]."""
    return allowed(q.map(lambda t: t[:, None, :, None]), k.map(lambda t: t[:, None, None, :]), mode)


def flex_block_mask(tokens: TokenAttributes, mode: BiDirectionalAttn | None) -> BlockMask:
    """The rule as a block-sparse mask; no dense mask exists on the way either."""

    def rule(b, h, q_index, k_index):
        return allowed(tokens.map(lambda t: t[b, q_index]), tokens.map(lambda t: t[b, k_index]), mode)

    return block_mask(rule, *tokens.index.shape, tokens.index.device)


@dataclass(frozen=True)
class ExampleMasks:
    """The rule cut along packed examples, which never see each other. Positions behind a row's examples are padding."""

    lengths: tuple[tuple[int, ...], ...]
    """Tokens of every example of every row."""
    masks: tuple[tuple[torch.Tensor | None, ...], ...]
    """Bool [1, 1, n, n] for every example of n tokens (the fast kernels take no three dimensions); None = plain causal."""


class PlainCausal:
    """The rule where every row is one plain causal example: padding comes last, so nothing but later tokens is hidden."""


@dataclass(frozen=True)
class SharedMask:
    """The rule for sequences of which every rank of a group holds a part."""

    context: ContextParallel
    mask: "Mask"
    """For whole sequences."""


Mask = torch.Tensor | BlockMask | ExampleMasks | PlainCausal | SharedMask
"""What a block of the decoder gets: the dense mask [B, 1, S, S], or one of the cheaper forms of the same rule."""


def mask_by_example(
    tokens: TokenAttributes, mode: BiDirectionalAttn | None, layout: Sequence[RowLayout]
) -> ExampleMasks | PlainCausal | None:
    """The rule from the examples in the layout; None where the layout does not know them, or each fills a row."""
    rows = [row.examples for row in layout]
    if not all(rows):
        return None
    check_total(tokens.valid, sum(e.num_tokens for row in rows for e in row), "tokens in the examples of the layout")

    def causal(example: ExampleLayout) -> bool:
        return not example.branched and (mode is None or example.num_segments == 0)

    if all(len(row) == 1 and causal(row[0]) for row in rows):
        return PlainCausal()
    if all(len(row) == 1 and row[0].num_tokens == tokens.index.shape[1] for row in rows):
        return None  # nothing to leave out, and one call for all rows is faster than one for each
    masks = []
    for b, row in enumerate(rows):
        masks.append([])
        start = 0
        for example in row:
            stop = start + example.num_tokens
            part = None if causal(example) else tokens.map(lambda t, b=b, span=slice(start, stop): t[b : b + 1, span])
            masks[-1].append(None if part is None else dense_mask(part, part, mode))
            start = stop
    return ExampleMasks(tuple(tuple(e.num_tokens for e in row) for row in rows), tuple(tuple(row) for row in masks))


def build_mask(tokens: TokenAttributes, mode: BiDirectionalAttn | None, layout: Sequence[RowLayout] = ()) -> Mask:
    """Block-sparse on GPUs; elsewhere by example where the `layout` of the rows knows them, else dense."""
    if tokens.index.is_cuda:
        return flex_block_mask(tokens, mode)
    by_example = mask_by_example(tokens, mode, layout) if layout else None
    return dense_mask(tokens, tokens, mode) if by_example is None else by_example


def masked_attention(q, k, v, mask: Mask | None, *, dropout: float = 0.0):
    """Attention of q [B, H, S, hd] over k, v [B, KV, S', hd] under any kind of mask."""
    if isinstance(mask, SharedMask):
        q, k, v = mask.context.to_heads(q, k, v)
        return mask.context.to_tokens(masked_attention(q, k, v, mask.mask, dropout=dropout))
    if isinstance(mask, ExampleMasks):
        return attend_examples(q, k, v, mask, dropout)
    if isinstance(mask, PlainCausal):
        return attend(q, k, v, causal=True, dropout=dropout)
    if not isinstance(mask, BlockMask):
        return attend(q, k, v, mask=mask, dropout=dropout)
    if dropout > 0.0:
        raise OLMoConfigurationError("llm.attention_dropout must be 0 on a GPU: block-sparse attention has no dropout")
    return attend_blocks(q, k, v, mask)


def attend_examples(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, masks: ExampleMasks, dropout: float = 0.0) -> torch.Tensor:
    """Example by example; zeros at padding, which nobody reads. `split` cuts a row once: slices make the backward slower."""
    rows = []
    for *row, lengths, row_masks in zip(q, k, v, masks.lengths, masks.masks, strict=True):
        padding = q.shape[2] - sum(lengths)
        parts = []
        for *part, mask in zip(*(t.split((*lengths, padding), dim=1) for t in row), (*row_masks, None), strict=True):
            if len(parts) == len(lengths):  # the padding
                parts.append(torch.zeros_like(part[0]))
            else:
                parts.append(attend(*(t[None] for t in part), mask=mask, causal=mask is None, dropout=dropout)[0])
        rows.append(torch.cat(parts, dim=1))
    return torch.stack(rows)
