"""What is timed in each part: a pair of functions, and how much faster the arithmetic says the second one is."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from olmo.benchmark.cases import Case
from olmo.benchmark.measure import interleave
from olmo.benchmark.models import Arm, arms, release
from olmo.models.model import ModelBase
from olmo.nn.flops import FlopCount, flops_for_batch
from olmo.nn.flops_training import StepFlops, step_flops, training_flops
from olmo.nn.image_vit import normalize_pixels
from olmo.nn.pruning_methods import select
from olmo.nn.pruning_plan import plan_pruning
from olmo.nn.temporal_image_vit import PrunedPatches, TemporalVit
from olmo.nn.token_packing import VarlenPacking


@dataclass
class Pair:
    """Two arms, ready to be timed."""

    baseline: Callable[[], object]
    measured: Callable[[], object]
    ideal_speedup: float | None
    models: tuple[ModelBase, ...]
    """Of the two arms (ours only)."""
    details: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[], dict[str, Any]] = dict
    """What is known only after the rounds."""


def autocast(device: torch.device):
    """bf16 on GPUs, where training and asking use it."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def flops_of(arm: Arm) -> FlopCount:
    """Of a forward pass over the arm's batch, under the real mask."""
    return flops_for_batch(arm.config, arm.batch.to("cpu"))


def _vision_flops(arm: Arm, case: Case, connector: bool) -> float:
    count = flops_of(arm)
    seen = replace(count, llm_linear=0.0, llm_attention=0.0, head=0.0, connector=count.connector if connector else 0.0)
    return training_flops(seen) if case.direction == "training" else seen.total


def passes(arm: Arm, forward: Callable[[Arm], Tensor], direction: str, device: torch.device) -> Callable[[], object]:
    """One forward pass, or with its backward pass."""

    def run_forward():
        with torch.no_grad(), autocast(device):
            return forward(arm)

    def run_training():
        with autocast(device):
            loss = forward(arm).float().square().mean()
        loss.backward()
        release(arm.model)

    arm.model.train(direction == "training")
    return run_training if direction == "training" else run_forward


def vit_features(arm: Arm) -> Tensor:
    """The selected layers of the ViT, from pixels; pruned where the arm prunes."""
    backbone = arm.model.vision_backbone
    vit, images = backbone.config.vit, arm.batch.images
    pixels = normalize_pixels(images.flatten(0, 1), vit.normalize)
    if isinstance(backbone.image_vit, TemporalVit):
        plan = plan_pruning(arm.batch.layout, images.shape[1], vit.cells, vit.topk, vit.prune_from_frame, images.device)
        seen: PrunedPatches = backbone.image_vit(pixels, backbone.layers, plan)
        return seen.patches
    hidden = backbone.image_vit(pixels, backbone.layers)
    return torch.cat([hidden[i] for i in backbone.layers], dim=-1)


def vision_features(arm: Arm) -> Tensor:
    batch = arm.batch
    return arm.model.vision_backbone(batch.images, batch.token_pooling, batch.layout).features


def vit(case: Case, device: torch.device) -> Pair:
    """The ViT alone."""
    base, pruned = arms(case, device)
    vit_flops = [_vision_flops(arm, case, connector=False) for arm in (base, pruned)]
    return Pair(
        passes(base, vit_features, case.direction, device),
        passes(pruned, vit_features, case.direction, device),
        vit_flops[0] / vit_flops[1],
        (base.model, pruned.model),
        {"tflop": [f / 1e12 for f in vit_flops], "blocks": base.config.vision_backbone.needed_blocks},
        finish=lambda: {"stages": selection_stages(pruned, device)},
    )


def selection_stages(arm: Arm, device: torch.device) -> dict[str, float]:
    """Seconds of what pruning adds to the ViT: scores and selection, and gathering what is kept."""
    backbone, batch = arm.model.vision_backbone, arm.batch
    vit, tower = backbone.config.vit, backbone.image_vit
    if not vit.packs:
        return {}
    plan = plan_pruning(batch.layout, batch.images.shape[1], vit.cells, vit.topk, vit.prune_from_frame, device)
    frames = torch.randn(plan.num_frames, vit.num_patches, vit.image_emb_dim, device=device)
    with torch.no_grad(), autocast(device):
        prunable = frames.index_select(0, plan.on_device.frames)
        kept = select(tower.decide(prunable, plan), plan)
        keep = plan.cells.spread(kept.new_ones(plan.num_frames, kept.shape[1]).index_copy(0, plan.on_device.frames, kept))
        stages = {
            "scores_and_selection": lambda: select(tower.decide(prunable, plan), plan),
            "packing": lambda: VarlenPacking(keep, *plan.slots).pack(frames),
        }
        timings = interleave(stages, 3, 1, device)
    return {name: timing.median for name, timing in timings.items()}


