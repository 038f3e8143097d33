"""The ViT that drops cells of videos once, early, and computes only on what is left.

Blocks 0..`prune_at` see every patch. Then a method scores the cells of all prunable videos and the lowest leave. With the
learned scorer, block `prune_at` + 1 still sees every patch but with log-scores added to its attention logits, which is how
the task's loss reaches the scorer. From there on only kept patches exist.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from olmo.budget import cells_within_budget
from olmo.config import StrEnum
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.frame_shares import AllFrames, FrameShare
from olmo.nn.image_vit import ImageVit, SiglipVisionTransformer, VisionBackboneType, VitAttention, VitConfig, trunc_normal_fan_in
from olmo.nn.pruning_methods import METHODS, CellScores, neighbour_similarity, select
from olmo.nn.pruning_plan import CellGrid, PruningPlan, cell_grid
from olmo.nn.segment_backends import SEGMENT_BACKENDS
from olmo.nn.token_merging import merge
from olmo.nn.token_packing import FirstFitPacking, VarlenPacking


class PruneMethod(StrEnum):
    """How a video comes to have fewer visual tokens."""

    scorer = "scorer"
    easy = "easy"
    heuristic = "heuristic"
    random = "random"
    evs = "evs"
    tome = "tome"
    fewer_frames = "fewer_frames"
    lower_resolution = "lower_resolution"


FEWER_INPUTS = (PruneMethod.fewer_frames, PruneMethod.lower_resolution)
"""Baselines at an equal number of visual tokens: the model sees less and drops nothing."""


class Packing(StrEnum):
    """How kept patches are laid out."""

    auto = "auto"
    varlen = "varlen"
    first_fit = "first_fit"


class BiasRescale(StrEnum):
    """Over which cells scores are stretched before they become a bias."""

    row = "row"
    frame = "frame"


@dataclass
class TemporalVitConfig(VitConfig):
    """A ViT that can prune; only SigLIP / SigLIP2 can."""

    topk: float = 0.5
    """Fraction of a video's cells that is REMOVED (the published name)."""
    prune: bool = True
    """false is the plain ViT, bit for bit."""
    prune_method: PruneMethod = PruneMethod.scorer
    """scorer (learned), easy, heuristic, random, evs (decides after the ViT; only the connector and the LLM get faster), tome (averages
    similar cells into one), fewer_frames (of those sampled), or lower_resolution (smaller frames, and images as well)."""
    prune_at: int = 3
    """Block, counted from 0, whose output is scored."""
    pruning_in_scorer: bool = True
    """false drops nothing in the ViT and keeps the bias on in every later block; the connector and the LLM still prune."""
    sim_reg_loss_coefficient: float = 0.5
    """Weight of the auxiliary loss that ties scores to the change since the previous frame."""
    rescale_bias_min: float = math.exp(-2)
    """Smallest rescaled score; its logarithm is the strongest bias."""
    new_ref_threshold: float = 0.85
    """easy and heuristic: a frame whose mean similarity is below this is protected."""
    prune_from_frame: int = 0
    """Frames subtracted from the length of a video when its budget is computed."""
    merge: bool = False
    """Reserved by published configs; true is an error."""
    packing: Packing = Packing.auto
    """varlen (= auto, on every device), or first_fit: the published rows, slower, as reference."""
    varlen_backend: str = "auto"
    """varlen only: who computes attention within the kept patches of a frame: auto, torch_varlen, flash_attn, split, padded, flex or
    dense. One that cannot run here is an error that says why; auto says what it took."""
    bias_rescale: BiasRescale = BiasRescale.row
    """Stretch scores over each row of cells (published) or over the frame."""
    refill_lone_frames: bool = True
    """first_fit only: a frame alone in its row brings its dropped patches along (published)."""
    detach_similarity_target: bool = False
    """Stop the gradient of the auxiliary loss into its similarity target (published: not stopped)."""
    pooling_h: int = 3
    """Rows of patches of a video cell; must equal mm_preprocessor.video.pooling_h."""
    pooling_w: int = 3
    """Columns of patches of a video cell; must equal mm_preprocessor.video.pooling_w."""
    prune_seed: int = 0
    """Seed of prune_method random outside training."""

    @property
    def grid(self) -> tuple[int, int]:
        """That of the configured size or, with `lower_resolution`, the largest one with at most 1 - `topk` of its cells."""
        if not (self.prune and self.prune_method == PruneMethod.lower_resolution):
            return self.full_grid
        window = self.pooling_h, self.pooling_w
        cells = cells_within_budget(cell_grid(self.full_grid, window).shape, self.topk)
        return tuple(min(c * w, g) for c, w, g in zip(cells, window, self.full_grid, strict=True))

    @property
    def cells(self) -> CellGrid:
        """Cells of a video frame."""
        return cell_grid(self.grid, (self.pooling_h, self.pooling_w))

    @property
    def drops_cells(self) -> bool:
        return self.prune and self.prune_method not in FEWER_INPUTS

    @property
    def thins_frames(self) -> bool:
        return self.prune and self.prune_method == PruneMethod.fewer_frames

    @property
    def has_scorer(self) -> bool:
        return self.prune and self.prune_method == PruneMethod.scorer

    @property
    def packs(self) -> bool:
        return self.drops_cells and self.prune_method != PruneMethod.evs and (self.pruning_in_scorer or not self.has_scorer)

    def validate(self) -> None:
        super().validate()
        if not 0 <= self.topk < 1:
            raise OLMoConfigurationError(f"vit.topk = {self.topk} must lie in [0, 1): it is the fraction of cells that is removed")
        if self.merge:
            raise OLMoConfigurationError("vit.merge must be false: it is reserved, and vit.prune_method=tome merges cells")
        if self.varlen_backend not in ("auto", *SEGMENT_BACKENDS):
            known = ", ".join(SEGMENT_BACKENDS)
            raise OLMoConfigurationError(f"vit.varlen_backend = '{self.varlen_backend}' is unknown; known: auto, {known}")
        if not 0 < self.rescale_bias_min <= 1:
            raise OLMoConfigurationError(f"vit.rescale_bias_min = {self.rescale_bias_min} must lie in (0, 1]: its logarithm is a bias")
        if self.drops_cells and self.image_model_type != VisionBackboneType.siglip:
            raise OLMoConfigurationError(f"vit.image_model_type = {self.image_model_type} cannot prune: set vit.prune=false or use siglip")
        if self.drops_cells and self.attention_dropout and self.packing != Packing.first_fit:
            raise OLMoConfigurationError("vit.attention_dropout must be 0 with vit.packing varlen, whose kernels have no dropout")

    def validate_prune_at(self, needed_blocks: int) -> None:
        """`needed_blocks`: how many blocks run."""
        if self.drops_cells and self.prune_method != PruneMethod.evs and not 0 <= self.prune_at <= needed_blocks - 2:
            raise OLMoConfigurationError(
                f"vit.prune_at = {self.prune_at} must lie in 0..{needed_blocks - 2}: {needed_blocks} ViT blocks run, "
                "and one has to follow the scored one"
            )

    @property
    def vit_class(self) -> type[ImageVit]:
        return TemporalVit if self.drops_cells else super().vit_class


