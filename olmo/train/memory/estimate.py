"""How much memory a training step takes on one device, from the config and a few host integers, before anything is built.

What stays (weights, gradients, optimiser) is counted from the parameters. Activations are counted from formulas of what every
kind of layer keeps for its backward pass, in bytes per token: `tests/train/test_memory_estimate.py` holds them against what
autograd keeps. The backward pass goes from the head to the pixels: activations leave while gradients come, so the peak is looked for
at the end of every part. Eager code is assumed; compiled code fuses, and keeps less.
"""

from dataclasses import dataclass, replace

from olmo.budget import frames_within_budget, pruning_budget
from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import ModelBase
from olmo.models.molmo2.preprocessor import video_cells
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig
from olmo.train.build import meta_model
from olmo.train.config import TrainConfig
from olmo.train.memory.activation_bytes import Regime, connector_cell, decoder_block, norm, pixels, scorer_cell, vit_block, with_adapters

RESERVED = 1.5e9
"""Bytes of a GPU that are not for tensors: the CUDA context, kernels, nccl's buffers."""
FRAGMENTED = 0.05
"""Share of what tensors take that the allocator holds beside it."""
CHUNK = 1024
"""Rows of logits that exist at once."""


@dataclass(frozen=True)
class Shape:
    """What one device computes at once: so many rows, each with this much in it."""

    rows: int
    frames: int
    """Frames of a row, of videos as the preprocessor gives them."""
    kept_frames: float
    """The same counted in whole frames after pruning."""
    tokens: int
    """Positions of a row in the language model, after pruning, padding included."""
    loss_tokens: int
    """Positions of a row with a loss."""

    def shared_by(self, ranks: int) -> "Shape":
        """What one of so many ranks computes that share every row (`olmo/nn/context_parallel.py`), where frames are kept evenly."""
        frames, tokens, loss_tokens = (-(-count // ranks) for count in (self.frames, self.tokens, self.loss_tokens))
        return replace(self, frames=frames, kept_frames=self.kept_frames / ranks, tokens=tokens, loss_tokens=loss_tokens)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device."""

    static: dict[str, float]
    """What is there through the whole step."""
    activations: dict[str, float]
    """What the forward pass keeps for the backward pass, by part in the order of the forward pass."""
    gradients: dict[str, float]
    """Gradients by the same parts, made in the reverse order (in `static` where earlier micro-batches made them)."""
    transient: dict[str, float]
    """What the backward pass of a part needs beside that while it runs."""
    on_gpu: bool = True

    @property
    def peak(self) -> float:
        """The most that tensors take at any time of the step."""
        return sum(self.static.values()) + self.moving

    @property
    def moving(self) -> float:
        """The most that activations, gradients of this backward pass and what is needed at that moment take together."""
        left, made, most = sum(self.activations.values()), 0.0, 0.0
        for part in reversed(self.activations):
            made += self.gradients.get(part, 0.0)
            most = max(most, left + made + self.transient.get(part, 0.0))
            left -= self.activations[part]
        return max(most, made)

    @property
    def needed(self) -> float:
        """What the device has to have."""
        return self.peak * (1 + FRAGMENTED) + RESERVED if self.on_gpu else self.peak


def shape_of(cfg: TrainConfig, frames: int | None = None, text: int = 200) -> Shape:
    """One video of `frames` frames (None = as many as a row may hold) and `text` tokens in every row.

    Where sequences have a fixed length (`data.sequence_length`, padded) that is what the language model computes.
    """
    vision, video = cfg.model.vision_backbone, cfg.model.mm_preprocessor.video
    length = cfg.data.sequence_length if cfg.compile is not None and not cfg.compile.dynamic else None
    if vision is None:
        tokens = length or text
        return Shape(cfg.device_train_microbatch_size, 0, 0.0, tokens, tokens // 2)
    if frames is None:
        packing = cfg.data.packing
        frames = video.max_frames if packing is None else packing.row_frames(video.max_frames)
    vit, cells = vision.vit, video_cells(cfg.model).num_cells
    if vit.thins_frames:
        frames = frames_within_budget(frames, cells, vit.topk, vit.prune_from_frame)
    dropped = 0
    if vit.drops_cells and frames:
        dropped = pruning_budget(frames, cells, *cfg.model.mm_preprocessor.pruning(vit))
    tokens = frames * (cells + 2) - dropped + text
    if length is not None:
        if tokens > length:
            raise OLMoConfigurationError(
                f"{frames} frames and {text} tokens of text are {tokens} tokens after pruning, more than data.sequence_length {length}; "
                "name fewer frames, a larger topk or another --seq_len"
            )
        tokens = length
    return Shape(cfg.device_train_microbatch_size, frames, frames - dropped / cells, tokens, text // 2)


def estimate(
    cfg: TrainConfig, gpus: int = 1, shape: Shape | None = None, *, on_gpu: bool = True, model: ModelBase | None = None
) -> MemoryEstimate:
    """Memory of a step on each of `gpus` devices (`on_gpu` false: on CPUs, where nothing is sharded).

    `shape`: of whole rows, also where ranks share them. `model`: that of `meta_model(cfg)`, for callers that ask about many shapes.
    Raises OLMoConfigurationError for a number of GPUs that a start would refuse.
    """
    cfg.check_ranks(gpus)
    shape = shape_of(cfg) if shape is None else shape
    regime, model = regime_of(cfg, on_gpu), meta_model(cfg) if model is None else model
    parallelism = cfg.parallelism
    shards, degree = gpus // parallelism.data_parallel_replicate_degree, parallelism.context_parallel_config.degree
    own = shape.shared_by(degree)
    if degree > 1 and shape.kept_frames < shape.frames and cfg.model.vision_backbone.vit.has_scorer:
        own = replace(own, frames=own.frames + 1)  # the last of the rank before, up to its scores
    weights, trained = (sum(p.numel() for p in model.parameters() if all_of_them or p.requires_grad) for all_of_them in (True, False))
    static = {"weights": 4.0 * weights / shards, "optimiser": 8.0 * trained / shards}
    if cfg.ema is not None:
        static["running average"] = 4.0 * trained / shards
    if regime.copies:
        static["weights in bf16"] = 2.0 * weights
    if regime.sharded:
        static |= gathered(model, regime)
    if cfg.model.vision_backbone is not None:
        static["pixels"] = float(shape.rows * shape.frames * pixels(cfg.model.vision_backbone.vit))
    width = 4.0 / shards  # of a gradient, when it comes
    if cfg.rows_per_rank(gpus) > cfg.device_train_microbatch_size:
        if regime.sharded and not cfg.fsdp.reduce_every_microbatch:
            static["gradients of earlier micro-batches"] = float(regime.gathered * trained)
            width = max(width - regime.gathered, 0.0)
        else:
            static["gradients of earlier micro-batches"], width = width * trained, 0.0
    kept, moments = vision_activations(cfg, model, own, regime) if shape.frames else ({}, {})
    of_decoder = decoder_activations(cfg, model, own, regime)
    return MemoryEstimate(static, kept | of_decoder[0], gradients_by_part(model, width), moments | of_decoder[1], on_gpu)


def regime_of(cfg: TrainConfig, on_gpu: bool) -> Regime:
    """In which types the model computes, keeps and gathers."""
    if not on_gpu:
        return Regime(compute=4, residual=4, on_gpu=False)
    low = cfg.precision == "amp_bf16"
    if not low or cfg.fsdp.precision == "float":
        return Regime(compute=2 if low else 4, residual=4, copies=low, sharded=True)
    return Regime(compute=2, residual=2, gathered=2, sharded=True)


# ---------------------------------------------------------------------------------------------- what is kept


def vision_activations(cfg: TrainConfig, model: ModelBase, shape: Shape, regime: Regime) -> tuple[dict[str, float], dict[str, float]]:
    """(kept, needed for a moment) of the ViT and the connector, by part."""
    vision = cfg.model.vision_backbone
    vit, cells, trained = vision.vit, video_cells(cfg.model), requires_gradient(model)
    mode = cfg.recompute if vit.activation_checkpointing else "none"
    patches, kept_patches = (shape.rows * count * vit.num_patches for count in (shape.frames, shape.kept_frames))
    dense, biased, packed = blocks_by_kind(vision, shape.kept_frames < shape.frames)
    scored = bool(biased or (vit.has_scorer and shape.kept_frames < shape.frames))
    block = model.vision_backbone.image_vit.blocks[0]
    plain, with_bias = (with_adapters(vit_block(vit, regime, biased), block, regime) for biased in (False, True))
    kept, brief = {}, {}
    before = trained["vit"]  # a frozen ViT keeps nothing of what comes before its scorer
    after = before or (scored and trained["temporal_token_scorer"])
    kept["vit, all patches"] = before * patches * (dense * plain.of(mode) + regime.compute * 3 * vit.image_patch_size**2)
    if scored:
        kept["scorer"] = trained["temporal_token_scorer"] * shape.rows * shape.frames * cells.num_cells * scorer_cell(vit, regime).of(mode)
    if biased or packed:
        kept["vit, kept patches"] = after * (biased * patches * with_bias.of(mode) + packed * kept_patches * plain.of(mode))
    count = shape.rows * shape.kept_frames * cells.num_cells
    mode_of_connector = cfg.recompute if vision.connector_activation_checkpointing else "none"
    window = cfg.model.mm_preprocessor.video.pooling_h * cfg.model.mm_preprocessor.video.pooling_w
    connector = connector_cell(vision, cfg.model.llm, window, regime)
    flows = after or trained["connector"]
    kept["connector"] = flows * count * connector.of(mode_of_connector)
    brief["vit, all patches"] = before * patches * plain.moment(mode)
    brief["vit, kept patches"] = after * max(biased * patches * with_bias.moment(mode), min(packed, 1) * kept_patches * plain.moment(mode))
    brief["connector"] = flows * count * connector.moment(mode_of_connector)
    return kept, {name: value for name, value in brief.items() if name in kept}


def blocks_by_kind(vision: MolmoVisionBackboneConfig, pruned: bool) -> tuple[int, int, int]:
    """ViT blocks that see every patch, those that do it with the scores as a bias, and those that see what is kept."""
    vit, blocks = vision.vit, vision.needed_blocks
    if not (pruned and vit.packs):
        return blocks, 0, 0
    dense, biased = vit.prune_at + 1, int(vit.has_scorer)
    return dense, biased, blocks - dense - biased


def decoder_activations(cfg: TrainConfig, model: ModelBase, shape: Shape, regime: Regime) -> tuple[dict[str, float], dict[str, float]]:
    """(kept, needed for a moment) of the blocks of the decoder, and of the loss."""
    llm, tokens = cfg.model.llm, shape.rows * shape.tokens
    block = with_adapters(decoder_block(llm, regime), model.transformer.blocks[0], regime)
    checkpoint = llm.activation_checkpoint if cfg.recompute != "none" else None
    wrapped = 0 if checkpoint is None else sum(checkpoint.wraps(layer) for layer in range(llm.n_layers))
    kept = tokens * (wrapped * block.of(cfg.recompute) + (llm.n_layers - wrapped) * block.none)
    # cosines and sines of the positions, once for all blocks
    kept += 8.0 * tokens * llm.head_size * len({repr(llm.rope_settings(layer)) for layer in range(llm.n_layers)})
    moment = tokens * block.moment(cfg.recompute if wrapped else "none")
    rows, vocabulary = shape.rows * shape.loss_tokens, llm.embedding_rows * llm.d_model
    matrix = "transformer.wte." if llm.weight_tying else "transformer.ff_out."
    head_trained = any(p.requires_grad for n, p in model.named_parameters() if n.startswith(matrix))
    logits = min(rows, CHUNK) * llm.embedding_rows * (4.0 * 2 + regime.compute)
    return (
        {"decoder": kept, "loss": rows * norm(llm.d_model, regime)},
        # the gradient of the matrix is summed up in fp32 before it is cast and sharded
        {"decoder": moment, "loss": logits + (4.0 * vocabulary if head_trained and regime.sharded else 0.0)},
    )


def requires_gradient(model: ModelBase) -> dict[str, bool]:
    """Part -> whether something in it is trained."""
    return {part: any(p.requires_grad for _, p in members) for part, members in model.parameter_groups().items()}


# ---------------------------------------------------------------------------------------------- what stays


PART_OF_GROUP = {"llm": "decoder", "connector": "connector", "vit": "vit, all patches", "temporal_token_scorer": "vit, all patches"}


def gradients_by_part(model: ModelBase, width: float) -> dict[str, float]:
    """Bytes of gradients, `width` for every number, by the part of the backward pass that makes them."""
    made: dict[str, float] = {}
    for group, members in model.parameter_groups().items():
        for name, p in members:
            if p.requires_grad:
                head = group == "llm" and "blocks" not in name
                part = "loss" if head else PART_OF_GROUP.get(group, "decoder")
                made[part] = made.get(part, 0.0) + width * p.numel()
    return made


def gathered(model: ModelBase, regime: Regime) -> dict[str, float]:
    """Whole parameters and gradients that a device holds for a moment while they are gathered and reduced.

    The block that is computed, the next one on its way, and the last one's gradient before and after its copy into the reduction;
    the embedding is a unit of its own.
    """
    block = max(sum(p.numel() for p in block.parameters()) for block in model.transformer.blocks)
    embedding = sum(p.numel() for p in model.transformer.wte.parameters())
    return {"gathered weights": regime.gathered * (2.0 * block + embedding), "gradients on their way": regime.gathered * 2.0 * block}
