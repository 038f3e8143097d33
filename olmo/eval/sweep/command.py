"""The sweep command: its words, and which of its points can be run at all."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from olmo.eval.sweep.plan import UNPRUNED, Point, plan
from olmo.eval.test_time import Scaling
from olmo.exceptions import OLMoCliError, OLMoEnvironmentError, OLMoError
from olmo.launch import CommandParser

log = logging.getLogger(__name__)

OWN = ("save_dir", "eval_name", "max_frames", "topk", "prune_method", "list_tasks", "print_config", "dry_run")
"""Words of the evaluation command that a sweep decides itself, or that evaluate nothing."""
EPILOG = """\
Every other word goes to the evaluation command (--device_batch_size=8, --num_workers=0, --positions=compacted, --model.x=y).
A sweep that is started again does what is left.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("sweep.py", "Evaluate checkpoints with several numbers of frames, shares of tokens and methods.", EPILOG)
    parser.add_argument("checkpoint", nargs="+", help="checkpoint folders")
    parser.add_argument("--tasks", "--mode", required=True, help="as in the evaluation command")
    parser.add_argument("--frames", type=int, nargs="+", help="most frames of a video (default: each checkpoint's own)")
    parser.add_argument(
        "--topk", type=float, nargs="+", default=[0.0, 0.5], help="shares of the cells that are removed; 0 = unpruned (0 0.5)"
    )
    parser.add_argument("--methods", nargs="+", default=["scorer"], help="how they are chosen (scorer)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the methods that draw (0)")
    parser.add_argument("--max_examples", type=int, default=-1, help="questions of each task; -1 = all")
    parser.add_argument("--nproc_per_node", type=int, default=1, help="processes of an evaluation, one per GPU (1)")
    parser.add_argument("--output", required=True, help="folder for everything that is made")
    parser.add_argument("--overwrite", action="store_true", help="evaluate again what has been evaluated")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, words for the evaluation command)."""
    args, rest = build_parser().parse_with_overrides(argv)
    if own := [word.partition("=")[0] for word in rest if word.partition("=")[0] in OWN]:
        raise OLMoCliError(f"--{own[0]} is not for a sweep, which decides it itself")
    if args.nproc_per_node < 1:
        raise OLMoCliError(f"--nproc_per_node={args.nproc_per_node}: must be at least 1")
    if UNPRUNED in args.methods:
        raise OLMoCliError(f"--methods {UNPRUNED}: the unpruned model is asked for with --topk 0")
    if bad := [n for n in args.frames or () if n < 1]:
        raise OLMoCliError(f"--frames {bad[0]}: must be at least 1")
    if bad := [x for x in args.topk if not 0 <= x < 1]:
        raise OLMoCliError(f"--topk {bad[0]:g}: must lie in [0, 1): it is the share of the cells that is removed (0 = none)")
    examples = [] if args.max_examples == -1 else [f"--max_examples={args.max_examples}"]
    return args, [*examples, *(f"--{word}" for word in rest)]


def main(argv: Sequence[str], launcher: Path) -> int:
    """`launcher`: the evaluation program."""
    args, words = parse(argv)
    from olmo.checkpoints import select_checkpoint
    from olmo.eval import command
    from olmo.eval.sweep.page import write_page
    from olmo.eval.sweep.run import Sweep
    from olmo.launch import setup_logging

    console = setup_logging(0, args.debug)
    eval_args, model, _ = command.parse([args.checkpoint[0], f"--tasks={args.tasks}", *words])  # its words are checked before any point
    if blind := [t.label for t in eval_args.tasks if t.metric is None or t.judge]:
        raise OLMoCliError(f"--tasks: {blind[0]} has no score without a judge or without answers, so a sweep has nothing to draw")
    frames = {c: args.frames or [own_frames(select_checkpoint(c))] for c in args.checkpoint}
    if len(frames) < len(args.checkpoint):
        raise OLMoCliError("the same checkpoint is named twice")
    points, left_out = possible(plan(frames, args.topk, args.methods, args.seeds), model)
    output = Path(args.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OLMoEnvironmentError(f"cannot write to {output}: {err.strerror or err}") from None
    sweep = Sweep(points, eval_args.tasks, output, launcher, words, args.nproc_per_node, args.overwrite, left_out)
    sweep.run(console.print)
    if sweep.records:
        console.print(f"page: {write_page(sweep)}")
    if sweep.failed:
        raise OLMoError(
            f"{len(sweep.failed)} of {len(points)} points failed, first {next(iter(sweep.failed))}; start the sweep again to retry"
        )
    return 0


def own_frames(checkpoint: Path) -> int:
    """Most frames of a video that a checkpoint was trained for."""
    from olmo.checkpoints import load_config

    return load_config(checkpoint).mm_preprocessor.video.max_frames


def possible(points: Sequence[Point], more: Sequence[str]) -> tuple[list[Point], dict[str, str]]:
    """(points that can be run, the others with the reason). A word that is wrong for every checkpoint is an error."""
    from olmo.checkpoints import load_config, select_checkpoint

    fine, left_out = [], {}
    for point in points:
        folder = select_checkpoint(point.checkpoint)
        try:
            load_config(folder, Scaling(point.frames, point.topk, point.method).with_overrides(folder, more))
        except OLMoError as err:
            left_out[point.name] = str(err)
            log.warning("left out: %s (%s)", point.describe(), err)
        else:
            fine.append(point)
    if not fine:
        raise OLMoCliError(f"no point of the sweep can be run: {next(iter(left_out.values()))}")
    unusable = {p.method for p in points} - {p.method for p in fine}
    if unusable:
        method = sorted(unusable)[0]
        raise OLMoCliError(f"--methods {method}: {next(left_out[p.name] for p in points if p.method == method)}")
    return fine, left_out