class ScorerMlp(nn.Module):
    """Three linear layers to one logit; the last runs in fp32, because scores rounded to bf16 would tie in masses."""

    def __init__(self, config: VitConfig):
        super().__init__()
        self.w1 = nn.Linear(2 * config.image_emb_dim, config.image_mlp_dim)
        self.w2 = nn.Linear(config.image_mlp_dim, config.image_mlp_dim)
        self.w3 = nn.Linear(config.image_mlp_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.w2(F.silu(self.w1(x))))
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(wide), self.w3.weight.to(wide), self.w3.bias.to(wide))[..., 0]


class TemporalTokenScorer(nn.Module):
    """Importance of every cell from its patches in this frame and in the previous one."""

    def __init__(self, config: TemporalVitConfig):
        super().__init__()
        self.patch_token_pooler = VitAttention(config)
        self.mlp = ScorerMlp(config)

    def reset_parameters(self) -> None:
        self.patch_token_pooler.reset_parameters()
        for linear in self.mlp.children():
            trunc_normal_fan_in(linear)

    def forward(self, cells: Tensor, first: Tensor, present: Tensor | None = None) -> Tensor:
        """cells: [P, C, G, D]; first: [P] bool, starts a video; present: [C, G] or None; returns scores [P, C] in (0, 1)."""
        frames, count, group, _ = cells.shape
        if present is None:
            query, mask = cells.mean(2), None
        else:
            query = cells.sum(2) / present.sum(1)[:, None]
            mask = present.expand(frames, -1, -1).reshape(frames * count, 1, 1, group)
        pooled = self.patch_token_pooler(query.flatten(0, 1)[:, None], cells.flatten(0, 1), mask=mask)
        pooled = pooled.view(frames, count, -1)
        previous = pooled.roll(1, 0).masked_fill(first[:, None, None], 0)  # the first frame of all is first in its video
        return torch.sigmoid(self.mlp(torch.cat([previous, pooled], dim=-1)))


