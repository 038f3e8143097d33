"""The evaluation command: its words, and what it can tell without evaluating anything."""

import argparse
import difflib
from collections.abc import Sequence

from olmo.eval import test_time
from olmo.eval.task import BATCH_PRESETS, parse_batch_size
from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser

OVERRIDES = ("model.", "data.moving_shapes.")
"""What overrides may begin with."""

DEFAULT_TASKS = "video"

EPILOG = """\
Every other word sets a key of the checkpoint's model (--model.vision_backbone.vit.topk=0.3) or of the data
(--data.moving_shapes.num_test=100). Results of a `step<N>` folder lie beside it, those of any other checkpoint inside it. A run that
was interrupted continues where it stopped.
"""


def build_parser(prog: str | None = None) -> CommandParser:
    parser = CommandParser(prog, "Evaluate checkpoints on video tasks. Run it with torchrun, or with python for one process.", EPILOG)
    parser.add_argument("checkpoint", nargs="*", help="checkpoint folders, evaluated one after another")
    parser.add_argument("--tasks", "--mode", help="comma list of groups, task[:split] and .jsonl files (video)")
    parser.add_argument("--device_batch_size", default=BATCH_PRESETS[0], help=f"questions at a time, or {' or '.join(BATCH_PRESETS)}")
    parser.add_argument("--max_examples", type=int, default=-1, help="questions of each task; -1 = all")
    parser.add_argument("--max_new_tokens", type=int, help="longest answer (default: the task's)")
    parser.add_argument("--precision", choices=("fp32", "amp_bf16", "bf16"), help="arithmetic (default: amp_bf16 on GPUs, else fp32)")
    parser.add_argument("--num_workers", type=int, default=4, help="data processes per rank; 0 = none (4)")
    test_time.add_flags(parser)
    parser.add_argument("--eval_name", help="suffix of the result folders")
    parser.add_argument("--save_dir", help="folder for the results instead of the checkpoint's")
    parser.add_argument("--overwrite", action="store_true", help="answer again what has been answered")
    parser.add_argument("--retry_failed", action="store_true", help="ask again what could not be asked because its video was unreadable")
    parser.add_argument("--max_bad_fraction", type=float, default=0.01, help="stop above this share of unreadable videos (0.01)")
    parser.add_argument("--compat", action="store_true", help="score as the published evaluators do, where they differ")
    parser.add_argument("--list_tasks", action="store_true", help="print the tasks asked for (default: all) with their state and stop")
    parser.add_argument("--print_config", action="store_true", help="print the resolved settings and stop")
    parser.add_argument("--dry_run", action="store_true", help="build on the meta device, describe what would be asked and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str], prog: str | None = None) -> tuple[argparse.Namespace, list[str], list[str]]:
    """(flags, overrides of the model, overrides of the data); task names and sizes are checked here."""
    from olmo.eval.tasks import resolve_tasks

    args, overrides = build_parser(prog).parse_with_overrides(argv)
    if args.list_tasks:
        args.tasks = None if args.tasks is None else resolve_tasks(args.tasks)
        return args, [], []
    if unknown := [o.partition("=")[0] for o in overrides if not o.startswith(OVERRIDES)]:
        near = difflib.get_close_matches(unknown[0], [a.dest for a in build_parser()._actions], n=1)
        hint = f"did you mean '--{near[0]}'?" if near else f"overrides start with {' or '.join(f'--{p}' for p in OVERRIDES)}"
        raise OLMoCliError(f"unknown option '--{unknown[0]}'; {hint}")
    if not args.checkpoint:
        raise OLMoCliError("name at least one checkpoint folder")
    if args.max_examples == 0 or args.max_examples < -1:
        raise OLMoCliError(f"--max_examples={args.max_examples}: must be a positive number, or -1 for all")
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise OLMoCliError(f"--max_new_tokens={args.max_new_tokens}: must be at least 1")
    if args.num_workers < 0:
        raise OLMoCliError(f"--num_workers={args.num_workers}: must be 0 or more")
    if not 0 <= args.max_bad_fraction <= 1:
        raise OLMoCliError(f"--max_bad_fraction={args.max_bad_fraction:g}: must be a share between 0 and 1")
    args.scaling = test_time.scaling_of(args)
    args.tasks = resolve_tasks(DEFAULT_TASKS if args.tasks is None else args.tasks)
    args.device_batch_size = parse_batch_size(args.device_batch_size)
    args.max_examples = None if args.max_examples == -1 else args.max_examples
    model, data = ([o.removeprefix(p) for o in overrides if o.startswith(p)] for p in OVERRIDES)
    return args, model, data


def dry_run(args, model_overrides: Sequence[str], data_overrides: Sequence[str], console) -> None:
    """Build every model on the meta device and say what would be asked of it."""
    from olmo.checkpoints import load_config, select_checkpoint
    from olmo.data.catalogue import get_dataset
    from olmo.eval.evaluate import moving_shapes_config
    from olmo.eval.listing import status

    for task in args.tasks:
        if task.dataset is not None:
            get_dataset(task.dataset)  # goes through every line, before anything large is built
    for name in args.checkpoint:
        checkpoint = select_checkpoint(name)
        config = load_config(checkpoint, args.scaling.with_overrides(checkpoint, model_overrides))
        model = config.build_model(device="meta")
        total = sum(p.numel() for p in model.parameters())
        moving_shapes_config(checkpoint, data_overrides)
        console.print(f"{checkpoint}: {config.model_name}, {total:,} parameters; {kept_tokens(config)}")
        for task in args.tasks:
            console.print(
                f"  {task.label}: {status(task)}; {task.batch_size(args.device_batch_size)} at a time, "
                f"up to {args.max_new_tokens or task.max_new_tokens} new tokens"
            )


def kept_tokens(config) -> str:
    """Visual tokens of a video of the most frames, before and after pruning."""
    from olmo.models.molmo2.preprocessor import longest_video
    from olmo.preprocessing.example import dropped_cells

    if config.vision_backbone is None:
        return "it takes no videos"
    preprocessor, video = config.mm_preprocessor, longest_video(config)
    after = video.num_cells - dropped_cells([video], *preprocessor.pruning(config.vision_backbone.vit))
    total = video.num_cells + video.spared
    return f"a video of {preprocessor.video.max_frames} frames has {total} visual tokens, {after} after pruning"


def printed_config(args, model_overrides: Sequence[str], data_overrides: Sequence[str]) -> str:
    """The resolved settings of every checkpoint as YAML."""
    import yaml

    from olmo.checkpoints import load_config, select_checkpoint
    from olmo.eval.evaluate import moving_shapes_config, plain

    documents = []
    for name in args.checkpoint:
        checkpoint = select_checkpoint(name)
        documents.append(
            {
                "checkpoint": str(checkpoint),
                "tasks": [t.label for t in args.tasks],
                "device_batch_size": args.device_batch_size,
                "max_examples": args.max_examples,
                "max_new_tokens": args.max_new_tokens,
                "compat": args.compat,
                "num_workers": args.num_workers,
                "data": {"moving_shapes": plain(moving_shapes_config(checkpoint, data_overrides))},
                "model": plain(load_config(checkpoint, args.scaling.with_overrides(checkpoint, model_overrides))),
            }
        )
    return yaml.safe_dump_all(documents, sort_keys=False)
