"""Draw the picture of the README: the frames of a video, what the model keeps of them, and the scores behind it.

python scripts/readme_picture.py VIDEO --checkpoint DIR [--out=docs/kept_cells.png]
"""

import sys
from collections.abc import Sequence

import numpy as np

from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser, run_command

SIDE, GAP = 144, 6


def build_parser() -> CommandParser:
    parser = CommandParser("readme_picture.py", __doc__.split("\n")[0])
    parser.add_argument("video", help="video file")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder of a model that prunes")
    parser.add_argument("--out", default="docs/kept_cells.png", help="picture to write (docs/kept_cells.png)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def rows_of(answer) -> list[list[np.ndarray]]:
    """Original frames, kept view, heat map: one row of pictures each."""
    from olmo.inference.show import grey_dropped, heat_map, score_levels

    levels = score_levels(answer.scores)
    return [
        list(answer.frames),
        [grey_dropped(frame, keep, answer.grid) for frame, keep in zip(answer.frames, answer.keep_cells, strict=True)],
        # The first frame is kept whole without being judged.
        [answer.frames[0], *(heat_map(frame, level, answer.grid) for frame, level in zip(answer.frames[1:], levels[1:], strict=True))],
    ]


def paste(rows: list[list[np.ndarray]]):
    """All pictures at one height, in rows, on white."""
    from PIL import Image

    height, width = rows[0][0].shape[:2]
    size = (round(width * SIDE / height), SIDE)
    columns = len(rows[0])
    sheet = Image.new("RGB", (columns * (size[0] + GAP) - GAP, len(rows) * (size[1] + GAP) - GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (x * (size[0] + GAP), y * (size[1] + GAP)))
    return sheet


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(list(argv))
    from olmo.inference import load

    answer = load(args.checkpoint).ask(args.video, "Which colour is the shape?", max_new_tokens=1)
    if answer.keep_cells is None or answer.scores is None:
        raise OLMoCliError(f"the model in {args.checkpoint} prunes nothing by scores, so there is nothing to draw")
    paste(rows_of(answer)).quantize(128, dither=0).save(args.out, optimize=True)  # camera noise compresses badly
    print(f"{answer.tokens_before} tokens before pruning, {answer.tokens_after} after: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
