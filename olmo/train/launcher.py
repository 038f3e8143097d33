"""What the training commands share: flags, the published launchers' common defaults, and what happens with the finished config."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser, setup_logging

DEFAULT_SEQ_LEN = 16384
DEFAULT_DEVICE_BATCH = 2
DEFAULT_GLOBAL_BATCH = 128

EPILOG = """\
Every other word sets a key of the config: --model.llm.residual_dropout=0.0, --max_duration 6250, --wandb=null.
"""


def add_running_flags(parser: CommandParser, workers: int) -> None:
    """What every training command takes; `workers` is its default."""
    parser.add_argument("--num_workers", type=int, help=f"data processes per rank ({workers})")
    parser.add_argument("--prefetch_factor", type=int, help="batches that each data process prepares ahead (4)")
    parser.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    parser.add_argument("--dry_run", action="store_true", help="build on the meta device, describe one batch and stop")
    parser.add_argument("--fake_world", type=int, metavar="N", help="with --dry_run: plan a run on N ranks, in one process")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")


def parse_words(parser: CommandParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, `key=value` overrides)."""
    args, overrides = parser.parse_with_overrides(argv)
    check_fake_world(args)
    return args, overrides


def check_fake_world(args: argparse.Namespace) -> None:
    """Ranks that are not there can be planned, by one process, but not trained on."""
    if args.fake_world is None:
        return
    if not args.dry_run:
        raise OLMoCliError(f"--fake_world={args.fake_world} needs --dry_run: nothing is trained on ranks that are not there")
    if args.fake_world < 1:
        raise OLMoCliError(f"--fake_world={args.fake_world}: must be at least 1")
    if "MASTER_ADDR" in os.environ:
        raise OLMoCliError(f"--fake_world={args.fake_world}: one process plans for all ranks; start it without torchrun")


def published_defaults() -> dict[str, Any]:
    """What the published launcher sets, also where the defaults of `TrainConfig` say the same."""
    return {
        "run_name": "multitask_train",
        "seed": 6198,
        "compile": {"mode": "default", "dynamic": False},
        "allow_resume": True,
        "save_overwrite": True,
        "data": {
            "split": "train",
            "drop_last": True,
            "shuffle": True,
            "seed": 50189,
            "pad": "to_max",
            "sequence_length": DEFAULT_SEQ_LEN,
            "num_workers": 6,
            "prefetch_factor": 4,
            "pin_memory": True,
        },
        "optimizer": {
            "name": "adamw",
            "connector_learning_rate": 5e-6,
            "vit_learning_rate": 5e-6,
            "llm_learning_rate": 1e-5,
            "frame_selector_learning_rate": 1e-4,
            "temporal_token_scorer_learning_rate": 1e-4,
        },
        "scheduler": {"name": "multimodal", "alpha_f": 0.1, "warmup_min_lr": 0.0},
        "save_interval": 2000,
        "save_num_checkpoints_to_keep": 1,
        "save_final_optim": False,
        "global_train_batch_size": DEFAULT_GLOBAL_BATCH,
        "device_train_microbatch_size": DEFAULT_DEVICE_BATCH,
        "max_duration": 300_000,
        "max_grad_norm": 1.0,
        "precision": "amp_bf16",
        "console_log_interval": 20,
        "softmax_auxiliary_loss": True,
        "softmax_auxiliary_loss_scale": 1e-4,
    }


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, block by block."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def shared_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Config keys of the flags that all training commands have."""
    return {
        "global_train_batch_size": args.global_batch_size,
        "device_train_microbatch_size": args.device_batch_size,
        "data.sequence_length": args.seq_len,
        "data.num_workers": args.num_workers,
        "data.prefetch_factor": args.prefetch_factor,
    }


def given(values: dict[str, Any]) -> list[str]:
    """Overrides for the keys of flags that were given."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def settle_prefetching(cfg: Any, args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Without data processes nothing is prepared ahead, unless that was asked for (which is then refused)."""
    given = args.prefetch_factor is not None or any(o.startswith("data.prefetch_factor=") for o in overrides)
    if cfg.data.num_workers == 0 and not given:
        cfg.data.prefetch_factor = None


def launch(cfg: Any, args: argparse.Namespace, argv: Sequence[str], prog: str | None) -> int:
    """Print, describe or train, as the flags say."""
    if args.print_config:
        print(cfg.to_yaml(), end="")
        return 0
    from olmo.distributed import distributed_world

    with distributed_world() as world:
        console = setup_logging(world.rank, args.debug)
        if args.dry_run:
            from olmo.train.dry_run import dry_run

            dry_run(cfg, world, console, args.fake_world)
            return 0
        from olmo.train.run import train

        train(cfg, world, console, " ".join([prog or sys.argv[0], *argv]))
    return 0
