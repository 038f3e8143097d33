"""What is timed in each part: a pair of functions, and what they compute by the arithmetic."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from olmo.benchmark.cases import Case
from olmo.benchmark.measure import busy_seconds
from olmo.benchmark.models import Arm, arms, release
from olmo.models.model import ModelBase
from olmo.nn.flops import FlopCount, flops_for_batch
from olmo.nn.flops_training import StepFlops, step_flops
from olmo.nn.image_vit import normalize_pixels
from olmo.nn.pruning_methods import select
from olmo.nn.pruning_plan import PruningPlan, plan_pruning
from olmo.nn.temporal_image_vit import TemporalVit
from olmo.nn.token_packing import VarlenPacking

Run = Callable[[], object]


@dataclass
class Pair:
    """Two arms, ready to be timed: the baseline and what is measured."""

    runs: Sequence[Run]
    models: Sequence[ModelBase]
    """Of the arms (ours only)."""
    flops: tuple[StepFlops, StepFlops] | None = None
    """Of one run of each."""
    details: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[], dict[str, Any]] = dict
    """What is known only after the rounds."""

    @property
    def ideal_speedup(self) -> float | None:
        """Ratio of the FLOPs that the mathematics needs."""
        return None if self.flops is None else self.flops[0].model / self.flops[1].model


def autocast(device: torch.device):
    """bf16 on GPUs, where training and asking use it."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def without_gradient(function: Run, device: torch.device) -> Run:
    """What is timed of a forward pass."""

    def run():
        with torch.no_grad(), autocast(device):
            return function()

    return run


def with_gradient(arm: Arm, forward: Callable[[Arm], Tensor], device: torch.device) -> Run:
    """A forward pass and its backward pass, from a loss that reads everything."""

    def run():
        with autocast(device):
            loss = forward(arm).float().square().mean()
        loss.backward()
        release(arm.model)

    return run


def flops_of(arm: Arm) -> FlopCount:
    """Of a forward pass over the arm's batch, under the real mask."""
    return flops_for_batch(arm.config, arm.batch.to("cpu"))


def flops_of_run(count: FlopCount, arm: Arm, case: Case) -> StepFlops:
    """Of what a case times: a forward pass, or a step with its recomputation."""
    if case.direction == "forward":
        return StepFlops(count.total, count.total)
    return step_flops(count, arm.config, recompute="full" if case.recompute else "none")


def pixels(arm: Arm) -> Tensor:
    """What the ViT gets, [F, N, px]."""
    return normalize_pixels(arm.batch.images.flatten(0, 1), arm.config.vision_backbone.vit.normalize)


def plan(arm: Arm) -> PruningPlan:
    vit, images = arm.config.vision_backbone.vit, arm.batch.images
    return plan_pruning(arm.batch.layout, images.shape[1], vit.cells, vit.topk, vit.prune_from_frame, images.device)


def vit_features(arm: Arm) -> Tensor:
    """The selected layers of the ViT, from pixels; pruned where the arm prunes."""
    backbone = arm.model.vision_backbone
    if isinstance(backbone.image_vit, TemporalVit):
        return backbone.image_vit(pixels(arm), backbone.layers, plan(arm)).patches
    hidden = backbone.image_vit(pixels(arm), backbone.layers)
    return torch.cat([hidden[i] for i in backbone.layers], dim=-1)


def vision_features(arm: Arm) -> Tensor:
    batch = arm.batch
    return arm.model.vision_backbone(batch.images, batch.token_pooling, batch.layout).features


def vit(case: Case, device: torch.device) -> Pair:
    """The ViT alone."""
    both = arms(case, device)
    pair = _vision(both, vit_features, {"connector": 0.0}, case, device)
    return replace(pair, finish=lambda: {"stages": selection_stages(both[1], device)})


def published_case(case: Case, device: torch.device) -> Pair:
    """ViT and connector."""
    return _vision(arms(case, device), vision_features, {}, case, device)


def _vision(both: tuple[Arm, Arm], forward: Callable[[Arm], Tensor], left_out: dict, case: Case, device: torch.device) -> Pair:
    """Forward passes of a vision part, or those with their backward passes."""
    left_out = left_out | {"llm_linear": 0.0, "llm_attention": 0.0, "head": 0.0}
    training, runs = case.direction == "training", []
    for arm in both:
        arm.model.train(training)
        runs.append(with_gradient(arm, forward, device) if training else without_gradient(lambda arm=arm: forward(arm), device))
    flops = tuple(flops_of_run(replace(flops_of(arm), **left_out), arm, case) for arm in both)
    return Pair(runs, [arm.model for arm in both], flops)


def selection_stages(arm: Arm, device: torch.device) -> dict[str, float]:
    """Seconds of what pruning adds to the ViT: scores and selection, and gathering what is kept."""
    tower, planned = arm.model.vision_backbone.image_vit, plan(arm)
    if not tower.config.packs:
        return {}
    with torch.no_grad(), autocast(device):
        keep = tower(pixels(arm), arm.model.vision_backbone.layers, planned).keep
        frames = tower.embed(pixels(arm))
        prunable = frames.index_select(0, planned.on_device.frames)
        stages = {
            "scores_and_selection": lambda: select(tower.decide(prunable, planned), planned),
            "packing": lambda: VarlenPacking(keep, *planned.slots).pack(frames),
        }
        return {name: busy_seconds(stage, device) for name, stage in stages.items()}


def reading(arm: Arm, device: torch.device) -> Run:
    """The language model over a prompt whose features are there already."""
    arm.model.eval()
    with torch.no_grad(), autocast(device):
        vision = arm.model.encode_vision(arm.batch)
    return without_gradient(lambda: arm.model.prefill(arm.batch, 1, vision=vision)[0], device)


def reading_flops(arm: Arm) -> StepFlops:
    count = flops_of(arm)
    return StepFlops(*[count.llm_linear + count.llm_attention] * 2)


def llm(case: Case, device: torch.device) -> Pair:
    """The language model reading the sequence."""
    both = arms(case, device)
    return Pair([reading(arm, device) for arm in both], [arm.model for arm in both], tuple(map(reading_flops, both)))


def step(case: Case, device: torch.device) -> Pair:
    """A training step by the trainer's own code, optimiser included; or the forward pass of the whole model."""
    both = arms(case, device)
    models = [arm.model for arm in both]
    if case.direction == "training":
        steps = trainer_steps(models, case, device)
        runs = [lambda step=step, batch=arm.batch.to("cpu"): step(batch, 1) for step, arm in zip(steps, both, strict=True)]
    else:
        runs = [without_gradient(lambda arm=arm: arm.model.eval()(arm.batch, compute_loss=True), device) for arm in both]
    lengths = [sum(row.num_tokens for row in arm.batch.layout) for arm in both]
    return Pair(runs, models, tuple(flops_of_run(flops_of(arm), arm, case) for arm in both), {"tokens_before_pruning": lengths})


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


PARTS: dict[str, Callable[[Case, torch.device], Pair]] = {"vit": vit, "published_case": published_case, "llm": llm, "step": step}
"""Parts whose rows compare an unpruned model with a pruned one."""
