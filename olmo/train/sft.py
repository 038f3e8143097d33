"""The fine-tuning command: published flags and defaults, one `TrainConfig` out of them, then train or describe.

The defaults of the published launcher apply unless the YAML file or the config name says otherwise. A checkpoint folder
gives only its `model`, to which the published fine-tuning settings of preprocessor and formatter are applied.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser, raw_config, setup_logging

DEFAULT_SEQ_LEN = 16384
DEFAULT_DEVICE_BATCH = 2
DEFAULT_GLOBAL_BATCH = 128

EPILOG = """\
Every other word sets a key of the config: --model.llm.residual_dropout=0.0, --max_duration 6250, --wandb=null.
"""


def build_parser(prog: str | None = None) -> CommandParser:
    parser = CommandParser(
        prog, "Train a video model on a mixture, with or without token scoring; with torchrun, or with python for one process.", EPILOG
    )
    parser.add_argument("checkpoint", help="checkpoint folder, YAML file or config name")
    parser.add_argument("mixture", help="mixture or data set, such as moving_shapes, my.jsonl or mixture:my.yaml")
    parser.add_argument("--global_batch_size", type=int, help=f"sequences per optimiser step ({DEFAULT_GLOBAL_BATCH})")
    parser.add_argument("--device_batch_size", type=int, help=f"sequences per device and pass ({DEFAULT_DEVICE_BATCH})")
    parser.add_argument("--seq_len", type=int, help=f"tokens per sequence, counted after pruning ({DEFAULT_SEQ_LEN})")
    parser.add_argument("--packing", action="store_true", help="pack several examples into one sequence")
    parser.add_argument("--use_temporal_video_olmo", action="store_true", help="score and prune visual tokens (STTS)")
    parser.add_argument("--model", choices=["video"], default="video", help="accepted for compatibility; there is one kind")
    parser.add_argument("--cp_degree", type=int, help="ranks that share every sequence and its frames (1)")
    add_running_flags(parser, workers=6)
    return parser


def add_running_flags(parser: CommandParser, workers: int) -> None:
    """What every training command takes; `workers` is its default."""
    parser.add_argument("--num_workers", type=int, help=f"data processes per rank ({workers})")
    parser.add_argument("--prefetch_factor", type=int, help="batches that each data process prepares ahead (4)")
    parser.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    parser.add_argument("--dry_run", action="store_true", help="build on the meta device, describe one batch and stop")
    parser.add_argument("--fake_world", type=int, metavar="N", help="with --dry_run: plan a run on N ranks, in one process")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")


def parse(argv: Sequence[str], prog: str | None = None) -> tuple[argparse.Namespace, list[str]]:
    """(flags, `key=value` overrides)."""
    args, overrides = build_parser(prog).parse_with_overrides(argv)
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


PACKING = {"buffer_size": 48, "image_weight": 30, "shortcut_max_len_images": False}
"""Packing of the published launcher."""

SFT_MODEL = (
    "mm_preprocessor.video.pooling_h=3",
    "mm_preprocessor.video.pooling_w=3",
    "mm_preprocessor.video.time_mode=per-frame-compact",
    "mm_preprocessor.video.max_frames=128",
    "mm_preprocessor.video.time_sampling=True",
    "mm_preprocessor.video.loading_method=auto",  # torchcodec where it is installed, as published
    "mm_preprocessor.video.frame_sample_mode=uniform_last_frame",
    "mm_preprocessor.video.max_fps=[2]",
    "mm_preprocessor.video.max_subtitle_tokens=null",
    "mm_preprocessor.image.max_multi_image_crops=8",
    "mm_preprocessor.image.max_images=5",
    "mm_preprocessor.loss_token_weighting=root_subsegments_root_tokens",
    "vision_backbone.pooling_attention_mask=True",
    "vision_backbone.normalize_on_gpu=True",
    "llm.residual_dropout=0.1",
    "llm.response_residual_dropout=0.0",
    "llm.max_sequence_length=16384",
    "data_formatter.pointing_format=html-v2",
    "data_formatter.p_multi_point_all_image=0.5",
    "data_formatter.p_choice_content_in_mc=1.0",
    "data_formatter.prompt_templates=uber_model_v2",
    "data_formatter.message_format=qwen3",
    "data_formatter.system_prompt=demo_or_style_v2",
)
"""What fine-tuning sets in the model of a checkpoint."""


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, block by block."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def build_train_config(args: argparse.Namespace, overrides: Sequence[str]):
    """The whole run as one config: published defaults, then the file, then the flags, then the overrides."""
    from olmo.train.config import TrainConfig

    raw, checkpoint = raw_config(args.checkpoint)
    cfg = TrainConfig.from_dict(merge(published_defaults(), {"model": raw["model"]} if checkpoint is not None else raw))
    if checkpoint is not None:
        cfg.model = cfg.model.with_overrides(SFT_MODEL)
        cfg.initial_model_checkpoint = str(checkpoint)
    if cfg.model is not None and args.use_temporal_video_olmo:
        from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig

        if not isinstance(cfg.model, TemporalVideoOlmoConfig):
            cfg.model = TemporalVideoOlmoConfig.from_molmo2(cfg.model)
    cfg = cfg.with_overrides([*flag_overrides(args, cfg), *overrides])
    settle_prefetching(cfg, args, overrides)
    return cfg


def settle_prefetching(cfg: Any, args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Without data processes nothing is prepared ahead, unless that was asked for (which is then refused)."""
    given = args.prefetch_factor is not None or any(o.startswith("data.prefetch_factor=") for o in overrides)
    if cfg.data.num_workers == 0 and not given:
        cfg.data.prefetch_factor = None


def given_flags(args: argparse.Namespace, values: dict[str, Any] | None = None) -> list[str]:
    """Overrides for the values that are given; without `values` those of the flags that all training commands have."""
    if values is None:
        values = {
            "global_train_batch_size": args.global_batch_size,
            "device_train_microbatch_size": args.device_batch_size,
            "data.sequence_length": args.seq_len,
            "data.num_workers": args.num_workers,
            "data.prefetch_factor": args.prefetch_factor,
        }
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def flag_overrides(args: argparse.Namespace, cfg: Any) -> list[str]:
    """The mixture and the flags that were given, as overrides."""
    mixture = json.dumps(args.mixture, ensure_ascii=False)  # a path may hold what YAML reads otherwise
    groups = given_flags(args, {"parallelism.context_parallel_config.degree": args.cp_degree})
    flags = [f"data.dataset={mixture}", *given_flags(args), *groups]
    if args.packing and cfg.data.packing is None:
        flags.append(f"data.packing={json.dumps(PACKING)}")
    return flags


def main(argv: Sequence[str], prog: str | None = None, *, always_pack: bool = False) -> int:
    """The command. `always_pack`: as if `--packing` were given (the Molmo2 launcher has no such flag and always packs).

    Returns 0 for a run that is finished and for one that stopped and can be continued: torchrun makes every other status a failure of
    the job. `ended.json` in the save folder says which.
    """
    args, overrides = parse(argv, prog)
    args.packing = args.packing or always_pack
    # Torch and everything above it is imported from here on, so that --help and mistakes answer at once.
    return launch(build_train_config(args, overrides), args, argv, prog)


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
