"""The pre-training command: a language model and a ViT with their own weights learn to describe pictures together.

Published flags, defaults and mixture: captions, pointing and text. `LLM` is the name of a language model, from which the config
is built, or a config of its own, such as `tiny`.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from olmo.config_files import config_names
from olmo.exceptions import OLMoCliError, OLMoConfigurationError
from olmo.launch import CommandParser, raw_config
from olmo.train.launcher import (
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

MIXTURE = "pretrain"
DEFAULT_SEQ_LEN = 2536
LONGEST_TEXT = 2304
"""Tokens of the longest conversation in the published text data."""
PUBLISHED_STEPS = 31_000
"""With pointing and text; without one of them a published run takes four epochs of its captions."""
POINTING, NLP = 0.3, 0.1
CROPS, CROPS_SIGLIP = 12, 8
DEBUG = {"save_folder": "debug_run", "wandb": None, "global_train_batch_size": 8}
"""What a debug run sets."""

PRETRAIN_MODEL = (
    "bi_directional_attn=image_tokens",  # as in the paper; the published launcher of this stage does not say
    "llm.residual_dropout=0.0",
    "llm.response_residual_dropout=0.1",
    "llm.additional_vocab_size=128",
    "vision_backbone.pooling_attention_mask=True",
    "data_formatter.system_prompt=style_and_length_v2",
    "data_formatter.message_format=qwen3",
    "data_formatter.pointing_format=html-v1",
    "mm_preprocessor.video.max_frames=16",  # there are no videos: it raises the images that one row may hold
    "mm_preprocessor.image.crop_mode=overlap-and-resize-c2",
    "mm_preprocessor.image.overlap_margins=[4, 4]",
    "mm_preprocessor.image.use_single_crop_start_token=True",
    "mm_preprocessor.image.use_single_crop_col_tokens=False",
)
"""What pre-training sets in the model that it puts together."""


def build_parser(prog: str | None = None) -> CommandParser:
    parser = CommandParser(prog, "Pre-train a vision-language model on captions, pointing and text; with torchrun, or with python.", EPILOG)
    parser.add_argument("llm", help="language model (olmo3_7b_instruct, qwen3_4b, ...), debug, or a config: a YAML file or a name")
    parser.add_argument("--model", choices=["molmo2", "debug"], default="molmo2", help="debug: a few layers of everything")
    parser.add_argument("--vision_backbone", help="ViT of a model that is put together here (siglip2)")
    parser.add_argument("--vit_layers", type=int, nargs="+", help="its layers that the connector sees (-3 -9)")
    parser.add_argument("--global_batch_size", type=int, help="sequences per optimiser step (128)")
    parser.add_argument("--device_batch_size", type=int, help="sequences per device and pass (4)")
    parser.add_argument("--seq_len", type=int, help=f"tokens per sequence ({DEFAULT_SEQ_LEN})")
    parser.add_argument("--warmup_factor", type=float, default=1.0, help="divides the warm-ups (1)")
    parser.add_argument("--pointing", type=float, help=f"share of the pointing data ({POINTING})")
    parser.add_argument("--nlp", type=float, help=f"share of the text data ({NLP})")
    parser.add_argument("--mixture", help="another mixture or data set than the published one")
    parser.add_argument("--n_eval_examples", type=int, help="questions of each task of evaluation.tasks (2048)")
    parser.add_argument("--device_eval_batch_size", type=int, help="questions at a time on a device (4)")
    add_running_flags(parser, workers=2)
    return parser


def parse(argv: Sequence[str], prog: str | None = None) -> tuple[argparse.Namespace, list[str]]:
    """(flags, `key=value` overrides)."""
    args, overrides = parse_words(build_parser(prog), argv)
    if args.warmup_factor <= 0:
        raise OLMoCliError(f"--warmup_factor={args.warmup_factor:g}: must be above 0")
    if args.mixture is not None and (args.pointing, args.nlp) != (None, None):
        raise OLMoCliError("--pointing and --nlp divide the published mixture; give them or --mixture")
    args.pointing, args.nlp = (default if value is None else value for value, default in ((args.pointing, POINTING), (args.nlp, NLP)))
    if min(args.pointing, args.nlp) < 0 or args.pointing + args.nlp >= 1:
        raise OLMoCliError(f"--pointing={args.pointing:g} and --nlp={args.nlp:g} must not be negative, and leave something to the captions")
    return args, overrides


def pretraining_defaults() -> dict[str, Any]:
    """What the published launcher sets, on top of what it shares with that of fine-tuning."""
    warmups = {"connector_t_warmup": 200, "vit_t_warmup": 2000, "llm_t_warmup": 2000}
    return merge(
        published_defaults(),
        {
            "run_name": "pretrain",
            "data": {"seed": 95818, "sequence_length": DEFAULT_SEQ_LEN, "num_workers": 2, "packing": {"buffer_size": 48}},
            "optimizer": {"connector_learning_rate": 2e-4, "vit_learning_rate": 6e-6, "llm_learning_rate": 2e-5},
            "scheduler": warmups,
            "fsdp": {"precision": "float"},
            "save_interval": 4000,
            "device_train_microbatch_size": 4,
            "max_duration": PUBLISHED_STEPS,
            "evaluation": {"max_examples": 2048, "interval": 2000},
        },
    )


def build_train_config(args: argparse.Namespace, overrides: Sequence[str]):
    """The whole run as one config: published defaults, then the model or the file, then the flags, then the overrides."""
    from olmo.train.config import TrainConfig

    named = model_of(args)
    raw = {} if named is not None else config_of(args)
    cfg = TrainConfig.from_dict(merge(pretraining_defaults(), DEBUG if "debug" in (args.llm, args.model) else raw))
    if named is not None:
        cfg.model = named
    cfg = cfg.with_overrides([*flag_overrides(args, cfg), *overrides])
    if args.mixture is None:
        set_mixture(cfg, args, overrides)
    settle_prefetching(cfg, args, overrides)
    return cfg


def model_of(args: argparse.Namespace) -> Any:
    """The model that is put together of a named language model and a ViT; None = `LLM` is a config."""
    from olmo.model_configs import DEBUG_LLM, DEBUG_VIT, LLMS, VITS
    from olmo.models.molmo2.config import Molmo2Config
    from olmo.models.molmo2.preprocessor import Molmo2PreprocessorConfig
    from olmo.nn.vision_backbone import MolmoVisionBackboneConfig

    if args.llm != "debug" and args.llm not in LLMS:
        for flag in ("vision_backbone", "vit_layers"):
            if getattr(args, flag) is not None and args.llm in config_names():
                raise OLMoCliError(f"--{flag} is for a model that is put together here; {args.llm} is a config with a model of its own")
        return None
    debug, vit = "debug" in (args.llm, args.model), args.vision_backbone or "siglip2"
    if vit not in VITS:
        raise OLMoCliError(f"--vision_backbone={vit}: choose one of {', '.join(VITS)}")
    layers = args.vit_layers or ([-1] if debug else [-3, -9])
    backbone = MolmoVisionBackboneConfig(vit=DEBUG_VIT if debug else VITS[vit], vit_layers=layers)
    model = Molmo2Config(llm=DEBUG_LLM if debug else LLMS[args.llm], vision_backbone=backbone, mm_preprocessor=Molmo2PreprocessorConfig())
    crops = CROPS_SIGLIP if vit.startswith("siglip") else CROPS
    return model.with_overrides([*PRETRAIN_MODEL, f"mm_preprocessor.image.max_crops={crops}"])


def config_of(args: argparse.Namespace) -> dict[str, Any]:
    """The mapping of a config that is named instead of a language model."""
    from olmo.model_configs import LLMS

    try:
        raw, checkpoint = raw_config(args.llm)
    except OLMoConfigurationError as err:
        raise OLMoConfigurationError(f"{err}, nor a language model (debug, {', '.join(LLMS)})") from None
    if checkpoint is not None:
        raise OLMoCliError(f"{args.llm} is a checkpoint: pre-training starts from a config; go on with it by launch_scripts/sft.py")
    return raw


def flag_overrides(args: argparse.Namespace, cfg: Any) -> list[str]:
    """The flags that were given, as overrides."""
    evaluation = {"evaluation.max_examples": args.n_eval_examples, "evaluation.device_batch_size": args.device_eval_batch_size}
    flags = given(shared_flags(args) | evaluation)
    for part in ("llm", "vit", "connector") if args.warmup_factor != 1 else ():
        steps = getattr(cfg.scheduler, f"{part}_t_warmup")
        flags.append(f"scheduler.{part}_t_warmup={int(steps / args.warmup_factor)}")
    if args.mixture is not None:
        flags.append(f"data.dataset={json.dumps(args.mixture, ensure_ascii=False)}")
    return flags


def set_mixture(cfg: Any, args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """The published mixture with the shares that were asked for."""
    from olmo.data.mixtures import groups_of
    from olmo.data.published_mixtures import pretraining

    given = {override.partition("=")[0] for override in overrides}
    if given & {"data.dataset", "data.kwargs_mixture", "data.mixture", "data.root_size_mixture"}:
        return
    if args.nlp and cfg.data.sequence_length is not None and cfg.data.sequence_length <= LONGEST_TEXT:
        raise OLMoConfigurationError(
            f"data.sequence_length={cfg.data.sequence_length} must be more than {LONGEST_TEXT}, the longest text (--nlp 0 leaves text out)"
        )
    if not (args.nlp and args.pointing) and "max_duration" not in given:
        raise OLMoCliError("--max_duration is needed: the published number of steps is for captions, pointing and text")
    if not args.nlp and "data.packing" not in given:
        cfg.data.packing = None  # as published: pictures alone fill a sequence
    if (args.pointing, args.nlp) == (POINTING, NLP):
        cfg.data.dataset = MIXTURE
    else:
        cfg.data.dataset, cfg.data.kwargs_mixture = None, groups_of(pretraining(args.pointing, args.nlp))


def main(argv: Sequence[str], prog: str | None = None) -> int:
    args, overrides = parse(argv, prog)
    return launch(build_train_config(args, overrides), args, argv, prog)
