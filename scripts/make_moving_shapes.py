"""Generate the videos of `moving_shapes` (training does it by itself on first use).

    python scripts/make_moving_shapes.py [--num_train=6000] [--num_test=400] [--root=DIR] [--seed=0] ...

Takes every key of `MovingShapesConfig`. A second run finds what is there and adds only what is missing.
"""

import sys
from collections.abc import Sequence

from olmo.data.moving_shapes import SPLITS, MovingShapes, MovingShapesConfig
from olmo.launch import CommandParser, run_command, setup_logging


def main(argv: Sequence[str]) -> int:
    parser = CommandParser("make_moving_shapes.py", __doc__)
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    args, overrides = parser.parse_with_overrides(argv)
    setup_logging(debug=args.debug)
    config = MovingShapesConfig().with_overrides(overrides)
    for split in SPLITS:
        data = MovingShapes(config, split)
        print(f"{split}: {len(data.videos)} videos, {len(data.items)} questions in {data.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
