"""Analytic FLOPs (2 x multiply-accumulate) of one forward pass, part by part, with and without pruning.

Everything is computed from the config and from host integers (a `RowLayout` per row, or the ids of a batch that is still on
the host), so that a dry run can print it before any weight exists and a benchmark can state its ideal for the very shapes
it timed. What is counted: matrix products. What is not: norms, activations, softmax, rope, embedding look-ups, padding.
Conventions:

- the first frame of a pruned video is whole and the others keep the same share of their patches (only the total is known
  before the scores are, and no other distribution is cheaper);
- first-fit rows are perfectly filled, and every patch pays attention for a whole row;
- `flops_for_batch` counts attention under the real mask; `flops_for_layout`, which knows no ids, takes every row as one
  causal sequence (bidirectional spans of image tokens cost up to twice that part, branches and packed examples less);
- the head counts only where logits are needed (positions with a loss weight).

What training costs on top is in `flops_training.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from olmo.batch import Batch, MultimodalType, RowLayout, VisualSegment
from olmo.budget import frames_within_budget
from olmo.nn.flops_kept import batch_runs, dropped_cells, kept_shares
from olmo.nn.flops_mask import allowed_pairs, frame_runs
from olmo.nn.image_vit import VitConfig
from olmo.nn.llm_config import LlmConfig
from olmo.nn.pruning_plan import CellGrid, cell_grid
from olmo.nn.temporal_image_vit import Packing, PruneMethod, TemporalVitConfig
from olmo.nn.vision_backbone import POOL_WIDTH, ImagePooling2D, ImageProjector, MolmoVisionBackboneConfig


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of one forward pass by part of the model."""

    patch_embedding: float = 0.0
    """Pixels to patches."""
    vit_linear: float = 0.0
    """Linear layers of the ViT blocks that run, dense and packed."""
    vit_attention: float = 0.0
    """Attention of the ViT blocks that run."""
    scorer: float = 0.0
    """What decides which cells stay: the temporal token scorer, or the products of `heuristic` and `tome`."""
    connector: float = 0.0
    """Pooling and projection of the kept cells."""
    llm_linear: float = 0.0
    """Linear layers of the decoder blocks."""
    llm_attention: float = 0.0
    """Attention of the decoder blocks: four products per allowed pair and channel."""
    head: float = 0.0
    """Output head at the positions with a loss."""

    @property
    def vit(self) -> float:
        """Patch embedding and blocks of the ViT."""
        return self.patch_embedding + self.vit_linear + self.vit_attention

    @property
    def llm(self) -> float:
        """Blocks of the decoder."""
        return self.llm_linear + self.llm_attention

    @property
    def total(self) -> float:
        return sum(getattr(self, f.name) for f in fields(self))

    def part(self, name: str) -> float:
        """FLOPs of a part that is timed alone: see `PARTS`."""
        return self.only(name).total

    def only(self, name: str) -> "FlopCount":
        """The same with everything outside of that part zero."""
        return FlopCount(**{field: getattr(self, field) for field in PARTS[name]})

    def __add__(self, other: "FlopCount") -> "FlopCount":
        return FlopCount(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        parts = ", ".join(f"{f.name} {format_flops(getattr(self, f.name))}" for f in fields(self) if getattr(self, f.name))
        return f"{format_flops(self.total)} ({parts})"


PARTS = {
    "vit": ("patch_embedding", "vit_linear", "vit_attention", "scorer"),
    "vision": ("patch_embedding", "vit_linear", "vit_attention", "scorer", "connector"),
    "llm": ("llm_linear", "llm_attention", "head"),
    "all": tuple(f.name for f in fields(FlopCount)),
}
"""What can be timed alone: the ViT with its scorer, that and the connector, the decoder with its head, everything."""


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
    real_mask: bool = False,
) -> FlopCount:
    """One video followed by `text_tokens` tokens of text; every frame stands between a start and an end token.

    `num_frames` are the sampled frames, of which `fewer_frames` takes fewer. `real_mask`: attention under the model's own mask
    instead of a causal one.
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
    pairs = None
    if real_mask:
        kept = [2 + cells * share.kept for share in kept_shares(model_config, segment, topk) for _ in range(share.frames)]
        pairs = [allowed_pairs(frame_runs(kept, text_tokens), model_config.bi_directional_attn)]
    return flops_for_layout(model_config, [row], topk=topk, prune_at=prune_at, pairs=pairs)


def flops_for_batch(model_config: Any, batch: Batch, *, topk: float | None = None, prune_at: int | None = None) -> FlopCount:
    """A batch that is still on the host, with attention under the real mask: packed examples, branches, picture spans."""
    runs = batch_runs(model_config, batch, topk)
    mode = getattr(model_config, "bi_directional_attn", None)
    return flops_for_layout(model_config, batch.layout, topk=topk, prune_at=prune_at, pairs=[allowed_pairs(r, mode) for r in runs])


def flops_for_layout(
    model_config: Any,
    rows: Sequence[RowLayout],
    *,
    topk: float | None = None,
    prune_at: int | None = None,
    pairs: Sequence[float] | None = None,
) -> FlopCount:
    """A batch described by its host-side layout.

    `model_config` is a `model` block; its `llm`, `vision_backbone` and `mm_preprocessor` are read. `topk` and `prune_at`
    override it (`topk=0` = the same model unpruned). Of a model that is shown less only `topk=0` can be asked, because a layout says
    what was seen; the frames left out are added without their time stamps. `pairs`: allowed pairs of the decoder's mask per row,
    after pruning; None = causal rows.
    """
    if topk is not None and model_config.vision_backbone is not None and model_config.vision_backbone.vit.sees_less:
        assert topk == 0, "the layout of a model that sees less holds for its own topk only"
        rows = [all_seen(row, model_config.vision_backbone.vit) for row in rows]
        model_config = model_config.with_overrides(["vision_backbone.vit.prune=false"])
    count = FlopCount()
    for i, row in enumerate(rows):
        num_tokens = row.num_tokens
        if model_config.vision_backbone is not None:
            segments, dropped = _vision_flops(model_config, row, topk, prune_at)
            count += segments
            num_tokens -= dropped
        count += llm_flops(model_config.llm, num_tokens, row.num_loss_tokens, None if pairs is None else pairs[i])
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


def llm_flops(llm: LlmConfig, num_tokens: int, loss_tokens: int = 0, pairs: float | None = None) -> FlopCount:
    """The decoder over `num_tokens` tokens of which `pairs` pairs may attend (None: one causal sequence, n^2 / 2)."""
    width = llm.n_heads * llm.head_size
    rows = llm.embedding_rows + (llm.additional_vocab_size if llm.can_predict_extra_tokens else 0)
    pairs = num_tokens**2 / 2 if pairs is None else pairs
    return FlopCount(
        llm_linear=2.0 * num_tokens * llm.n_layers * llm_block_weights(llm),
        llm_attention=4.0 * pairs * width * llm.n_layers,
        head=2.0 * loss_tokens * llm.d_model * rows,
    )


def llm_block_weights(llm: LlmConfig) -> int:
    """Weights of the linear layers of one decoder block."""
    attention = llm.d_model * (llm.n_heads + 2 * llm.kv_heads) * llm.head_size + llm.n_heads * llm.head_size * llm.d_model
    return attention + llm.d_model * llm.hidden_size + llm.hidden_size // 2 * llm.d_model


def _vision_flops(model_config: Any, row: RowLayout, topk: float | None, prune_at: int | None) -> tuple[FlopCount, int]:
    """ViT, scorer and connector of one row, and how many cells were dropped before the decoder."""
    vision, preprocessor = model_config.vision_backbone, model_config.mm_preprocessor
    vit, image, video = vision.vit, preprocessor.image, preprocessor.video
    large = video.slow_fast.fast_window
    windows = (video.pooling_h, video.pooling_w), (large, large)  # of slow (or all) frames, of fast ones
    count, dropped_total, video_cells, kept_cells = FlopCount(), 0, 0, [0, 0]
    for segment in row.segments:
        shares = kept_shares(model_config, segment, topk)
        dropped = [dropped_cells([s for s in shares if s.fast == fast]) for fast in (False, True)]
        for share in shares:
            count += _vit_flops(vision, share.frames, share.kept, any(dropped), prune_at)
        if segment.kind == MultimodalType.VIDEO:
            present = segment.num_cells - segment.num_fast_cells, segment.num_fast_cells
            kept_cells = [total + n - lost for total, n, lost in zip(kept_cells, present, dropped, strict=True)]
            video_cells += segment.num_cells
        for window, lost in zip(windows, dropped, strict=True):
            if lost:
                count += _scorer_flops(vit, cell_grid(vit.grid, window), segment.num_frames)
        dropped_total += sum(dropped)
    for window, cells in zip(windows, kept_cells, strict=True):
        count += _connector_flops(vision, model_config.llm, cells, window[0] * window[1])
    count += _connector_flops(vision, model_config.llm, row.num_pooled - video_cells, image.pooling_h * image.pooling_w)
    return count, dropped_total


def _vit_flops(vision: MolmoVisionBackboneConfig, num_frames: int, kept_share: float, pruned: bool, prune_at: int | None) -> FlopCount:
    """Patch embedding, the blocks that see every patch, and (in a video that is `pruned`) those that see the kept ones."""
    vit, blocks = vision.vit, vision.needed_blocks
    patches, prefix = vit.num_patches, vit.num_prefix_tokens
    dense, kept, attended = blocks, patches, patches
    if pruned and vit.packs:
        prune_at = vit.prune_at if prune_at is None else prune_at
        # The scorer's bias needs one more dense block after the scored one; the other methods pack at once.
        dense = min(blocks, prune_at + (2 if vit.has_scorer else 1))
        kept = patches * kept_share
        # A frame attends within itself; a packed row of the first-fit layout pays for all its patches.
        attended = patches if vit.packing == Packing.first_fit else kept
    tokens = dense * (patches + prefix) + (blocks - dense) * (kept + prefix)
    pairs = dense * (patches + prefix) ** 2 + (blocks - dense) * (kept + prefix) * (attended + prefix)
    return FlopCount(
        patch_embedding=2.0 * num_frames * patches * vit.image_patch_size**2 * 3 * vit.image_emb_dim,
        vit_linear=2.0 * num_frames * tokens * vit_block_weights(vit),
        vit_attention=4.0 * num_frames * pairs * vit.image_num_heads * vit.image_head_dim,
    )


def vit_block_weights(vit: VitConfig) -> int:
    """Weights of the linear layers of one ViT block."""
    width = vit.image_num_heads * vit.image_head_dim
    kv_width = vit.image_num_key_value_heads * vit.image_head_dim
    return vit.image_emb_dim * (2 * width + 2 * kv_width + 2 * vit.image_mlp_dim)


def _scorer_flops(vit: TemporalVitConfig, grid: CellGrid, num_frames: int) -> FlopCount:
    """What it costs to decide about one video by its cells of one size.

    The scorer pools every cell of every frame by attention and scores pairs of neighbouring frames with a three-layer MLP;
    `heuristic` compares every frame with every other one, `tome` every cell with those of the previous frame. The other methods
    multiply no matrices.
    """
    members = grid.window[0] * grid.window[1]  # patches of a cell, with the missing ones of a padded grid
    width = members * vit.image_emb_dim
    if vit.prune_method == PruneMethod.heuristic:
        return FlopCount(scorer=2.0 * num_frames**2 * grid.num_cells * width)
    if vit.prune_method == PruneMethod.tome:
        return FlopCount(scorer=2.0 * (num_frames - 1) * grid.num_cells**2 * width)
    if not vit.has_scorer:
        return FlopCount()
    dim, hidden, cells = vit.image_emb_dim, vit.image_mlp_dim, grid.num_cells
    pool = 2 * dim * dim * cells * members + 2 * dim * dim * cells + 2 * dim * cells * members
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