def published_case(case: Case, device: torch.device) -> Pair:
    """ViT and connector."""
    base, pruned = arms(case, device)
    vision = [_vision_flops(arm, case, connector=True) for arm in (base, pruned)]
    return Pair(
        passes(base, vision_features, case.direction, device),
        passes(pruned, vision_features, case.direction, device),
        vision[0] / vision[1],
        (base.model, pruned.model),
        {"tflop": [f / 1e12 for f in vision], "blocks": base.config.vision_backbone.needed_blocks},
    )


def llm(case: Case, device: torch.device) -> Pair:
    """The language model reading the sequence, with the features already there."""
    both = arms(case, device)
    timed, language = [], []
    for arm in both:
        arm.model.eval()
        with torch.no_grad(), autocast(device):
            vision = arm.model.encode_vision(arm.batch)
        timed.append(_reading(arm, vision, device))
        count = flops_of(arm)
        language.append(count.llm_linear + count.llm_attention)
    models = tuple(arm.model for arm in both)
    return Pair(*timed, language[0] / language[1], models, {"tflop": [f / 1e12 for f in language]} | parameters(both[0]))


def _reading(arm: Arm, vision, device: torch.device) -> Callable[[], object]:
    def read():
        with torch.no_grad(), autocast(device):
            return arm.model.prefill(arm.batch, 1, vision=vision)[0]

    return read


def step(case: Case, device: torch.device) -> Pair:
    """A training step by the trainer's own code, optimiser included; or the forward pass of the whole model."""
    both = arms(case, device)
    counts = [flops_of(arm) for arm in both]
    timed = _steps(both, case, device) if case.direction == "training" else [_forward(arm, device) for arm in both]
    lengths = [sum(row.num_tokens for row in arm.batch.layout) for arm in both]
    steps = [step_flops(c, arm.config, recompute="full" if case.recompute else "none") for c, arm in zip(counts, both, strict=True)]
    if case.direction == "forward":
        steps = [StepFlops(c.total, c.total) for c in counts]
    details = {"tflop": [s.hardware / 1e12 for s in steps], "model_tflop": [s.model / 1e12 for s in steps]}
    models = tuple(arm.model for arm in both)
    return Pair(*timed, steps[0].model / steps[1].model, models, details | {"tokens_before_pruning": lengths} | parameters(both[0]))


def _forward(arm: Arm, device: torch.device) -> Callable[[], object]:
    arm.model.eval()

    def run():
        with torch.no_grad(), autocast(device):
            return arm.model(arm.batch, compute_loss=True).loss

    return run


def _steps(both: tuple[Arm, Arm], case: Case, device: torch.device) -> list[Callable[[], object]]:
    """Steps of the two arms on one set of weights and one state of the optimiser."""
    steps = trainer_steps([arm.model for arm in both], case, device)
    return [lambda step=step, batch=arm.batch.to("cpu"): step(batch, 1) for step, arm in zip(steps, both, strict=True)]


def trainer_steps(models: Sequence[ModelBase], case: Case, device: torch.device, changes: Sequence[str] = ()) -> list[Callable]:
    """The trainer's own step for every model; they share the optimiser, which is that of the last one's parameters."""
    from olmo.config_files import find_config
    from olmo.distributed import World
    from olmo.train.config import TrainConfig
    from olmo.train.optim import build_optimizer
    from olmo.train.scheduler import Scheduler
    from olmo.train.step import TrainStep

    cfg = TrainConfig.load(find_config("stts_50"), [f"device_train_microbatch_size={case.rows}", "compile=null", *changes])
    optimizer = build_optimizer(cfg.optimizer, models[-1])
    scheduler = Scheduler(cfg.scheduler, cfg.max_steps)
    return [TrainStep(cfg, model, optimizer, scheduler, World(0, 0, 1, device)) for model in models]


def parameters(arm: Arm) -> dict[str, float]:
    count = sum(p.numel() for p in arm.model.transformer.parameters())
    return {"llm_parameters": count, "blocks": arm.config.vision_backbone.needed_blocks}


PARTS: dict[str, Callable[[Case, torch.device], Pair]] = {"vit": vit, "published_case": published_case, "llm": llm, "step": step}
"""Parts whose rows compare an unpruned model with a pruned one."""
