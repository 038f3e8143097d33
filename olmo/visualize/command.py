"""`scripts/dataset_visualize.py`: flags, the settings of the training that they describe, and the page."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from olmo.exceptions import OLMoCliError, OLMoEnvironmentError
from olmo.launch import CommandParser, setup_logging

DESCRIPTION = """\
Write a page about a data set or mixture: its first examples as training sees them (frames, text, tokens with their loss
weights, the tree of messages) and how many more of them fill rows.

    python scripts/dataset_visualize.py moving_shapes --config tiny --output page.html
    python scripts/dataset_visualize.py moving_shapes --checkpoint runs/demo/stts --packing --output page.html"""

EPILOG = """\
Every other word sets a key of the training config: --data.packing.buffer_size=16, --model.mm_preprocessor.video.max_frames=4.
"""


def build_parser(prog: str | None = None) -> CommandParser:
    parser = CommandParser(prog, DESCRIPTION, EPILOG)
    parser.add_argument("name", help="mixture or data set, such as moving_shapes")
    parser.add_argument(
        "--config", help="config name, YAML file or checkpoint folder, as for training (the settings saved in --checkpoint)"
    )
    parser.add_argument("--checkpoint", help="checkpoint folder: also draw which cells its model keeps")
    parser.add_argument("--examples", type=int, default=6, help="examples to show (6)")
    parser.add_argument("--packing_map", type=int, default=64, metavar="N", help="rows that N examples fill; 0 leaves the map out (64)")
    parser.add_argument("--output", default="dataset.html", help="the page to write (dataset.html)")
    parser.add_argument("--split", help="split of every data set (train, unless the config says otherwise)")
    parser.add_argument("--seed", type=int, help="order of the examples and every random choice in them (the config's)")
    parser.add_argument("--packing", action="store_true", help="pack several examples into one row")
    parser.add_argument("--seq_len", type=int, help="tokens of one row, counted after pruning (the config's)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read for the packing map (0)")
    parser.add_argument("--device", help="where the checkpoint's model runs: cpu, cuda, ... (a GPU if there is one)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, overrides of the training config); what can be wrong before anything is read is refused here."""
    args, overrides = build_parser().parse_with_overrides(argv)
    if args.config is None and args.checkpoint is None:
        raise OLMoCliError("name the settings: --config tiny (or another config), or --checkpoint DIR for those of a checkpoint")
    if args.examples < 0 or args.packing_map < 0:
        raise OLMoCliError("--examples and --packing_map must not be negative")
    if args.examples == args.packing_map == 0:
        raise OLMoCliError("--examples=0 and --packing_map=0 leave nothing to show")
    if args.seed is not None and args.seed < 0:
        raise OLMoCliError(f"--seed={args.seed}: must not be negative")
    check_output(Path(args.output))
    return args, overrides


def check_output(path: Path) -> None:
    """Refuse a page that cannot be written, before any work is done."""
    if path.suffix.lower() != ".html":
        raise OLMoEnvironmentError(f"cannot write {path}: the name must end in .html")
    if os.path.isdir(path):
        raise OLMoEnvironmentError(f"cannot write {path}: it is a folder")
    if not os.path.isdir(path.resolve().parent):
        raise OLMoEnvironmentError(f"cannot write {path}: there is no folder {path.resolve().parent}")


def training_config(args: argparse.Namespace, overrides: Sequence[str], checkpoint: Path | None):
    """The config of a training on `name` with these flags; with a checkpoint, its model block as it is."""
    from olmo.checkpoints import load_config
    from olmo.train import sft

    source = args.config or saved_settings(checkpoint)
    words = [source, args.name, f"--num_workers={args.num_workers}"]
    words += ["--packing"] if args.packing else []
    words += [] if args.seq_len is None else [f"--seq_len={args.seq_len}"]
    given = {"data.split": args.split, "data.seed": args.seed}
    overrides = [*overrides, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    cfg = sft.build_train_config(sft.parse(words)[0], overrides)
    if checkpoint is not None:
        cfg.model = load_config(checkpoint, model_overrides(overrides))
    if cfg.model is None:
        raise OLMoCliError(f"{source} has no block 'model', so nothing says how its examples are read; name a config that has one")
    cfg.model.validate()
    return cfg


def model_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that set a key of the model, as the loading of a checkpoint takes them."""
    return [o.removeprefix("model.") for o in overrides if o.startswith("model.")]


def saved_settings(checkpoint: Path) -> str:
    file = checkpoint / "config.yaml"
    if not file.is_file():
        raise OLMoCliError(f"{checkpoint} holds no settings of a training (config.yaml); name a config for the data: --config")
    return str(file)


def main(argv: Sequence[str]) -> int:
    args, overrides = parse(argv)
    # Torch and everything above it is imported from here on, so that --help and mistakes answer at once.
    from olmo.checkpoints import select_checkpoint
    from olmo.inference.api import load_with_overrides
    from olmo.pages.files import save_page
    from olmo.visualize.build import build_page, open_stream

    setup_logging(debug=args.debug)
    checkpoint = None if args.checkpoint is None else select_checkpoint(args.checkpoint)
    cfg = training_config(args, overrides, checkpoint)
    loader = open_stream(cfg)
    qa = None if checkpoint is None else load_with_overrides(checkpoint, model_overrides(overrides), device=args.device)
    html = build_page(cfg, loader, examples=args.examples, packing_map=args.packing_map, qa=qa, checkpoint=checkpoint, config=args.config)
    save_page(Path(args.output), html)
    print(f"wrote {args.output}: {args.examples} examples, {args.packing_map} in the packing map")
    return 0
