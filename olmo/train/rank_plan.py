"""What a run on many ranks would be, found out on one CPU: `--dry_run --fake_world N`.

The model is built on the meta device, frozen, given adapters, checkpointed and sharded by the code of a real start, with torch's fake
process group standing in for the other ranks. So what does not divide, or cannot be sharded, fails here as it would there, and the
bytes of a rank are counted from its shards. No weight has memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from rich.table import Table
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from olmo.distributed import World, initialized
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.models.model import ModelBase
from olmo.train.build import build_sharded_model, meta_model
from olmo.train.config import TrainConfig
from olmo.train.memory.estimate import MemoryEstimate, Shape, estimate, regime_of, shape_of


@dataclass(frozen=True)
class RankPlan:
    """The layout of a run, and what rank 0 of it holds and sends."""

    ranks: int
    replicas: int
    """Copies of the model."""
    shards: int
    """Ranks that share one copy."""
    context: int
    """Ranks that share one sequence."""
    rows: int
    """Sequences of a step on a rank (or on the ranks that share them)."""
    micro_batches: int
    """Forward and backward passes of a step."""
    tokens: int | None
    """Tokens of a step over all ranks; None = sequences have no fixed length."""
    weights: int
    """Bytes of this rank's shard of the weights."""
    gradients: int
    """Bytes of the gradients of this shard."""
    optimiser: int
    """Bytes of the optimiser state of this shard."""
    units: int
    """Pieces in which weights are gathered."""
    gathers: int
    """Gathers of a step, at most (a backward pass goes around frozen pieces before which nothing is trained)."""
    gathered: int
    """Bytes of weights that these bring together on a rank."""
    memory: MemoryEstimate
    """A step on the fullest row."""
    shape: Shape
    """What a rank computes of that row."""


@contextmanager
def fake_group(size: int) -> Iterator[None]:
    """This process as rank 0 of `size`, in a group whose collectives do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if initialized():
        raise OLMoEnvironmentError("ranks that are not there can be planned by a process without others only; start it without torchrun")
    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def plan_ranks(cfg: TrainConfig, size: int) -> RankPlan:
    """The plan of `cfg` on `size` GPUs; raises what a start there would raise."""
    cfg.validate(size)
    with fake_group(size):
        model = build_sharded_model(cfg, World(0, 0, size, torch.device("cpu")), on_meta=True)
    local = [(p, p.to_local().numel() if isinstance(p, DTensor) else p.numel()) for p in model.parameters()]
    weights, trained = sum(n for _, n in local), sum(n for p, n in local if p.requires_grad)
    rows, context = cfg.rows_per_rank(size), cfg.parallelism.context_parallel_config.degree
    micro_batches = -(-rows // cfg.device_train_microbatch_size)
    units, replicas = gathered_units(model), cfg.parallelism.data_parallel_replicate_degree
    passes = 2 * micro_batches  # forward and backward
    shape = fullest_shape(cfg)
    return RankPlan(
        ranks=size,
        replicas=replicas,
        shards=size // replicas,
        context=context,
        rows=rows,
        micro_batches=micro_batches,
        tokens=None if cfg.data.sequence_length is None else cfg.global_train_batch_size * cfg.data.sequence_length,
        weights=4 * weights,
        gradients=4 * trained,
        optimiser=8 * trained,
        units=len(units),
        gathers=passes * sum(unit.times for unit in units),
        gathered=passes * sum(unit.times * unit.weights for unit in units) * regime_of(cfg, on_gpu=True).gathered,
        memory=estimate(cfg, size, shape, model=meta_model(cfg)),
        shape=shape.shared_by(context),
    )


@dataclass
class Unit:
    """Weights that are gathered as a whole."""

    weights: int = 0
    times: int = 1
    """How often a pass gathers them."""


def gathered_units(model: ModelBase) -> list[Unit]:
    """The pieces of a sharded model that hold weights of their own."""
    owners: dict[int, tuple[int, torch.Tensor]] = {}
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Modules come before what is inside them: of those around a weight the innermost is the last. Modules that were sharded
            # together share their state.
            owners |= {id(p): (id(module._get_fsdp_state()), p) for p in module.parameters()}
    units: dict[int, Unit] = {}
    for state, p in owners.values():
        units.setdefault(state, Unit()).weights += p.numel()
    if units and model.config.llm.weight_tying:  # at the entrance and at the exit
        units[id(model.transformer.wte._get_fsdp_state())].times = 2
    return list(units.values())


def fullest_shape(cfg: TrainConfig) -> Shape:
    """The row with the most video frames that the config lets into one."""
    vision, packing = cfg.model.vision_backbone, cfg.data.packing
    if vision is None:
        return shape_of(cfg)
    fits, most = 0, cfg.model.mm_preprocessor.video.max_frames
    most = most if packing is None else packing.row_frames(most)
    while fits < most:
        middle = (fits + most + 1) // 2
        fits, most = (middle, most) if fits_a_row(cfg, middle) else (fits, middle - 1)
    return shape_of(cfg, fits)


def fits_a_row(cfg: TrainConfig, frames: int) -> bool:
    try:
        tokens = shape_of(cfg, frames).tokens
    except OLMoConfigurationError:  # where rows are padded to their length
        return False
    return cfg.data.sequence_length is None or tokens <= cfg.data.sequence_length


def plan_table(plan: RankPlan) -> Table:
    table = Table("what", "per step or rank", title=f"plan for {plan.ranks} ranks")
    table.columns[1].justify = "right"

    def gb(count: float) -> str:
        return f"{count / 1e9:,.2f} GB"

    groups = plan.ranks // plan.context
    table.add_row("ranks", f"{plan.ranks:,}")
    table.add_row("copies of the model x shards", f"{plan.replicas:,} x {plan.shards:,}")
    table.add_row("sequence groups x ranks", f"{groups:,} x {plan.context:,}")
    table.add_row("rows per rank" if plan.context == 1 else "rows per sequence group", f"{plan.rows:,}")
    table.add_row("micro-batches", f"{plan.micro_batches:,}")
    table.add_row("tokens of all ranks", "as the data are" if plan.tokens is None else f"{plan.tokens:,}")
    table.add_section()
    table.add_row("weights", gb(plan.weights))
    table.add_row("gradients", gb(plan.gradients))
    table.add_row("optimiser", gb(plan.optimiser))
    table.add_row("fullest row, a rank's part", f"{plan.shape.frames:,} frames, {plan.shape.tokens:,} tokens")
    table.add_row("peak (estimate)", gb(plan.memory.peak))
    table.add_row("of a GPU, with reserve", gb(plan.memory.needed))
    table.add_section()
    table.add_row("gathers of weights, at most", f"{plan.gathers:,} of {plan.units:,} pieces")
    table.add_row("gathered", gb(plan.gathered))
    return table