@dataclass
class PrunedPatches:
    """What the ViT hands to the connector."""

    patches: Tensor
    """[n, D * layers]: the selected layers of the kept patches in order (of all patches where nothing was packed)."""
    keep: Tensor | None = None
    """[F, N] bool, True = the patch survives; None = nothing was dropped."""
    kept: Tensor | None = None
    """[n] which of the F * N patches each row of `patches` holds; None = all of them, in order."""
    scores: Tensor | None = None
    """[P, C] of the prunable frames."""
    own_scores: Tensor | None = None
    """The scores, with their gradient, of the prunable frames that this rank computed: the same unless frames are shared."""
    fast_scores: Tensor | None = None
    """[P, C] likewise over the large cells of fast frames."""
    similarity: Tensor | None = None
    """[P - 1, C] cosine of neighbouring frames (of those computed here), while training with the scorer."""
    idle_scorer_pass: Tensor | None = None
    """0-d zero that ties the scorer to the graph when no frame here was prunable; part of the auxiliary loss, so that every rank has
    gradients of it."""
    metrics: dict[str, Tensor | float] = field(default_factory=dict)


class TemporalVit(SiglipVisionTransformer):
    """SigLIP that prunes. Its `forward` takes the plan of the batch and returns `PrunedPatches`."""

    def __init__(self, config: TemporalVitConfig, num_blocks: int):
        super().__init__(config, num_blocks)
        if config.has_scorer:
            self.transformer["temporal_token_scorer"] = TemporalTokenScorer(config)

    @property
    def scorer(self) -> TemporalTokenScorer | None:
        return self.transformer["temporal_token_scorer"] if self.config.has_scorer else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.scorer is not None:
            self.scorer.reset_parameters()

    def forward(self, x: Tensor, layers: Sequence[int], plan: PruningPlan, share: FrameShare | None = None) -> PrunedPatches:
        """x: [F, N, px] normalised patches; `layers`: blocks whose outputs are concatenated; `share`: x are its frames, and the result is
        about its own frames but for `keep` and `scores`, which are about all."""
        share = AllFrames(plan) if share is None else share
        config, last = self.config, max(layers)
        decide_at = last if config.prune_method == PruneMethod.evs else config.prune_at
        hidden = dict.fromkeys(layers)  # outputs of these blocks, [F, N, D]; the others are forgotten at once
        x = self.run(self.embed(x), range(decide_at + 1), hidden)
        if not plan.parts:
            idle = self.idle_scorer(x)
            share.settle(None)
            self.run(tied(x, idle), range(decide_at + 1, last + 1), hidden)
            patches = torch.cat([hidden[i] for i in layers], dim=-1).flatten(0, 1)
            return PrunedPatches(patches, idle_scorer_pass=idle, metrics=packing_metrics(len(x)))

        keep, key_bias, similarity, idle, scores = None, None, None, None, {}
        for part in plan.parts:  # fast frames have cells and a budget of their own
            here = share.of(part)
            if here.videos:
                # [P, N, D]; no copy, which training would have to keep, where that is every frame
                prunable = x if sum(here.frame_counts) == here.num_frames else x.index_select(0, here.on_device.frames)
                own_answer = self.decide(prunable, here)
            else:
                own_answer, idle = None, self.idle_scorer(x)
            answer = share.everywhere(own_answer, part, x.dtype)
            keep_prunable = select(answer, part)  # [P, C]
            keep_cells = x.new_ones(part.num_frames, part.cells.num_cells, dtype=torch.bool)
            keep_cells.index_copy_(0, part.on_device.frames, keep_prunable)
            stays = part.cells.spread(keep_cells) & part.on_device.real[:, None]  # [F, N]
            keep = stays if keep is None else keep & stays
            scores["fast_scores" if part is plan.fast else "scores"] = answer.scores
            if own_answer is None:
                continue
            scores["own_scores"] = own_answer.scores
            if config.has_scorer:
                bias = log_score_bias(own_answer.scores, here, config.rescale_bias_min, config.bias_rescale)
                key_bias = bias if key_bias is None else key_bias + bias
            if self.training and config.has_scorer:
                similarity = neighbour_similarity(prunable, here.cells)
            if own_answer.match is not None:
                x = x.index_copy(0, here.on_device.frames, merge(prunable, share.own_rows(keep_prunable), own_answer.match, here))
                hidden |= {decide_at: x} if decide_at in hidden else {}
        found = {"idle_scorer_pass": idle, "similarity": similarity, **scores}
        if share.lent:  # from here on frames are on their own
            x, key_bias = x[share.lent :], key_bias[share.lent :]
            hidden = {i: None if h is None else h[share.lent :] for i, h in hidden.items()}
        x = tied(x, idle)
        resume = decide_at + 1
        if config.has_scorer:
            biased = range(resume, resume + 1 if config.pruning_in_scorer else last + 1)
            x = self.run(x, biased, hidden, key_bias=key_bias)
            resume = biased.stop
        if not config.packs:
            share.settle(keep)
            patches = torch.cat([hidden[i] for i in layers], dim=-1).flatten(0, 1)
            return PrunedPatches(patches, keep, None, metrics=packing_metrics(len(x)), **found)

        to_pack = share.to_pack(keep)
        if config.packing == Packing.first_fit:
            packing = FirstFitPacking(*to_pack, refill=config.refill_lone_frames)
        else:
            packing = VarlenPacking(*to_pack)
        packed = dict.fromkeys(layers)
        self.run(packing.pack(x), range(resume, last + 1), packed, **packing.attention)
        patches = [packing.unpack(packing.pack(hidden[i]) if packed[i] is None else packed[i]) for i in layers]
        metrics = packing_metrics(packing.rows, packing.refilled, keep.index_select(0, plan.parts[0].on_device.frames))
        return PrunedPatches(torch.cat(patches, dim=-1), keep, packing.kept, metrics=metrics, **found)

    def run(self, x: Tensor, which: range, outputs: dict[int, Tensor | None], **attention) -> Tensor:
        """Run some blocks and note what those among the keys of `outputs` return."""
        for i in which:
            x = self.blocks[i](x, **attention)
            if i in outputs:
                outputs[i] = x
        return x

    def decide(self, x: Tensor, plan: PruningPlan) -> CellScores:
        """What the configured method thinks of the cells of the prunable frames x [P, N, D]."""
        if self.scorer is not None:
            return CellScores(self.scorer(plan.cells.split(x), plan.on_device.first, plan.cells.present(x.device)))
        with torch.autocast(x.device.type, enabled=False):
            return METHODS[self.config.prune_method](x.detach(), plan, self.config, self.training)

    def idle_scorer(self, x: Tensor) -> Tensor | None:
        """Run the scorer on one frame with weight zero, so that it takes part in the collectives of a sharded model."""
        if self.scorer is None:
            return None
        cells = self.config.cells
        first = torch.ones(1, dtype=torch.bool, device=x.device)
        return self.scorer(cells.split(x[:1]), first, cells.present(x.device)).sum() * 0


