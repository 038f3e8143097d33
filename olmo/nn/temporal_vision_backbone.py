"""ViT and connector with pruning: the keep mask goes from patches to cells, and only kept cells are pooled and projected.

A cell keeps or loses all of its patches, so one patch tells the fate of its cell. The resulting mask over the rows of
`token_pooling` is the only thing about pruning that leaves this module.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from olmo.batch import FastCells, RowLayout
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.frame_shares import FrameShare
from olmo.nn.image_vit import normalize_pixels
from olmo.nn.indices import kept_rows
from olmo.nn.pruning_plan import PruningPlan, plan_pruning, square_cells
from olmo.nn.temporal_image_vit import PrunedPatches, TemporalVitConfig
from olmo.nn.vision_backbone import MolmoVisionBackbone, MolmoVisionBackboneConfig, VisionOutput


@dataclass
class TemporalVisionBackboneConfig(MolmoVisionBackboneConfig):
    """Vision backbone whose ViT can prune."""

    vit: TemporalVitConfig = field(default_factory=TemporalVitConfig)
    """The pruning vision transformer."""

    def validate(self) -> None:
        super().validate()
        self.vit.validate_prune_at(self.needed_blocks)

    def build(self, llm: Any) -> "TemporalVisionBackbone":
        """Build for a language model config `llm`, see the parent class."""
        return TemporalVisionBackbone(self, llm)


class TemporalVisionBackbone(MolmoVisionBackbone):
    """Same interface as the plain backbone; where the ViT drops no cells it is the plain backbone."""

    config: TemporalVisionBackboneConfig

    @property
    def scorer(self) -> nn.Module | None:
        """The learned part of pruning: its parameters form a group of their own."""
        return self.image_vit.scorer if self.config.vit.has_scorer else None

    def forward(
        self,
        images: Tensor | None,
        token_pooling: Tensor | None,
        layout: tuple[RowLayout, ...],
        image_masks: Tensor | None = None,
        fast: FastCells | None = None,
        context: ContextParallel | None = None,
    ) -> VisionOutput:
        """images: [B, T, N, px]; token_pooling: [B, P, G]; see the parent class."""
        vit = self.config.vit
        if images is None or not vit.drops_cells:
            return super().forward(images, token_pooling, layout, image_masks, fast, context)
        frames_per_row, num_patches = images.shape[1:3]
        large = None if fast is None else square_cells(vit.grid, fast.pooling.shape[-1])
        plan = plan_pruning(layout, frames_per_row, vit.cells, vit.topk, vit.prune_from_frame, images.device, large)
        share = None if context is None else FrameShare(context, images, token_pooling, layout, plan, cut=vit.has_scorer)
        frames = images.flatten(0, 1) if share is None else share.take(images.flatten(0, 1))
        seen = self.image_vit(normalize_pixels(frames, vit.normalize), self.layers, plan, share)

        if image_masks is not None and share is not None:
            image_masks = share.take(image_masks.flatten(0, 1))[share.lent :]
        if image_masks is not None and seen.kept is not None:
            image_masks = image_masks.flatten()[seen.kept]
        patches = self.mark_padding(seen.patches, image_masks)
        kept_per_row = tuple(row.num_pooled - dropped for row, dropped in zip(layout, plan.dropped_per_row, strict=True))
        if share is not None:
            keep_rows = share.keep_rows
            features = self.connect_share(patches, share, None if seen.kept is None else seen.keep)
        else:
            keep_rows = kept_rows(token_pooling, seen.keep)
            totals = sum(kept_per_row), sum(row.num_fast_cells for row in layout) - plan.dropped_fast
            # [F * N], row of `patches` that holds each kept patch
            position = None if seen.kept is None else seen.keep.flatten().cumsum(0) - 1
            features = self.connect_rows(patches, token_pooling, keep_rows, totals, frames_per_row * num_patches, fast, position)
        return VisionOutput(
            features=features,
            keep_rows=keep_rows if plan.parts else None,
            kept_per_row=kept_per_row,
            dropped_per_segment=plan.dropped_per_segment if plan.parts else None,
            aux_loss=self.auxiliary_loss(seen, plan, share),
            scores=all_scores(seen.scores, plan),
            fast_scores=all_scores(seen.fast_scores, plan.fast),
            metrics=seen.metrics | {"kept_fraction": sum(kept_per_row) / max(sum(row.num_pooled for row in layout), 1)},
        )

    def auxiliary_loss(self, seen: PrunedPatches, plan: PruningPlan, share: FrameShare | None = None) -> Tensor | None:
        """Scores should be high where a cell changed: mean squared distance to 1 - similarity, over neighbours in a video.

        Ranks that share frames give their part of it each, so large that the mean of the ranks is the whole.
        """
        if not self.training or not self.config.vit.has_scorer:
            return None
        assert plan.fast is None, "fast frames are for inference"
        if seen.idle_scorer_pass is not None:
            return seen.idle_scorer_pass
        change = 1 - seen.similarity  # [P - 1, C]
        if self.config.vit.detach_similarity_target:
            change = change.detach()
        followers = plan.on_device.followers if share is None else share.plan.on_device.followers
        error = seen.own_scores.index_select(0, followers) - change.index_select(0, followers - 1)
        if share is None:
            return self.config.vit.sim_reg_loss_coefficient * error.square().mean()
        pairs = sum(plan.frame_counts) - len(plan.videos)
        part = share.context.degree / (pairs * plan.cells.num_cells)
        return self.config.vit.sim_reg_loss_coefficient * error.square().sum() * part


def all_scores(seen: Tensor | None, plan: PruningPlan | None) -> Tensor | None:
    """Scores [P, C] of the prunable frames as those of every frame of the batch, [F, C]."""
    if seen is None:
        return None
    scores = torch.ones(plan.num_frames, plan.cells.num_cells, dtype=seen.dtype, device=seen.device)
    return scores.index_copy_(0, plan.on_device.frames, seen.detach())
