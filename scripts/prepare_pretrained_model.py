"""Turn a published language model or vision transformer into the file that a config names as `init_path`.

    python scripts/prepare_pretrained_model.py qwen3_4b_instruct
    python scripts/prepare_pretrained_model.py siglip2 --source DIR
    python scripts/prepare_pretrained_model.py DIR

The first argument is a named model (it is fetched from the Hugging Face hub, or read from --source), or the folder or hub id
of any Qwen3, OLMo3, SigLIP, SigLIP2, CLIP or DINOv2.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from olmo.launch import CommandParser, run_command, setup_logging


def build_parser() -> CommandParser:
    parser = CommandParser("prepare_pretrained_model.py", __doc__)
    parser.add_argument("name", help="named model, folder or hub id")
    parser.add_argument("--source", metavar="DIR", help="folder or hub id to take a named model from")
    parser.add_argument("--data_dir", type=Path, help="where the file goes ($MOLMO_DATA_DIR, else data)")
    parser.add_argument("--cache_dir", help="folder of downloads (the one of Hugging Face)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file itself, instead of its usual name below --data_dir")
    parser.add_argument("--unsharded", action="store_true", help="one file, as published commands ask for it: it always is one here")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(list(argv))
    setup_logging(debug=args.debug)
    # Torch and everything above it is imported from here on, so that --help and mistakes answer at once.
    import yaml

    from olmo.convert.pretrained import SOURCES, prepare

    data_dir = args.data_dir or Path(os.environ.get("MOLMO_DATA_DIR") or "data")
    made = prepare(args.name, source=args.source, data_dir=data_dir, cache_dir=args.cache_dir, out=args.out)
    print(f"{made.file}: {made.num_tensors} tensors, {made.num_parameters:,} parameters; load it with --{made.block}.init_path={made.file}")
    if args.name not in SOURCES:
        print(f"the block {made.block} of a config for it:")
        print(yaml.safe_dump(made.settings(), sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
