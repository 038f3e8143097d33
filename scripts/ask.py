"""Ask a trained model about a video file.

    python scripts/ask.py VIDEO "What happens?" --checkpoint runs/demo/stts [--show kept.html|kept.mp4] [--model.key=value ...]

Prints the answer, the tokens before and after pruning and where the time went.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from olmo.exceptions import OLMoCliError, OLMoEnvironmentError
from olmo.launch import CommandParser, run_command


def build_parser() -> CommandParser:
    parser = CommandParser("ask.py", "Ask a trained model about a video file.")
    parser.add_argument("video", nargs="?", help="video file")
    parser.add_argument("question", nargs="?", help="what to ask about it")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder: step<N>, or a folder of those")
    parser.add_argument("--show", metavar="FILE", help="draw what was kept into FILE (.html or .mp4)")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="longest answer in tokens (128)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, overrides of the model); everything that can be wrong before a model is loaded is refused here."""
    args, overrides = build_parser().parse_with_overrides(argv)
    for word in overrides:
        if not word.startswith("model."):
            raise OLMoCliError(f"unknown option '--{word.partition('=')[0]}'; overrides of the model start with --model.")
    if args.video is None:
        raise OLMoCliError('name a video file and a question: ask.py VIDEO "question" --checkpoint DIR')
    if args.question is None:
        if Path(args.video).is_file():
            raise OLMoCliError(f'there is a video ({args.video}) but no question; write it behind the video: ask.py VIDEO "question"')
        raise OLMoCliError(
            f"there is a question ('{args.video}') but no video; write the video file in front of it: ask.py VIDEO \"question\""
        )
    if not Path(args.video).is_file():
        raise OLMoCliError(f"there is no video file {args.video}")
    if args.max_new_tokens < 1:
        raise OLMoCliError(f"--max_new_tokens={args.max_new_tokens}: must be at least 1")
    return args, [o.removeprefix("model.") for o in overrides]


def main(argv: Sequence[str]) -> int:
    args, overrides = parse(argv)
    # Torch and everything above it is imported from here on, so that --help and mistakes answer at once.
    from olmo.checkpoints import select_checkpoint
    from olmo.inference.api import load_with_overrides
    from olmo.inference.show import check_show_path

    if args.show:
        try:
            check_show_path(args.show)
        except OLMoEnvironmentError as err:
            raise OLMoCliError(f"--show: {err}") from None
    qa = load_with_overrides(select_checkpoint(args.checkpoint), overrides, device=args.device)
    answer = qa.ask(args.video, args.question, max_new_tokens=args.max_new_tokens)
    fewer = 100 * (1 - answer.tokens_after / answer.tokens_before)
    print(answer.text)
    print(f"tokens   {answer.tokens_before} before pruning, {answer.tokens_after} after ({fewer:.0f} % fewer), {len(answer.frames)} frames")
    print("seconds  " + ", ".join(f"{name} {value:.3f}" for name, value in answer.seconds.items()))
    if args.show:
        answer.show(args.show, video=Path(args.video).name, question=args.question)
        print(f"shown in {args.show}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
