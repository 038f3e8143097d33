"""ViT and connector: pictures in, one visual feature per cell out.

A cell is a window of patches (2x2 for images, 3x3 for video) listed by a row of `token_pooling`. The connector pools the
patches of a cell by attention and projects the result to the width of the language model. It works on any flat list of
patch features and any list of cells, so a caller that dropped patches hands over what is left and pays for nothing else.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from olmo.batch import FastCells, RowLayout
from olmo.config import BaseConfig, StrEnum, refuse_set
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.frame_shares import FrameShare
from olmo.nn.image_vit import VitAttention, VitConfig, normalize_pixels
from olmo.nn.indices import flat_positions, kept_indices, kept_rows


class ImagePooling2D(StrEnum):
    """How the patches of a cell become one vector."""

    attention_meanq = "attention_meanq"
    attention = "attention"
    attention_2wide = "attention_2wide"
    attention_meanq_2x = "attention_meanq_2x"
    attention_meanq_4x = "attention_meanq_4x"
    mean = "mean"


class ImageProjector(StrEnum):
    """How a pooled vector becomes a feature of the language model."""

    mlp = "mlp"
    linear = "linear"
    random_linear = "random_linear"


class ImagePaddingEmbed(StrEnum):
    """How patches that are partly or wholly padding are marked."""

    pad_embed = "pad_embed"
    regress = "regress"
    pad_and_partial_pad = "pad_and_partial_pad"


POOL_WIDTH = {ImagePooling2D.attention_2wide: 2, ImagePooling2D.attention_meanq_2x: 2, ImagePooling2D.attention_meanq_4x: 4}
"""Poolers that are wider than the ViT."""


@dataclass
class MolmoVisionBackboneConfig(BaseConfig):
    """ViT and connector, under the published key names."""

    vit: VitConfig = field(default_factory=VitConfig)
    """The vision transformer."""
    image_pooling_2d: ImagePooling2D = ImagePooling2D.attention_meanq
    """Pooling of a cell: attention with the mean (attention_meanq) or the first patch (attention) as query, or mean."""
    pooling_attention_mask: bool = False
    """Leave the missing patches of a cell out of the mean and the attention; false counts them as zeros."""
    image_projector: ImageProjector = ImageProjector.mlp
    """mlp (gated, half of the language model's mlp_hidden_size), linear, or random_linear (frozen)."""
    image_padding_embed: ImagePaddingEmbed | None = None
    """Learned vector added to padded patches; null for none."""
    vit_layers: list[int] = field(default_factory=lambda: [-1])
    """Blocks whose outputs are concatenated, in this order; negative ones count from vit.image_num_layers."""
    skip_unused_layers: bool = True
    """Do not build the ViT blocks after the last one in vit_layers; false builds them, frozen."""
    use_deepstack: bool = False
    """Reserved by published configs; true is an error."""
    share_connector: bool = False
    """Reserved by published configs for use_deepstack."""
    image_feature_dropout: float = 0.0
    """Dropout on the ViT features while training."""
    connector_activation_checkpointing: bool = True
    """Recompute the connector in the backward pass instead of storing its activations."""
    compile_vit: str | None = "blocks"
    """blocks compiles every ViT block on CUDA; null compiles nothing."""
    compile_connector: str | None = "dynamic"
    """dynamic or default compiles the connector on CUDA; null does not."""
    normalize_on_gpu: bool = False
    """Published key: keep pixels as uint8 until the backbone. uint8 pixels are normalised here whatever it says."""

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Drop keys of older files after checking that they ask for nothing."""
        raw = dict(raw)
        raw.pop("fix_image_padding", None)
        gone = ("residual_patch_features", "patch_residual", "patch_residual_thresh", "debug", "frame_embedding", "pool_size_embeds")
        refuse_set(raw, gone, "vision_backbone")
        for key in ("image_pooling_h", "image_pooling_w"):
            if raw.pop(key, 2) != 2:
                raise OLMoConfigurationError(f"vision_backbone.{key} of an older config must be 2")
        if isinstance(raw.get("vit"), dict):
            raw["vit"] = VitConfig.update_legacy_settings(raw["vit"])
        return raw

    @property
    def layers(self) -> list[int]:
        """`vit_layers` as indices from 0."""
        count = self.vit.image_num_layers
        layers = [i + count if i < 0 else i for i in self.vit_layers]
        if not layers or any(not 0 <= i < count for i in layers):
            raise OLMoConfigurationError(f"vision_backbone.vit_layers = {list(self.vit_layers)} must name blocks of a ViT with {count}")
        return layers

    @property
    def needed_blocks(self) -> int:
        """Blocks that have to run."""
        return max(self.layers) + 1

    def validate(self) -> None:
        """Refuse settings that cannot be built."""
        self.vit.validate()
        if self.use_deepstack:
            raise OLMoConfigurationError("vision_backbone.use_deepstack must be false: no published model uses it")
        if self.compile_vit not in (None, "blocks"):
            raise OLMoConfigurationError(f"vision_backbone.compile_vit = '{self.compile_vit}' must be 'blocks' or null")
        if self.compile_connector not in (None, "dynamic", "default"):
            raise OLMoConfigurationError(f"vision_backbone.compile_connector = '{self.compile_connector}' must be dynamic, default or null")

    def build(self, llm: Any) -> "MolmoVisionBackbone":
        """Build for a language model config `llm` (its d_model, hidden_size and initializer_range are read)."""
        return MolmoVisionBackbone(self, llm)


@dataclass
class VisionOutput:
    """What the language model gets to see."""

    features: Tensor
    """[K, d_model]: one row per kept cell, row-major over the batch."""
    keep_rows: Tensor | None
    """[B, P] bool over the rows of `token_pooling`; None = no cell was dropped."""
    kept_per_row: tuple[int, ...]
    """Kept cells of every row of the batch; sums to K."""
    dropped_per_segment: tuple[tuple[int, ...], ...] | None = None
    """Cells that every visual segment of every row loses; None = no cell was dropped."""
    aux_loss: Tensor | None = None
    """0-d, to be added to the loss; also carries the zero-weighted pass of parameters that had nothing to do."""
    scores: Tensor | None = None
    """[B * T, cells] fp32, high = keep; 1 where frames were not up for pruning."""
    fast_scores: Tensor | None = None
    """[B * T, cells] likewise over the large cells of fast frames; None where no fast frame loses cells."""
    metrics: dict[str, Tensor | float] = field(default_factory=dict)
    """For the log."""


class ConnectorMlp(nn.Module):
    """Gated MLP without biases: w2(silu(w1 x) * w3 x)."""

    def __init__(self, in_dim: int, hidden: int, out_dim: int):
        super().__init__()
        self.w1 = nn.Linear(in_dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, out_dim, bias=False)
        self.w3 = nn.Linear(in_dim, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class MolmoVisionBackbone(nn.Module):
    """ViT, selection of layers, pooling and projection."""

    def __init__(self, config: MolmoVisionBackboneConfig, llm: Any):
        super().__init__()
        config.validate()
        self.config = config
        self.d_model, self.initializer_range = llm.d_model, llm.initializer_range
        self.layers = config.layers
        vit_dim = config.vit.image_emb_dim
        self.pool_dim = vit_dim * len(self.layers)
        self.image_vit = self.build_vit()
        for block in self.image_vit.blocks[config.needed_blocks :]:
            block.requires_grad_(False)
        widen = POOL_WIDTH.get(config.image_pooling_2d, 1)
        pools = config.image_pooling_2d != ImagePooling2D.mean
        self.image_pooling_2d = VitAttention(config.vit, in_dim=self.pool_dim, widen=widen) if pools else None
        pooled_dim = vit_dim * widen if pools else self.pool_dim
        if config.image_projector == ImageProjector.mlp:
            self.image_projector = ConnectorMlp(pooled_dim, llm.hidden_size // 2, llm.d_model)
        else:
            self.image_projector = nn.Linear(pooled_dim, llm.d_model, bias=False)
            self.image_projector.requires_grad_(config.image_projector == ImageProjector.linear)
        pad_shape = (2, self.pool_dim) if config.image_padding_embed == ImagePaddingEmbed.pad_and_partial_pad else (self.pool_dim,)
        self.pad_embed = nn.Parameter(torch.zeros(pad_shape)) if config.image_padding_embed else None

    def build_vit(self) -> nn.Module:
        """The ViT with the blocks that will run (or all of them)."""
        return self.config.vit.build(self.config.needed_blocks if self.config.skip_unused_layers else None)

    def reset_parameters(self) -> None:
        """Random initialisation of ViT and connector; works on parameters whose memory was only allocated."""
        self.image_vit.reset_parameters()
        if self.image_pooling_2d is not None:
            self.image_pooling_2d.reset_parameters()
        for linear in (m for m in self.image_projector.modules() if isinstance(m, nn.Linear)):
            if self.config.image_projector == ImageProjector.mlp:
                nn.init.normal_(linear.weight, std=self.initializer_range)
            elif self.config.image_projector == ImageProjector.linear:
                nn.init.xavier_uniform_(linear.weight)
            else:
                nn.init.uniform_(linear.weight, -0.02, 0.02)
        if self.pad_embed is not None:
            nn.init.zeros_(self.pad_embed)

    def forward(
        self,
        images: Tensor | None,
        token_pooling: Tensor | None,
        layout: tuple[RowLayout, ...],
        image_masks: Tensor | None = None,
        fast: FastCells | None = None,
        context: ContextParallel | None = None,
    ) -> VisionOutput:
        """images: [B, T, N, px]; token_pooling: [B, P, G]; `fast`: cells that are not in it; `context`: ranks that all have these
        images and share the work; see `VisionOutput`.

        Without images, one dummy frame is computed with zero weight, so that every parameter takes part in the collectives
        and the gradients of a sharded model; its graph hangs on `aux_loss`.
        """
        if images is None:
            return self.without_images(layout)
        share = None if context is None else FrameShare(context, images, token_pooling, layout, None, cut=True)
        frames = images.flatten(0, 1) if share is None else share.take(images.flatten(0, 1))
        hidden = self.image_vit(normalize_pixels(frames, self.config.vit.normalize), self.layers)
        prefix = self.config.vit.num_prefix_tokens
        patches = torch.cat([hidden[i][:, prefix:] for i in self.layers], dim=-1).flatten(0, 1)  # [B * T * N, pool_dim]
        if share is not None and image_masks is not None:
            image_masks = share.take(image_masks.flatten(0, 1))
        patches = self.mark_padding(patches, image_masks)
        kept = tuple(row.num_pooled for row in layout)
        if share is not None:
            share.settle(None)
            return VisionOutput(self.connect_share(patches, share, None), None, kept)
        totals = sum(kept), sum(row.num_fast_cells for row in layout)
        keep = kept_rows(token_pooling)  # [B, P]
        return VisionOutput(self.connect_rows(patches, token_pooling, keep, totals, images.shape[1] * images.shape[2], fast), None, kept)

    def without_images(self, layout: tuple[RowLayout, ...]) -> VisionOutput:
        """The output of a batch that holds no picture: no features, and every parameter used with weight zero."""
        device = self.image_vit.positional_embedding.device
        vit = self.config.vit
        image = torch.zeros(1, 1, vit.num_patches, vit.image_patch_size**2 * 3, device=device)
        mask = None if self.pad_embed is None else torch.zeros(1, 1, vit.num_patches, device=device)
        cell = torch.zeros(1, 1, 1, dtype=torch.int64, device=device)
        # `forward`, not a call of the module: its hooks already run around the outer call.
        dummy = self.forward(image, cell, (RowLayout(segments=(), num_tokens=1, num_pooled=1),), mask)
        zero = dummy.features.float().sum() * 0
        if dummy.aux_loss is not None:
            zero = zero + dummy.aux_loss * 0
        return VisionOutput(dummy.features[:0], None, (0,) * len(layout), aux_loss=zero)

    def mark_padding(self, patches: Tensor, mask: Tensor | None) -> Tensor:
        """Add the padding embedding and feature dropout. patches: [n, pool_dim]; mask: n values, 1 = picture, 0 = padding."""
        if self.pad_embed is not None:
            if mask is None:
                raise OLMoConfigurationError("vision_backbone.image_padding_embed is set, but the batch has no image_masks")
            mask = mask.reshape(-1, 1)
            kind = self.config.image_padding_embed
            if kind == ImagePaddingEmbed.regress:
                patches = patches + self.pad_embed * mask.clamp(min=0)
            elif kind == ImagePaddingEmbed.pad_embed:
                patches = patches + self.pad_embed * (mask == 0)
            else:
                patches = patches + self.pad_embed[0] * (mask == 0) + self.pad_embed[1] * ((mask > 0) & (mask < 1))
        return F.dropout(patches, self.config.image_feature_dropout, self.training)

    def connect_rows(
        self,
        patches: Tensor,
        token_pooling: Tensor,
        keep: Tensor,
        totals: tuple[int, int],
        patches_per_row: int,
        fast: FastCells | None = None,
        position: Tensor | None = None,
    ) -> Tensor:
        """Features of the rows of `token_pooling` that are kept, in their order: [K, d_model].

        keep: [B, P] bool; `totals`: K, and how many of these rows belong to fast frames; `position`: which row of `patches` holds
        each patch of the batch (None = all are there). Small and large cells are pooled apart by the same weights.
        """

        def connect(pooling: Tensor, which: Tensor, total: int) -> Tensor:
            cells = gather_cells(pooling, which, total, patches_per_row)
            if position is not None:
                cells = torch.where(cells >= 0, position[cells.clamp(min=0)], -1)
            return self.connect(patches, cells)

        total, num_fast = totals
        if fast is None or not num_fast:
            return connect(token_pooling, keep, total)
        filled = fast.rows >= 0  # [B, Q]
        keep_fast = keep.gather(1, fast.rows.clamp(min=0)) & filled
        spare = F.pad(torch.zeros_like(keep), (0, 1))  # padding goes to a column of its own
        is_fast = spare.scatter(1, torch.where(filled, fast.rows, keep.shape[1]), True)[:, :-1]  # [B, P]
        slow, large = keep & ~is_fast, keep & is_fast
        features = torch.cat([connect(token_pooling, slow, total - num_fast), connect(fast.pooling, keep_fast, num_fast)])
        place = keep.flatten().cumsum(0) - 1
        order = [kept_indices(m.flatten(), n) for m, n in ((slow, total - num_fast), (large, num_fast))]
        return torch.empty_like(features).index_copy(0, place[torch.cat(order)], features)

    def connect_share(self, patches: Tensor, share: FrameShare, packed: Tensor | None) -> Tensor:
        """Features of all kept cells, as `connect_rows`, where every rank of a group has the patches of its own frames.

        `packed`: [F, N], patches of all ranks that were packed; None = nothing was.
        """
        keep, count = share.own_cells()
        if count:
            patches_per_row, position = share.frames_per_row * share.num_patches, share.position(packed)
            features = self.connect_rows(patches, share.token_pooling, keep, (count, 0), patches_per_row, position=position)
        else:
            # a cell for nothing: sharded weights need every rank in every collective
            features = self.connect(patches, torch.zeros_like(share.token_pooling[0, :1]).long())[:0]
        return share.context.gather(features, share.cells)

    def connect(self, patches: Tensor, cells: Tensor) -> Tensor:
        """Pool and project. patches: [n, pool_dim]; cells: [K, G] rows of `patches`, -1 = missing; returns [K, d_model]."""
        present = cells >= 0
        group = patches.index_select(0, cells.clamp(min=0).flatten()).view(*cells.shape, patches.shape[1])  # [K, G, pool_dim]
        group = group * present[..., None].to(group.dtype)
        masked = self.config.pooling_attention_mask or self.image_pooling_2d is None
        count = present.sum(1, keepdim=True).clamp(min=1) if masked else torch.full_like(cells[:, :1], cells.shape[1])
        mean = group.sum(1, dtype=torch.promote_types(group.dtype, torch.float32)) / count
        if self.image_pooling_2d is None:
            pooled = mean
        else:
            first = self.config.image_pooling_2d in (ImagePooling2D.attention, ImagePooling2D.attention_2wide)
            query = group[:, :1] if first else mean[:, None]
            mask = present[:, None, None] if self.config.pooling_attention_mask else None  # [K, 1, 1, G]
            pooled = self.image_pooling_2d(query.to(group.dtype), group, mask=mask)[:, 0]
        return self.image_projector(pooled.to(group.dtype))


def gather_cells(token_pooling: Tensor, keep: Tensor, total: int, patches_per_row: int) -> Tensor:
    """The kept rows of `token_pooling` as indices into the patches of the whole batch: [total, G], -1 = missing.

    token_pooling: [B, P, G] counts patches per batch row; keep: [B, P] bool with `total` True entries.
    """
    batch, cells, _ = token_pooling.shape
    rows = flat_positions(keep, total, "kept rows of token_pooling by the layout's num_pooled")
    index = token_pooling.flatten(0, 1)[rows].long()
    offset = (rows // cells * patches_per_row)[:, None]
    return torch.where(index >= 0, index + offset, -1)
