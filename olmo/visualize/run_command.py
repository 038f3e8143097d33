"""`scripts/plot_run.py`: the page of a training run, once or again and again while the run goes on."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser
from olmo.pages.names import run_names
from olmo.visualize.command import check_output

DESCRIPTION = """\
Write a page about a training run from its save folder, or about several to compare them: losses, scores, learning rates,
gradients, how full the rows are, where the time goes, memory, restarts and checkpoints. It needs no other file.

    python scripts/plot_run.py runs/mine
    python scripts/plot_run.py runs/mine --live
    python scripts/plot_run.py runs/dense runs/stts --output compared.html"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags, with the page and the names filled in; what can be wrong before anything is read is refused here."""
    parser = CommandParser("plot_run.py", DESCRIPTION)
    parser.add_argument("runs", nargs="+", help="save folder of a run")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs (the names of their folders)")
    parser.add_argument("--output", help="the page to write (run.html in the folder of the first run)")
    parser.add_argument("--live", action="store_true", help="write it again while the runs go on; the page renews itself in the browser")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="time between two versions with --live (10)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(list(argv))
    args.names = run_names(args.runs, args.names)
    if not args.every >= 1:
        raise OLMoCliError(f"--every={args.every:g}: must be at least 1 second")
    args.output = Path(args.output or Path(args.runs[0]) / "run.html")
    check_output(args.output)
    return args


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    # The rest imports torch, so that --help and mistakes answer at once.
    from olmo.pages.files import save_page
    from olmo.visualize.run_page import build_run_page
    from olmo.visualize.run_records import RunLog

    runs = [RunLog(folder, name) for folder, name in zip(args.runs, args.names, strict=True)]
    for run in runs:
        run.read()
    if args.live:
        print(f"writing {args.output} every {args.every:g} s until the run is at its last step; Ctrl-C ends this too", flush=True)
        try:
            follow(runs, args.output, args.every)
        except KeyboardInterrupt:
            print("interrupted; the run goes on")
    save_page(args.output, build_run_page(runs))
    print(f"wrote {args.output}: {', '.join(f'{run.name} up to step {run.step}' for run in runs)}")
    return 0


def follow(runs, output: Path, every: float) -> None:
    """Write the page after every look at the folders, until all runs have ended and there is nothing new."""
    from olmo.pages.files import save_page
    from olmo.visualize.run_page import build_run_page

    while True:
        save_page(output, build_run_page(runs, renewed_every=every))
        time.sleep(every)
        new = [run.read() for run in runs]
        if not any(new) and all(run.ended for run in runs):
            return
