"""`scripts/replay_batch.py`: run a dumped batch again on the weights that it met, and say where it goes wrong."""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from olmo.checkpoints import step_of
from olmo.checkpoints.stores import Store
from olmo.distributed import World, distributed_world
from olmo.exceptions import OLMoCheckpointError, OLMoConfigurationError
from olmo.launch import CommandParser, setup_logging
from olmo.train import build
from olmo.train.bad_batches.dump import TERMS, DumpedBatch, read_dump
from olmo.train.bad_batches.first_nonfinite import FirstNonFinite
from olmo.train.config import TrainConfig
from olmo.train.mesh import ParallelismConfig
from olmo.train.optim import build_optimizer
from olmo.train.saving.checkpoint import set_random_state
from olmo.train.saving.folder import existing_steps
from olmo.train.scheduler import Scheduler
from olmo.train.start import Start, fetch_start, locate
from olmo.train.step import TrainStep, trim_padding

log = logging.getLogger(__name__)

EPILOG = """\
Every other word sets a key of the run's config, such as --device_train_microbatch_size=1 to tell the rows of a micro-batch apart. One
process; on a GPU start it with torchrun --nproc-per-node 1, so that weights are rounded as they were in training.
"""


def build_parser() -> CommandParser:
    parser = CommandParser(
        "replay_batch.py", "Run a batch of bad_batches/ again and say where the first value appears that is not finite.", EPILOG
    )
    parser.add_argument("dump", help="step<N>-rank<R>.pt in bad_batches/ of a run's save_folder")
    parser.add_argument("--checkpoint", help="checkpoint to run it on (the run's newest from before that step)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, `key=value` overrides)."""
    return build_parser().parse_with_overrides(argv)


def checkpoint_before(cfg: TrainConfig, step: int) -> str | None:
    """The run's newest checkpoint from before `step`; None = the run began with it and from fresh weights."""
    store = Store(cfg.checkpoints)
    before = [name for name in existing_steps(store) if step_of(name) < step]
    if before:
        return store.url(before[-1])
    if step == 1:
        return cfg.load_path or cfg.initial_model_checkpoint
    raise OLMoCheckpointError(f"{store} holds no checkpoint from before step {step}; name one with --checkpoint")


def build_step(cfg: TrainConfig, origin: str | None, world: World) -> TrainStep:
    """Model and step as in training, without compiled code (into which nobody can look), but with its padding."""
    compiler, cfg.compile, cfg.parallelism = cfg.compiler(world.device), None, ParallelismConfig()
    model = build.build_sharded_model(cfg, world)
    if origin is None:
        build.initialise_weights(cfg, model, world)
        build.load_pretrained(model, world)
    else:
        start = Start(locate(origin))
        fetch_start(cfg, start, world)
        build.load_weights(cfg, model, start.folder, world)
    step = TrainStep(cfg, model, build_optimizer(cfg.optimizer, model), Scheduler(cfg.scheduler, cfg.max_steps), world)
    step.pad_to = cfg.data.sequence_length if compiler is not None and not compiler.dynamic else None
    return step


def replay(dumped: DumpedBatch, step: TrainStep) -> tuple[list[list[float]], list[str]]:
    """(`TERMS` of every micro-batch, findings): forward and backward passes as that rank ran them."""
    finder = FirstNonFinite(step.model)
    finder.look_at_weights()
    finder.look_at_batch(dumped.batch, dumped.ids)
    factor = dumped.world_size / torch.tensor(dumped.weight, dtype=torch.float64, device=step.world.device)
    micro = list(step.micro_batches(dumped.batch))
    step.model.train()
    set_random_state(dumped.random)
    terms = []
    with finder.watching():
        for number, part in enumerate(micro, 1):
            with finder.forward(f"micro-batch {number} of {len(micro)}"):
                out = step.forward(trim_padding(part).to(step.world.device))
            terms.append(step.backward(out, factor, len(micro)).tolist())
    return terms, finder.findings


def compare(dumped: DumpedBatch, terms: list[list[float]]) -> str:
    """Whether this was what happened in the run."""
    if len(terms) != len(dumped.terms):
        return f"the rows were cut into {len(terms)} micro-batches instead of the run's {len(dumped.terms)}: losses are not compared"
    for number, (now, then) in enumerate(zip(terms, dumped.terms, strict=True), 1):
        for name, a, b in zip(TERMS, now, then, strict=True):
            if a != b and not (math.isnan(a) and math.isnan(b)):
                return f"not the same loss terms as in the run: micro-batch {number} has {name} {a!r}, had {b!r}"
    return f"the same loss terms as in the run, bit for bit (micro-batches: {', '.join(f'{ce:.6g}' for ce, *_ in terms)})"


def main(argv: Sequence[str]) -> int:
    args, overrides = parse(argv)
    dumped = read_dump(args.dump)
    cfg = TrainConfig.from_dict(dumped.config, overrides)
    with distributed_world() as world:
        if world.size > 1:
            raise OLMoConfigurationError(f"a batch is replayed by one process, not by {world.size}")
        setup_logging(world.rank, args.debug)
        origin = args.checkpoint or checkpoint_before(cfg, dumped.step)
        log.info(
            "step %d of rank %d (of %d): not finite were %s", dumped.step, dumped.rank, dumped.world_size, ", ".join(dumped.not_finite)
        )
        log.info("weights: %s", origin or "fresh, as at the start of the run")
        if origin is not None and (found := step_of(Path(origin).name)) is not None and found < dumped.step - 1:
            log.warning("they are from %d steps before: the run's own were lost", dumped.step - 1 - found)
        terms, findings = replay(dumped, build_step(cfg, origin, world))
        log.info(compare(dumped, terms))
        for line in findings or ["everything is finite here"]:
            log.info(line)
    return 0
