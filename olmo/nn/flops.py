"""Analytic FLOPs (2 x multiply-accumulate) of one forward pass, part by part, with and without pruning.

Everything is computed from the config and from host integers (a `RowLayout` per row), so that a dry run can print it
before any weight exists and a benchmark can state its ideal for the very shapes it timed. What is counted: matrix
products. What is not: norms, activations, softmax, rope, embedding look-ups, padding. Conventions:

- every frame of a pruned video keeps the same share of its patches (only the total is known before the scores are);
- one row of the batch is one causal sequence; bidirectional spans of image tokens cost up to twice that part;
- the head counts only where logits are needed (positions with a loss weight);
- training = 3 x forward; recomputing every activation in the backward pass adds one more forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from olmo.batch import MultimodalType, RowLayout, VisualSegment
from olmo.budget import frames_within_budget, pruning_budget
from olmo.nn.image_vit import VitConfig
from olmo.nn.llm_config import LlmConfig
from olmo.nn.pruning_plan import cell_grid
from olmo.nn.temporal_image_vit import Packing, PruneMethod, TemporalVitConfig
from olmo.nn.vision_backbone import POOL_WIDTH, ImagePooling2D, ImageProjector, MolmoVisionBackboneConfig


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of one forward pass by part of the model."""

    vit: float = 0.0
    """Patch embedding and the blocks that run, dense and packed."""
    scorer: float = 0.0
    """Temporal token scorer, or the similarities by which cells are merged."""
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
    model_config: Any, num_frames: int, text_tokens: int, *, loss_tokens: int = 0, topk: float | None = None, prune_at: int | None = None
) -> FlopCount:
    """One video with `text_tokens` tokens of text; every frame stands between a start and an end token.

    `num_frames` are the sampled frames, of which `fewer_frames` takes fewer.
    """
    video, vit = model_config.mm_preprocessor.video, model_config.vision_backbone.vit
    if topk is not None and vit.sees_less:
        words = [f"vision_backbone.vit.topk={topk}", "mm_preprocessor.video.topk=null"]
        model_config, topk = model_config.with_overrides(words), None
        vit = model_config.vision_backbone.vit
    cells = cell_grid(vit.grid, (video.pooling_h, video.pooling_w)).num_cells
    if vit.thins_frames:
        num_frames = frames_within_budget(num_frames, cells, vit.topk, vit.prune_from_frame)
    segment = VisualSegment(MultimodalType.VIDEO, num_frames, cells)
    tokens = num_frames * (cells + 2) + text_tokens
    row = RowLayout((segment,), num_tokens=tokens, num_pooled=num_frames * cells, num_loss_tokens=loss_tokens)
    return flops_for_layout(model_config, [row], topk=topk, prune_at=prune_at)


def flops_for_layout(model_config: Any, rows: Sequence[RowLayout], *, topk: float | None = None, prune_at: int | None = None) -> FlopCount:
    """A batch described by its host-side layout.

    `model_config` is a `model` block; its `llm`, `vision_backbone` and `mm_preprocessor` are read. `topk` and `prune_at`
    override it (`topk=0` = the same model unpruned). Of a model that is shown less only `topk=0` can be asked, because a layout says
    what was seen; the frames left out are added without their time stamps.
    """
    if topk is not None and model_config.vision_backbone is not None and model_config.vision_backbone.vit.sees_less:
        assert topk == 0, "the layout of a model that sees less holds for its own topk only"
        rows = [all_seen(row, model_config.vision_backbone.vit) for row in rows]
        model_config = model_config.with_overrides(["vision_backbone.vit.prune=false"])
    count = FlopCount()
    for row in rows:
        num_tokens = row.num_tokens
        if model_config.vision_backbone is not None:
            segments, dropped = _vision_flops(model_config, row, topk, prune_at)
            count += segments
            num_tokens -= dropped
        count += llm_flops(model_config.llm, num_tokens, row.num_loss_tokens)
    return count


