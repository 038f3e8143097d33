"""What each rank of `test_context_parallel.py` runs (a module of its own, so that spawned processes can import it)."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from olmo.batch import Batch, MultimodalType, RowLayout
from olmo.checkpoints import model_tensors
from olmo.distributed import World, whole
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
    still: bool = False
    """All frames of the batch show the same."""


LONG, SHORT, TREE = Example(5, (6,), 1), Example(2, (3,), 2), Example(3, (4, 3, 5), 3)
VIDEOS = ((LONG, TREE), (SHORT, Example(4, (2, 2), 4)))
CASES = {
    "branches, packed": Case(VIDEOS),
    "nothing removed": Case(VIDEOS, dict(vit=dict(topk=0.0))),
    "nearly all removed": Case(VIDEOS, dict(vit=dict(topk=0.9))),
    "causal, untied, one micro-batch of two rows": Case(
        VIDEOS * 2, dict(bi_directional_attn=None, llm=HEADS | dict(weight_tying=False)), dict(device_train_microbatch_size=2)
    ),
    "four rows": Case((*VIDEOS, (TREE,), (Example(0, (9,), 7), SHORT))),
    "recomputed": Case(VIDEOS, dict(llm=HEADS | dict(activation_checkpoint="whole_layer"))),
    "equal scores": Case(VIDEOS, still=True),
    "few frames": Case(((Example(1, (4,), 5),), (Example(2, (6,), 6),))),
    "text beside video": Case(((LONG,), (Example(0, (9,), 7),))),
    "text alone": Case(((Example(0, (9, 4), 7),), (Example(0, (5,), 8),))),
    "images": Case(((SHORT, LONG), (TREE, SHORT)), images=(2, 3)),
    "no scorer": Case(VIDEOS, dict(temporal=False)),
    "tome": Case(VIDEOS, dict(vit=dict(prune_method="tome"))),
    "frozen vision": Case(VIDEOS, run=dict(ft_vit=False, ft_connector=False)),
}


def as_images(row: RowLayout, lengths: tuple[int, ...]) -> RowLayout:
    return replace(row, segments=tuple(replace(s, kind=MultimodalType.IMAGE) if s.num_frames in lengths else s for s in row.segments))


def rows_of(case: Case, part: slice) -> Batch:
    made = batch(*(list(row) for row in case.rows[part]))
    if case.still:
        made.images[:] = torch.randint(0, 256, made.images.shape[2:], generator=torch.Generator().manual_seed(9))
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

    def note(module, args, out) -> None:
        rows = [None] * len(out.kept_per_row) if out.keep_rows is None else out.keep_rows
        kept.extend(None if row is None else row.nonzero()[:, 0].tolist() for row in rows)

    if step.model.vision_backbone is not None:
        step.model.vision_backbone.register_forward_hook(note)
    rows = len(case.rows) // parallelism.data_ranks(world.size)
    first = parallelism.data_rank(world.rank) * rows
    result = step(rows_of(case, slice(first, first + rows)), 1)
    return {
        "metrics": result.metrics,
        "counts": (result.tokens, result.loss_tokens, result.frames, result.examples),
        "gradients": {n: whole(p.grad) for n, p in model_tensors(step.model).items() if p.grad is not None},
        "kept": kept,
    }


def run(world: World, folder: Path, layouts: dict[str, tuple[dict[str, int], list[str]]]) -> None:
    """The cases of every layout of these ranks."""
    for layout, (degrees, names) in layouts.items():
        for name in names:
            found = first_step(name, world, **degrees)
            torch.save(found, folder / f"{layout}-{name}-{world.rank}.pt")
