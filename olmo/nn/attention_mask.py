"""Which token may attend to which, in the LLM: one rule over a few integers per token.

The rule knows nothing of tensors' shapes, so the same function gives the dense mask of the CPU path and the block-sparse
mask that flex attention compiles for GPUs, where no [S, S] tensor is ever built.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from olmo.batch import EXAMPLE_STRIDE, PAD_ID
from olmo.config import StrEnum
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.attention import attend


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


def flex_block_mask(tokens: TokenAttributes, mode: BiDirectionalAttn | None, *, compiled: bool = True) -> BlockMask:
    """The rule as a block-sparse mask; with `compiled` no dense mask exists on the way either."""

    def rule(b, h, q_index, k_index):
        return allowed(tokens.map(lambda t: t[b, q_index]), tokens.map(lambda t: t[b, k_index]), mode)

    rows, length = tokens.index.shape
    return create_block_mask(rule, rows, None, length, length, device=tokens.index.device, _compile=compiled)


def build_mask(tokens: TokenAttributes, mode: BiDirectionalAttn | None) -> torch.Tensor | BlockMask:
    """Block-sparse on GPUs, dense elsewhere."""
    return flex_block_mask(tokens, mode) if tokens.index.is_cuda else dense_mask(tokens, tokens, mode)


_flex_attention = None


def masked_attention(q, k, v, mask: torch.Tensor | BlockMask | None, *, dropout: float = 0.0):
    """Attention of q [B, H, S, hd] over k, v [B, KV, S', hd] under either kind of mask."""
    if not isinstance(mask, BlockMask):
        return attend(q, k, v, mask=mask, dropout=dropout)
    if dropout > 0.0:
        raise OLMoConfigurationError("llm.attention_dropout must be 0 on a GPU: block-sparse attention has no dropout")
    global _flex_attention
    if _flex_attention is None:
        _flex_attention = torch.compile(flex_attention)
    return _flex_attention(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
