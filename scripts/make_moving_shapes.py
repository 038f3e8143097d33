"""Generate the videos of `moving_shapes` (training does it by itself on first use).

    python scripts/make_moving_shapes.py [--num_train=6000] [--num_test=400] [--root=DIR] [--seed=0] ...

Takes every key of `MovingShapesConfig`. A second run finds what is there and adds only what is missing.
"""

import logging
import sys

from olmo.config import parse_overrides
from olmo.data.moving_shapes import SPLITS, MovingShapes, MovingShapesConfig
from olmo.exceptions import OLMoError


def main(words: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if words[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        config = MovingShapesConfig().with_overrides(parse_overrides(words))
        for split in SPLITS:
            data = MovingShapes(config, split)
            print(f"{split}: {len(data.videos)} videos, {len(data.items)} questions in {data.folder}")
    except OLMoError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
