"""`scripts/checkpoint.py`: looking at checkpoints, and making others from them."""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo.exceptions import OLMoCheckpointError, OLMoCliError
from olmo.launch import CommandParser, setup_logging

log = logging.getLogger(__name__)

PROGRAM = "checkpoint.py"
CHECKPOINT_HELP = "checkpoint folder: step<N>, a folder of those, or a Hugging Face folder"
FORMATS = ("sharded", "unsharded", "safetensors", "huggingface")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Command:
    """A word after `checkpoint.py`."""

    what: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str]) -> int:
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: {PROGRAM} COMMAND ..., where COMMAND is one of\n")
        print("\n".join(f"  {name:<10} {command.what}" for name, command in COMMANDS.items()))
        print(f"\n{PROGRAM} COMMAND --help tells more.")
        return 0
    if words[0] not in COMMANDS:
        raise OLMoCliError(f"unknown command '{words[0]}'; known: {', '.join(COMMANDS)}")
    args = build_parser(words[0]).parse_args(words[1:])
    setup_logging(debug=args.debug)
    return COMMANDS[words[0]].run(args)


def build_parser(name: str) -> CommandParser:
    parser = CommandParser(f"{PROGRAM} {name}", COMMANDS[name].what)
    COMMANDS[name].options(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


# ---------------------------------------------------------------------------------------------- looking


def inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument("--tensors", action="store_true", help="also every tensor with its shape and dtype")


def run_inspect(args: argparse.Namespace) -> int:
    from olmo.checkpoints import select_checkpoint
    from olmo.convert.inspect import inspect_checkpoint
    from olmo.convert.output import format_bytes

    summary = inspect_checkpoint(select_checkpoint(args.checkpoint))
    print(f"{summary.folder}: {summary.format}, {summary.model.get('model_name')}, {format_bytes(summary.file_bytes)} on disk\n")
    rows = [("part", "tensors", "parameters", "dtype", "size")]
    sums = summary.parts | {"all": summary.total} | ({"optimiser": summary.optimizer} if summary.optimizer.tensors else {})
    for part, c in sums.items():
        rows.append((part, f"{c.tensors:,}", f"{c.numbers:,}", c.describe_dtypes(), format_bytes(c.num_bytes)))
    print_columns(rows, right={1, 2, 4})
    if args.tensors:
        print()
        weights = summary.weights
        print_columns([(n, str(list(s)), str(weights.dtypes[n]).removeprefix("torch.")) for n, s in weights.shapes.items()])
    return 0


def diff_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help=CHECKPOINT_HELP)
    parser.add_argument("b", help="another one, of any format")
    parser.add_argument("--rows", type=int, default=20, help="tensors to list, those that differ most (20)")


def run_diff(args: argparse.Namespace) -> int:
    """Exit status 0 when nothing differs, else 1."""
    from olmo.checkpoints import load_config, open_weights, select_checkpoint
    from olmo.convert.diff import compare
    from olmo.convert.output import progress_bar

    folders = [select_checkpoint(path) for path in (args.a, args.b)]
    a, b = (open_weights(folder) for folder in folders)
    settings = tuple(load_config(folder).asdict() for folder in folders)
    with progress_bar("comparing", sum(a.num_bytes(name) for name in a.shapes)) as done:
        found = compare(a, b, settings, done)
    for line in found.settings:
        print(line)
    for folder, names in ((folders[0], found.only_a), (folders[1], found.only_b)):
        for name in names:
            print(f"only in {folder}: {name}")
    for name in found.shapes:
        print(f"{name}: shape {list(a.shapes[name])} -> {list(b.shapes[name])}")
    if found.tensors:
        rows = [("tensor", "max |a - b|", "/ max |a|", "numbers that differ")]
        rows += [(d.name, f"{d.largest:.3g}", f"{d.relative:.3g}", f"{d.differing:,} of {d.count:,}") for d in found.tensors[: args.rows]]
        print_columns(rows, right={1, 2, 3})
        if len(found.tensors) > args.rows:
            print(f"... and {len(found.tensors) - args.rows} more")
    if found.dtypes:
        print(f"{len(found.dtypes)} tensors are stored in another dtype")
    print(f"{found.equal} of {found.equal + len(found.tensors)} tensors are equal")
    return 0 if found.same else 1


