"""The fine-tuning command: published flags and defaults, one `TrainConfig` out of them, then train or describe.

The defaults of the published launcher apply unless the YAML file or the config name says otherwise. A checkpoint folder
gives only its `model`, to which the published fine-tuning settings of preprocessor and formatter are applied.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from olmo.launch import CommandParser, raw_config
from olmo.train.launcher import (
    DEFAULT_DEVICE_BATCH,
    DEFAULT_GLOBAL_BATCH,
    DEFAULT_SEQ_LEN,
    EPILOG,
    add_running_flags,
    given,
    launch,
    merge,
    parse_words,
    published_defaults,
    settle_prefetching,
    shared_flags,
)


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


def parse(argv: Sequence[str], prog: str | None = None) -> tuple[argparse.Namespace, list[str]]:
    """(flags, `key=value` overrides)."""
    return parse_words(build_parser(prog), argv)


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


def flag_overrides(args: argparse.Namespace, cfg: Any) -> list[str]:
    """The mixture and the flags that were given, as overrides."""
    mixture = json.dumps(args.mixture, ensure_ascii=False)  # a path may hold what YAML reads otherwise
    flags = [f"data.dataset={mixture}", *given(shared_flags(args) | {"parallelism.context_parallel_config.degree": args.cp_degree})]
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