def tied(x: Tensor, zero: Tensor | None) -> Tensor:
    """x, made to depend on the scorer where it depends on nothing that is trained (frozen blocks): on ranks that score frames the later
    blocks do, and every rank has to gather their weights in the backward pass or none."""
    return x + zero.to(x.dtype) if zero is not None and zero.requires_grad and not x.requires_grad else x


def log_score_bias(scores: Tensor, plan: PruningPlan, minimum: float, rescale: str) -> Tensor:
    """Scores [P, C] to the bias of every patch as a key, [F, N] in [log(minimum), 0]; 0 where nothing is up for pruning.

    Scores are stretched to [minimum, 1] over each row of cells, or over the frame; first frames (whole ones) count as 1.
    """
    scores = scores.unflatten(1, plan.cells.shape)
    over = (2,) if rescale == BiasRescale.row else (1, 2)
    low, high = scores.amin(over, keepdim=True), scores.amax(over, keepdim=True)
    stretched = minimum + (scores - low) * (1 - minimum) / (high - low + 1e-6)
    bias = stretched.log().flatten(1).masked_fill(plan.on_device.whole[:, None], 0)
    full = bias.new_zeros(plan.num_frames, plan.cells.num_cells).index_copy(0, plan.on_device.frames, bias)
    return plan.cells.spread(full)


def packing_metrics(rows: float, refilled: int = 0, keep: Tensor | None = None) -> dict[str, Tensor | float]:
    """For the log: work of the packed blocks in whole frames, and refilled over kept patches of prunable frames."""
    return {"packed_rows": float(rows), "refilled_over_kept": refilled / keep.sum() if refilled else 0.0}