def print_columns(rows: Sequence[tuple[str, ...]], right: set[int] = frozenset()) -> None:
    """Rows with aligned columns; whole names, however narrow the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())


# ---------------------------------------------------------------------------------------------- making others


def output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=DTYPES, help="cast the weights (default: as they are stored)")
    parser.add_argument("--max_file_gb", type=float, default=5.0, help="size from which weights go into several files, in GB (5)")


def unshard_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument("out", nargs="?", help="folder to write (the checkpoint's name with -unsharded)")
    output_options(parser)


def run_unshard(args: argparse.Namespace) -> int:
    from olmo.checkpoints import select_checkpoint

    folder = select_checkpoint(args.checkpoint)
    out = Path(args.out) if args.out else folder.with_name(f"{folder.name}-unsharded")
    return write_from([folder], out, "unsharded", args)


def convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--to", choices=FORMATS, required=True, help="its format")
    output_options(parser)


def run_convert(args: argparse.Namespace) -> int:
    from olmo.checkpoints import select_checkpoint

    return write_from([select_checkpoint(args.checkpoint)], Path(args.out), args.to, args)


def average_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoints", nargs="+", help=f"{CHECKPOINT_HELP}; two or more, or one run with --last")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--last", type=int, help="the newest LAST steps of one run")
    parser.add_argument("--to", choices=FORMATS, default="unsharded", help="format to write (unsharded)")
    output_options(parser)


def run_average(args: argparse.Namespace) -> int:
    from olmo.checkpoints import select_checkpoint

    if args.last is None:
        folders = [select_checkpoint(path) for path in args.checkpoints]
    elif len(args.checkpoints) > 1:
        raise OLMoCliError("--last takes the newest steps of one run: name one folder")
    else:
        folders = newest_steps(Path(args.checkpoints[0]), args.last)
    if len(folders) < 2:
        raise OLMoCliError("an average needs at least two checkpoints: name several, or one run with --last")
    return write_from(folders, Path(args.out), args.to, args)


def plain_options(parser: argparse.ArgumentParser, trained_with: str) -> None:
    parser.add_argument("checkpoint", help=f"{CHECKPOINT_HELP}, trained with {trained_with}")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--to", choices=FORMATS, default="unsharded", help="format to write (unsharded)")
    output_options(parser)


def merge_options(parser: argparse.ArgumentParser) -> None:
    plain_options(parser, "low-rank adapters (lora)")


def run_merge(args: argparse.Namespace) -> int:
    from olmo.checkpoints import has_adapters, open_weights, select_checkpoint

    folder = select_checkpoint(args.checkpoint)
    if not has_adapters(open_weights(folder, merge=False)):
        raise OLMoCheckpointError(f"{folder} holds no low-rank adapters: there is nothing to merge")
    return write_from([folder], Path(args.out), args.to, args)


def ema_options(parser: argparse.ArgumentParser) -> None:
    plain_options(parser, "a running average (ema)")


def run_ema(args: argparse.Namespace) -> int:
    from olmo.checkpoints import select_checkpoint

    return write_from([select_checkpoint(args.checkpoint)], Path(args.out), args.to, args, averaged=True)


def newest_steps(run: Path, count: int) -> list[Path]:
    """The newest whole `step<N>` folders of a run, oldest first, one of each step."""
    from olmo.checkpoints import step_of, what_is_missing

    if not run.is_dir():
        raise OLMoCheckpointError(f"there is no folder {run}")
    whole = {}
    for folder in sorted(path for path in run.iterdir() if path.is_dir() and step_of(path) is not None):
        if what_is_missing(folder) is None:
            whole.setdefault(step_of(folder), folder)
    if len(whole) < count:
        raise OLMoCheckpointError(f"{run} has {len(whole)} whole steps, fewer than the {count} asked for")
    return [whole[step] for step in sorted(whole)[-count:]]


def write_from(folders: Sequence[Path], out: Path, kind: str, args: argparse.Namespace, averaged: bool = False) -> int:
    """Write the weights of one folder (`averaged`: their running averages), or the mean of several, with the config of the last."""
    import torch

    from olmo.checkpoints import open_weights, read_config
    from olmo.convert.average import AverageWeights
    from olmo.convert.output import format_bytes
    from olmo.convert.writers import CastWeights, write_checkpoint

    sources = [open_weights(folder, averaged=averaged) for folder in folders]
    weights = sources[0] if len(sources) == 1 else AverageWeights(sources)
    if args.dtype is not None:
        weights = CastWeights(weights, getattr(torch, args.dtype))
    if len(folders) > 1:
        log.info("the mean of %s, with the config of the last", ", ".join(str(folder) for folder in folders))
    config = {key: value for key, value in read_config(folders[-1]).items() if key != "lora"}  # adapters are merged already
    write_checkpoint(weights, config, out, kind, max_bytes=int(args.max_file_gb * 1e9))
    total = sum(weights.num_bytes(name) for name in weights.shapes)
    print(f"{out}: {kind}, {len(weights.shapes)} tensors, {format_bytes(total)}")
    return 0


COMMANDS: dict[str, Command] = {
    "inspect": Command("What a checkpoint holds, by part: parameters, dtypes and sizes, without reading it.", inspect_options, run_inspect),
    "unshard": Command("All weights of a checkpoint in one file, model.pt.", unshard_options, run_unshard),
    "convert": Command("Write a checkpoint in another format or dtype.", convert_options, run_convert),
    "diff": Command("What two checkpoints differ in; exit status 1 if in anything.", diff_options, run_diff),
    "merge_lora": Command("A plain checkpoint from one with low-rank adapters.", merge_options, run_merge),
    "ema": Command("The running average of the weights that a training kept.", ema_options, run_ema),
    "average": Command("The mean of several checkpoints of one model.", average_options, run_average),
}
