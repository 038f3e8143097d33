"""Analytic FLOPs (2 x multiply-accumulate) of one forward pass, part by part, with and without pruning.

Everything is computed from the config and from host integers (a `RowLayout` per row), so that a dry run can print it
before any weight exists and a benchmark can state its ideal for the very shapes it timed. What is counted: matrix
products. What is not: norms, activations, softmax, rope, embedding look-ups, padding. Conventions:

- every frame of a pruned video keeps the same share of its patches (only the total is known before the scores are);
- one row of the batch is one causal sequence; bidirectional spans of image tokens cost up to twice that part;
- the head counts only where logits are needed (positions with a loss weight);
- training = 3 x forward; recomputing every activation in the backward pass adds one more forward.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from olmo.batch import MultimodalType, RowLayout, VisualSegment
from olmo.budget import pruning_budget

# Width of the pooler relative to the ViT; `mean` has no parameters and is handled apart.
_POOLER_WIDTH = {"attention_meanq": 1, "attention": 1, "attention_2wide": 2, "attention_meanq_2x": 2, "attention_meanq_4x": 4}


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of one forward pass by part of the model."""

    vit: float = 0.0
    """Patch embedding and the blocks that run, dense and packed."""
    scorer: float = 0.0
    """Temporal token scorer."""
    connector: float = 0.0
    """Pooling and projection of the kept cells."""
    llm_linear: float = 0.0
    """Linear layers of the decoder blocks."""
    llm_attention: float = 0.0
    """Causal attention of the decoder blocks."""
    head: float = 0.0
    """Output head at the positions with a loss."""

    @property
    def total(self) -> float:
        return sum(getattr(self, f.name) for f in fields(self))

    def training(self, full_recompute: bool = False) -> float:
        """FLOPs of forward and backward; `full_recompute` = every activation is recomputed."""
        return self.total * (4 if full_recompute else 3)

    def __add__(self, other: "FlopCount") -> "FlopCount":
        return FlopCount(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        parts = ", ".join(f"{f.name} {format_flops(getattr(self, f.name))}" for f in fields(self) if getattr(self, f.name))
        return f"{format_flops(self.total)} ({parts})"


def format_flops(value: float) -> str:
    """A number of FLOPs with a readable unit."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e6:.3g} MFLOP"


def flops_for_video(
    model_config: Any,
    num_frames: int,
    text_tokens: int,
    *,
    loss_tokens: int = 0,
    topk: float | None = None,
    prune_at: int | None = None,
    marker_tokens: int = 2,
) -> FlopCount:
    """One video with `text_tokens` tokens of text; `marker_tokens` per frame stand around its cells."""
    video = model_config.mm_preprocessor.video
    cells = _cells_per_frame(model_config.vision_backbone.vit, video.pooling_h, video.pooling_w)
    segment = VisualSegment(MultimodalType.VIDEO, num_frames, cells)
    tokens = num_frames * (cells + marker_tokens) + text_tokens
    row = RowLayout((segment,), num_tokens=tokens, num_pooled=num_frames * cells, num_loss_tokens=loss_tokens)
    return flops_for_layout(model_config, [row], topk=topk, prune_at=prune_at)


def flops_for_layout(
    model_config: Any,
    rows: Sequence[RowLayout],
    *,
    topk: float | None = None,
    prune_at: int | None = None,
    image_window: int = 4,
) -> FlopCount:
    """A batch described by its host-side layout.

    `topk` and `prune_at` override the config (`topk=0` = the same model unpruned). `image_window` is the number of
    patches pooled into one token of an image.
    """
    count = FlopCount()
    vision = model_config.vision_backbone
    for row in rows:
        num_tokens = row.num_tokens
        if vision is not None:
            segments, dropped = _vision_flops(model_config, row, topk, prune_at, image_window)
            count += segments
            num_tokens -= dropped
        count += llm_flops(model_config.llm, num_tokens, row.num_loss_tokens)
    return count


def llm_flops(llm: Any, num_tokens: int, loss_tokens: int = 0) -> FlopCount:
    """The decoder over one causal sequence of `num_tokens` tokens."""
    head_dim = llm.head_dim or llm.d_model // llm.n_heads
    kv_heads = llm.n_kv_heads or llm.n_heads
    hidden = llm.mlp_hidden_size or llm.mlp_ratio * llm.d_model
    width = llm.n_heads * head_dim
    attention_weights = llm.d_model * (llm.n_heads + 2 * kv_heads) * head_dim + width * llm.d_model
    gated = llm.activation_type == "swiglu"
    mlp_weights = llm.d_model * hidden + (hidden // 2 if gated else hidden) * llm.d_model
    return FlopCount(
        llm_linear=2.0 * num_tokens * llm.n_layers * (attention_weights + mlp_weights),
        llm_attention=2.0 * num_tokens**2 * width * llm.n_layers,
        head=2.0 * loss_tokens * llm.d_model * (llm.embedding_size or llm.vocab_size),
    )


def _vision_flops(model_config: Any, row: RowLayout, topk: float | None, prune_at: int | None, image_window: int):
    """ViT, scorer and connector of one row, and how many cells were dropped before the decoder."""
    vision, vit = model_config.vision_backbone, model_config.vision_backbone.vit
    prune = getattr(vit, "prune", False)  # a plain ViT has no pruning fields
    topk = (vit.topk if prune else 0.0) if topk is None else topk
    count, dropped_total, video_cells = FlopCount(), 0, 0
    for segment in row.segments:
        dropped, window, cells = 0, image_window, 0
        if segment.kind == MultimodalType.VIDEO:
            cells = segment.num_frames * segment.cells_per_frame
            window = _window_area(vit, segment.cells_per_frame)
            video_cells += cells
            if topk > 0:
                dropped = pruning_budget(segment.num_frames, segment.cells_per_frame, topk, getattr(vit, "prune_from_frame", 0))
        kept_share = 1.0 - dropped / cells if cells else 1.0
        count += _vit_flops(vision, segment.num_frames, kept_share, prune_at)
        if dropped and str(getattr(vit, "prune_method", "scorer")) == "scorer":
            count += _scorer_flops(vit, segment.num_frames, segment.cells_per_frame)
        count += _connector_flops(vision, model_config.llm, cells - dropped, window)
        dropped_total += dropped
    count += _connector_flops(vision, model_config.llm, row.num_pooled - video_cells, image_window)
    return count, dropped_total


def _vit_flops(vision: Any, num_frames: int, kept_share: float, prune_at: int | None) -> FlopCount:
    """Patch embedding, the blocks that see every patch, and the blocks that see the kept ones."""
    vit = vision.vit
    patches = _num_patches(vit)
    blocks = needed_blocks(vision)
    prefix = 0 if vit.image_model_type == "siglip" else 1  # class token
    embed = patches * vit.image_patch_size**2 * 3 * vit.image_emb_dim
    dense = blocks
    method = str(getattr(vit, "prune_method", "scorer"))
    # `evs` decides after the ViT, and without `pruning_in_scorer` the scorer only biases.
    packs = method != "evs" and (method != "scorer" or getattr(vit, "pruning_in_scorer", True))
    if kept_share < 1.0 and packs:
        prune_at = vit.prune_at if prune_at is None else prune_at
        # The scorer's bias needs one more dense block after the scored one; the other methods pack at once.
        dense = min(blocks, prune_at + (2 if method == "scorer" else 1))
    kept = patches * kept_share
    # A frame attends within itself; a packed row of the first-fit layout pays for all its patches.
    attended = patches if str(getattr(vit, "packing", "varlen")) == "first_fit" else kept
    macs = embed + dense * _vit_block_macs(vit, patches + prefix, patches + prefix)
    macs += (blocks - dense) * _vit_block_macs(vit, kept + prefix, attended + prefix)
    return FlopCount(vit=2.0 * num_frames * macs)


def _vit_block_macs(vit: Any, tokens: float, attended: float) -> float:
    """One block over `tokens` patches, each of which attends to `attended` patches."""
    width = vit.image_num_heads * vit.image_head_dim
    kv_width = vit.image_num_key_value_heads * vit.image_head_dim
    weights = vit.image_emb_dim * (2 * width + 2 * kv_width + 2 * vit.image_mlp_dim)
    return tokens * weights + 2 * tokens * attended * width


def _scorer_flops(vit: Any, num_frames: int, cells: int) -> FlopCount:
    """Pool every cell of every frame by attention, then score pairs of neighbouring frames with a three-layer MLP."""
    dim, hidden = vit.image_emb_dim, vit.image_mlp_dim
    members = cells * _window_area(vit, cells)
    pool = 2 * dim * dim * members + 2 * dim * dim * cells + 2 * dim * members
    mlp = cells * (2 * dim * hidden + hidden * hidden + hidden)
    return FlopCount(scorer=2.0 * num_frames * (pool + mlp))


def _connector_flops(vision: Any, llm: Any, cells: int, window: int) -> FlopCount:
    """Pool and project `cells` cells of `window` patches each."""
    vit = vision.vit
    pool_dim = vit.image_emb_dim * len(vision.vit_layers)
    kind = str(vision.image_pooling_2d)
    pooled, macs = pool_dim, 0.0
    if kind in _POOLER_WIDTH:
        scale = _POOLER_WIDTH[kind]
        pooled = vit.image_emb_dim * scale
        width = vit.image_num_heads * vit.image_head_dim * scale
        kv_width = vit.image_num_key_value_heads * vit.image_head_dim * scale
        macs = pool_dim * width + 2 * window * pool_dim * kv_width + width * pooled + 2 * window * width
    hidden = (llm.mlp_hidden_size or llm.mlp_ratio * llm.d_model) // 2
    gated = str(vision.image_projector) == "mlp"
    macs += 2 * pooled * hidden + hidden * llm.d_model if gated else pooled * llm.d_model
    return FlopCount(connector=2.0 * cells * macs)


def needed_blocks(vision: Any) -> int:
    """Blocks of the ViT that run: up to the last one whose features are selected."""
    total = vision.vit.image_num_layers
    return max(layer + total if layer < 0 else layer for layer in vision.vit_layers) + 1


def _num_patches(vit: Any) -> int:
    height, width = vit.image_default_input_size
    return (height // vit.image_patch_size) * (width // vit.image_patch_size)


def _cells_per_frame(vit: Any, pool_h: int, pool_w: int) -> int:
    height, width = vit.image_default_input_size
    return math.ceil(height // vit.image_patch_size / pool_h) * math.ceil(width // vit.image_patch_size / pool_w)


def _window_area(vit: Any, cells: int) -> int:
    """Patches of one cell (with the empty ones of a padded grid), from the number of cells of a square grid."""
    side, grid = math.isqrt(_num_patches(vit)), math.isqrt(cells)
    return math.ceil(side / grid) ** 2