def all_seen(row: RowLayout, vit: VitConfig) -> RowLayout:
    """The row that the unpruned model would have had: with the frames that were left out, or with larger frames."""

    def whole(s: VisualSegment) -> VisualSegment:
        if not s.spared:
            return s
        if vit.thins_frames:
            return replace(s, num_frames=s.num_frames + s.spared // s.cells_per_frame, spared=0)
        return replace(s, cells_per_frame=s.cells_per_frame + s.spared // s.num_frames, spared=0)

    spared = row.num_spared
    segments = tuple(whole(s) for s in row.segments)
    return replace(row, segments=segments, num_tokens=row.num_tokens + spared, num_pooled=row.num_pooled + spared)


def llm_flops(llm: LlmConfig, num_tokens: int, loss_tokens: int = 0) -> FlopCount:
    """The decoder over one causal sequence of `num_tokens` tokens."""
    width = llm.n_heads * llm.head_size
    attention_weights = llm.d_model * (llm.n_heads + 2 * llm.kv_heads) * llm.head_size + width * llm.d_model
    mlp_weights = llm.d_model * llm.hidden_size + llm.hidden_size // 2 * llm.d_model
    return FlopCount(
        llm_linear=2.0 * num_tokens * llm.n_layers * (attention_weights + mlp_weights),
        llm_attention=2.0 * num_tokens**2 * width * llm.n_layers,
        head=2.0 * loss_tokens * llm.d_model * llm.embedding_rows,
    )


def _vision_flops(model_config: Any, row: RowLayout, topk: float | None, prune_at: int | None) -> tuple[FlopCount, int]:
    """ViT, scorer and connector of one row, and how many cells were dropped before the decoder."""
    vision, preprocessor = model_config.vision_backbone, model_config.mm_preprocessor
    vit, image, video = vision.vit, preprocessor.image, preprocessor.video
    configured, prune_from_frame = preprocessor.pruning(vit)
    topk = configured if topk is None else topk
    count, dropped_total, video_cells = FlopCount(), 0, 0
    for segment in row.segments:
        dropped = cells = 0
        if segment.kind == MultimodalType.VIDEO:
            cells = segment.num_frames * segment.cells_per_frame
            if vit.drops_cells and topk > 0:
                dropped = pruning_budget(segment.num_frames, segment.cells_per_frame, topk, prune_from_frame)
        kept_share = 1.0 - dropped / cells if cells else 1.0
        count += _vit_flops(vision, segment.num_frames, kept_share, prune_at)
        if dropped and vit.has_scorer:
            count += _scorer_flops(vit, segment.num_frames)
        elif dropped and vit.prune_method == PruneMethod.tome:
            width = vit.pooling_h * vit.pooling_w * vit.image_emb_dim
            count += FlopCount(scorer=2.0 * (segment.num_frames - 1) * vit.cells.num_cells**2 * width)
        video_cells += cells
        dropped_total += dropped
    count += _connector_flops(vision, model_config.llm, video_cells - dropped_total, video.pooling_h * video.pooling_w)
    count += _connector_flops(vision, model_config.llm, row.num_pooled - video_cells, image.pooling_h * image.pooling_w)
    return count, dropped_total


def _vit_flops(vision: MolmoVisionBackboneConfig, num_frames: int, kept_share: float, prune_at: int | None) -> FlopCount:
    """Patch embedding, the blocks that see every patch, and the blocks that see the kept ones."""
    vit, blocks = vision.vit, vision.needed_blocks
    patches, prefix = vit.num_patches, vit.num_prefix_tokens
    dense, kept, attended = blocks, patches, patches
    if kept_share < 1.0 and vit.packs:
        prune_at = vit.prune_at if prune_at is None else prune_at
        # The scorer's bias needs one more dense block after the scored one; the other methods pack at once.
        dense = min(blocks, prune_at + (2 if vit.has_scorer else 1))
        kept = patches * kept_share
        # A frame attends within itself; a packed row of the first-fit layout pays for all its patches.
        attended = patches if vit.packing == Packing.first_fit else kept
    macs = patches * vit.image_patch_size**2 * 3 * vit.image_emb_dim
    macs += dense * _vit_block_macs(vit, patches + prefix, patches + prefix)
    macs += (blocks - dense) * _vit_block_macs(vit, kept + prefix, attended + prefix)
    return FlopCount(vit=2.0 * num_frames * macs)


def _vit_block_macs(vit: VitConfig, tokens: float, attended: float) -> float:
    """One block over `tokens` patches, each of which attends to `attended` patches."""
    width = vit.image_num_heads * vit.image_head_dim
    kv_width = vit.image_num_key_value_heads * vit.image_head_dim
    weights = vit.image_emb_dim * (2 * width + 2 * kv_width + 2 * vit.image_mlp_dim)
    return tokens * weights + 2 * tokens * attended * width


def _scorer_flops(vit: TemporalVitConfig, num_frames: int) -> FlopCount:
    """Pool every cell of every frame by attention, then score pairs of neighbouring frames with a three-layer MLP."""
    dim, hidden, cells = vit.image_emb_dim, vit.image_mlp_dim, vit.cells.num_cells
    members = cells * vit.pooling_h * vit.pooling_w  # with the missing patches of a padded grid
    pool = 2 * dim * dim * members + 2 * dim * dim * cells + 2 * dim * members
    mlp = cells * (2 * dim * hidden + hidden * hidden + hidden)
    return FlopCount(scorer=2.0 * num_frames * (pool + mlp))


def _connector_flops(vision: MolmoVisionBackboneConfig, llm: LlmConfig, cells: int, window: int) -> FlopCount:
    """Pool and project `cells` cells of `window` patches each."""
    vit = vision.vit
    pool_dim = vit.image_emb_dim * len(vision.vit_layers)
    pooled, macs = pool_dim, 0.0
    if vision.image_pooling_2d != ImagePooling2D.mean:
        scale = POOL_WIDTH.get(vision.image_pooling_2d, 1)
        pooled = vit.image_emb_dim * scale
        width = vit.image_num_heads * vit.image_head_dim * scale
        kv_width = vit.image_num_key_value_heads * vit.image_head_dim * scale
        macs = pool_dim * width + 2 * window * pool_dim * kv_width + width * pooled + 2 * window * width
    hidden = llm.hidden_size // 2
    macs += 2 * pooled * hidden + hidden * llm.d_model if vision.image_projector == ImageProjector.mlp else pooled * llm.d_model
    return FlopCount(connector=2.0 * cells * macs)
