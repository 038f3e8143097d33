"""`scripts/estimate_memory.py`: what a training takes on a device, whether that fits, and what to change if it does not."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from olmo.exceptions import OLMoCliError, OLMoConfigurationError
from olmo.launch import CommandParser

DEVICES = (24, 48, 80, 141)
"""Memory of GPUs in GB: consumer cards, L40S, A100 and H100, H200."""

EPILOG = """\
Every other word sets a flag or a key of the training: --device_batch_size=1, --seq_len=16384, --lora='{targets: [llm]}'.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("estimate_memory.py", "Estimate the memory of a training on each GPU, without building anything.", EPILOG)
    parser.add_argument("config", nargs="?", help="checkpoint folder, YAML file or config name")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs over which weights, gradients and optimiser are sharded (8)")
    parser.add_argument("--frames", type=int, help="video frames in a row, before pruning (as many as the config packs into one)")
    parser.add_argument("--topk", type=float, help="fraction of a video's cells that is removed; 0 = no pruning (as the config says)")
    parser.add_argument("--text", type=int, default=200, help="text tokens in a row (200)")
    parser.add_argument("--gpu_gb", type=float, default=80.0, help="memory of a GPU in GB, for the advice (80)")
    parser.add_argument("--page", help="write the table of the released models into this page and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, words for the training command)."""
    args, words = build_parser().parse_known_args(argv)
    if (args.config is None) == (args.page is None):
        raise OLMoCliError("name a config, or a page with --page")
    for name in ("gpus", "text"):
        if getattr(args, name) < 1:
            raise OLMoCliError(f"--{name}={getattr(args, name)}: must be at least 1")
    if args.frames is not None and args.frames < 0:
        raise OLMoCliError(f"--frames={args.frames}: must not be negative")
    return args, words


def training_config(args: argparse.Namespace, words: Sequence[str]) -> Any:
    """The config that the training command would make of these words."""
    from olmo.train import sft

    flags, overrides = sft.parse([args.config, "moving_shapes", *words])
    cfg = sft.build_train_config(flags, overrides)
    if cfg.model is None:
        raise OLMoConfigurationError(f"{args.config} has no block 'model'")
    return cfg if args.topk is None else with_topk(cfg, args.topk)


def with_topk(cfg: Any, topk: float) -> Any:
    """The same training with another share of cells removed."""
    vision = cfg.model.vision_backbone
    if vision is None or not hasattr(vision.vit, "topk"):
        if not topk:
            return cfg
        raise OLMoCliError(f"--topk={topk}: this config does not prune; add --use_temporal_video_olmo")
    words = [
        f"model.vision_backbone.vit.topk={topk}",
        f"model.vision_backbone.vit.prune={topk > 0}",
        "model.mm_preprocessor.video.topk=null",
    ]
    return cfg.with_overrides(words)


def main(argv: Sequence[str]) -> int:
    args, words = parse(argv)
    if args.page is not None:
        from olmo.train.memory.page import write_page

        write_page(Path(args.page))
        return 0
    from rich.console import Console

    from olmo.train.memory.estimate import estimate, shape_of

    cfg = training_config(args, words)
    shape = shape_of(cfg, args.frames, args.text)
    found = estimate(cfg, args.gpus, shape)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    pruned = f", {shape.kept_frames:.1f} after pruning" if shape.kept_frames < shape.frames else ""
    degree = cfg.parallelism.context_parallel_config.degree
    where = f"each of {args.gpus} GPUs" if degree == 1 else f"every {degree} of {args.gpus} GPUs, which share them"
    console.print(
        f"{shape.rows} rows of {shape.frames} frames{pruned} and {shape.tokens:,} tokens on {where}; recomputation: {cfg.recompute}"
    )
    console.print(part_table(found))
    fits = ", ".join(f"{gb} GB: {'fits' if found.needed <= gb * 1e9 else 'too small'}" for gb in DEVICES)
    console.print(f"needed with reserve: {found.needed / 1e9:.1f} GB of a GPU ({fits})")
    if found.needed > args.gpu_gb * 1e9:
        console.print(f"\nwhat would help on {args.gpu_gb:g} GB, each alone:")
        for line in advice(cfg, args.gpus, shape, args.text, found.needed, args.gpu_gb * 1e9):
            console.print(f"  {line}")
    return 0


def part_table(found: Any) -> Any:
    from rich.table import Table

    table = Table("what", "GB", title="memory of one GPU")
    table.columns[1].justify = "right"
    for name, value in found.static.items():
        table.add_row(name, f"{value / 1e9:.2f}")
    table.add_section()
    for name, value in found.activations.items():
        table.add_row(f"activations: {name}", f"{value / 1e9:.2f}")
    if found.gradients:
        table.add_row("gradients, as they come", f"{sum(found.gradients.values()) / 1e9:.2f}")
    table.add_row("what is needed for a moment, at most", f"{max(found.transient.values()) / 1e9:.2f}")
    table.add_section()
    table.add_row("peak", f"{found.peak / 1e9:.2f}")
    return table


def advice(cfg: Any, gpus: int, shape: Any, text: int, needed: float, room: float) -> list[str]:
    """Changes that make the step smaller, the most helpful first, each with what it leads to."""
    from olmo.train.build import meta_model
    from olmo.train.memory.estimate import estimate, shape_of

    model, found = meta_model(cfg), []
    for words, overrides, number, frames in changes(cfg, gpus, shape.frames):
        try:
            other = cfg.with_overrides(overrides) if not callable(overrides) else overrides(cfg)
            same = model if (other.model, other.lora) == (cfg.model, cfg.lora) else None
            after = estimate(other, number, shape_of(other, frames, text), model=same).needed
        except OLMoConfigurationError:  # a change that this config does not allow is no advice
            continue
        if after < 0.98 * needed:
            found.append((after, f"{after / 1e9:6.1f} GB {'(fits)' if after <= room else '      '} {words}"))
    return [line for _, line in sorted(found)]


def changes(cfg: Any, gpus: int, frames: int) -> list[tuple[str, Any, int, int]]:
    """(what to write, overrides or a function of the config, GPUs, frames)."""
    block, vision = "model.llm.activation_checkpoint=whole_layer", cfg.model.vision_backbone
    everything = ["activation_checkpointing=true", "activation_checkpointing_mode=full", block]
    if vision is not None:
        everything += [
            f"model.vision_backbone.{key}=true" for key in ("vit.activation_checkpointing", "connector_activation_checkpointing")
        ]
    options: list[tuple[str, Any, int, int]] = [
        (" ".join(f"--{word}" for word in everything), everything, gpus, frames),
        ("--device_batch_size=1", ["device_train_microbatch_size=1"], gpus, frames),
        ("--fsdp.reduce_every_microbatch=true", ["fsdp.reduce_every_microbatch=true"], gpus, frames),
        ("--lora='{targets: [llm], train_whole: [connector]}'", ["lora={targets: [llm], train_whole: [connector]}"], gpus, frames),
        ("--ema=null", ["ema=null"], gpus, frames),
    ]
    options += [(f"--cp_degree={n}", [f"parallelism.context_parallel_config.degree={n}"], gpus, frames) for n in (2, 4, 8)]
    options += [(f"--gpus={n}", [], n, frames) for n in (2 * gpus, 8 * gpus) if not cfg.global_train_batch_size % n]
    if frames > 1:
        options.append((f"--frames={frames // 2}: half of them (max_frames)", [], gpus, frames // 2))
    if vision is not None and vision.vit.drops_cells:
        options += [(f"--topk={k}", lambda c, k=k: with_topk(c, k), gpus, frames) for k in (0.5, 0.7) if k > vision.vit.topk]
    return options
