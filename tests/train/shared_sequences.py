"""What each rank of `test_context_parallel.py` runs (a module of its own, so that spawned processes can import it)."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from olmo.batch import Batch, MultimodalType, RowLayout
from olmo.checkpoints import model_tensors
from olmo.distributed import World, whole
from olmo.nn.temporal_vision_backbone import TemporalVisionBackbone
from olmo.train import build
from olmo.train.config import TrainConfig
from olmo.train.mesh import ContextParallelConfig, ParallelismConfig
from olmo.train.optim import OptimizerConfig, build_optimizer
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainStep
from tests.models.builders import Example, batch, config

HEADS = dict(n_heads=8, n_kv_heads=4)


@dataclass(frozen=True)
class Case:
    """Rows of the global batch and settings of the model and the run."""

    rows: tuple[tuple[Example, ...], ...]
    model: dict = field(default_factory=dict)
    run: dict = field(default_factory=dict)
    images: tuple[int, ...] = ()
    """Lengths of the videos that are taken for images."""


LONG, SHORT, TREE = Example(5, (6,), 1), Example(2, (3,), 2), Example(3, (4, 3, 5), 3)
VIDEOS = ((LONG, TREE), (SHORT, Example(4, (2, 2), 4)))
CASES = {
    "branches, packed": Case(VIDEOS),
    "nothing removed": Case(VIDEOS, dict(vit=dict(topk=0.0))),
    "nearly all removed": Case(VIDEOS, dict(vit=dict(topk=0.9))),
    "causal, untied, one micro-batch of two rows": Case(
        VIDEOS * 2, dict(bi_directional_attn=None, llm=HEADS | dict(weight_tying=False)), dict(device_train_microbatch_size=2)
    ),
    "recomputed": Case(VIDEOS, dict(llm=HEADS | dict(activation_checkpoint="whole_layer"))),
    "few frames": Case(((Example(1, (4,), 5),), (Example(2, (6,), 6),))),
    "text beside video": Case(((LONG,), (Example(0, (9,), 7),))),
    "text alone": Case(((Example(0, (9, 4), 7),), (Example(0, (5,), 8),))),
    "images": Case(((SHORT, LONG), (TREE, SHORT)), images=(2, 3)),
    "no scorer": Case(VIDEOS, dict(temporal=False)),
    "bias only": Case(VIDEOS, dict(vit=dict(pruning_in_scorer=False))),
    "first fit": Case(VIDEOS, dict(vit=dict(packing="first_fit", refill_lone_frames=False))),
    "easy": Case(VIDEOS, dict(vit=dict(prune_method="easy"))),
    "evs": Case(VIDEOS, dict(vit=dict(prune_method="evs"))),
    "tome": Case(VIDEOS, dict(vit=dict(prune_method="tome"))),
    "frozen vision": Case(VIDEOS, run=dict(ft_vit=False, ft_connector=False)),
}


def as_images(row: RowLayout, lengths: tuple[int, ...]) -> RowLayout:
    return replace(row, segments=tuple(replace(s, kind=MultimodalType.IMAGE) if s.num_frames in lengths else s for s in row.segments))


def rows_of(case: Case, part: slice) -> Batch:
    made = batch(*(list(row) for row in case.rows[part]))
    return replace(made, layout=tuple(as_images(row, case.images) for row in made.layout))


def make_step(case: Case, world: World, parallelism: ParallelismConfig) -> TrainStep:
    cfg = TrainConfig(
        model=config(**({"llm": HEADS} | case.model)),
        parallelism=parallelism,
        global_train_batch_size=len(case.rows),
        optimizer=OptimizerConfig(),
        softmax_auxiliary_loss=True,
        softmax_auxiliary_loss_scale=1e-2,
        ft_embedding="all",
        **({"device_train_microbatch_size": 1} | case.run),
    )
    cfg.parallelism.check(world.size)
    model = build.build_sharded_model(cfg, world)
    build.initialise_weights(cfg, model, world)
    return TrainStep(cfg, model, build_optimizer(cfg.optimizer, model), Scheduler(SchedulerConfig(), 100), world)


def first_step(name: str, world: World, degree: int = 1, replicas: int = 1) -> dict:
    """Metrics, counts and gradients of one step on this rank's rows, and which cells were kept."""
    case = CASES[name]
    parallelism = ParallelismConfig(replicas, ContextParallelConfig(degree))
    step = make_step(case, world, parallelism)
    kept = []
    for module in step.model.modules():
        if isinstance(module, TemporalVisionBackbone):
            module.register_forward_hook(lambda _, args, out: kept.append(out.keep_rows))
    rows = len(case.rows) // parallelism.data_ranks(world.size)
    first = parallelism.data_rank(world.rank) * rows
    result = step(rows_of(case, slice(first, first + rows)), 1)
    return {
        "metrics": result.metrics,
        "counts": (result.tokens, result.loss_tokens, result.frames, result.examples),
        "gradients": {n: whole(p.grad) for n, p in model_tensors(step.model).items() if p.grad is not None},
        "kept": kept,
    }


def run(world: World, folder: Path, layouts: dict[str, dict[str, int]]) -> None:
    """Every case in every layout of these ranks."""
    run_some(world, folder, (layouts, CASES))

def run_some(world, folder, argument):
    import time
    layouts, names = argument
    for layout, degrees in layouts.items():
        for name in names:
            t = time.time()
            found = first_step(name, world, **degrees)
            torch.save(found, folder / f"{layout}-{name}-{world.rank}.pt")
            if world.is_main: print(layout, name, time.time() - t, flush=True)
