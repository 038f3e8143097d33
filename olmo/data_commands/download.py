"""`scripts/download_datasets.py`: fetch data sets, list them, or say what of them is there."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from olmo.data.catalogue import Row
from olmo.data.download.fetch import Fetched, fetch
from olmo.data.download.names import GROUPS, rows_of
from olmo.data.download.presence import SetState, state_of
from olmo.data.download.progress import Transfers
from olmo.data.paths import data_root, video_root
from olmo.data.records import DatasetRow
from olmo.data_commands.tables import print_table
from olmo.exceptions import OLMoCliError, OLMoError
from olmo.launch import CommandParser, setup_logging

log = logging.getLogger(__name__)

DESCRIPTION = """\
Fetch data sets into MOLMO_DATA_DIR. What is there is left alone, and what was interrupted goes on.

    python scripts/download_datasets.py --list                 every data set, and where it comes from
    python scripts/download_datasets.py tgif nextqa_mc         two of them
    python scripts/download_datasets.py train                  the training mixture
    python scripts/download_datasets.py eval --check           what of the benchmarks is there, and what to do about the rest
"""


def build_parser() -> CommandParser:
    groups = "; ".join(f"{name}: {meaning}" for name, meaning in GROUPS.items())
    parser = CommandParser("download_datasets.py", DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"data sets (name or name:split), mixtures, or groups ({groups})")
    parser.add_argument("--list", action="store_true", help="only list them, with their sources; without a NAME all")
    parser.add_argument("--check", action="store_true", help="fetch nothing, say what is there and what to do; without a NAME all")
    parser.add_argument("--remove_archives", action="store_true", help="delete archives once they are unpacked")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[tuple[Row, list[str] | None]]]:
    """(flags, the data sets that the names mean, each with the splits asked for)."""
    args = build_parser().parse_args(argv)
    if args.list and args.check:
        raise OLMoCliError("give --list or --check, not both")
    if not args.names and not (args.list or args.check):
        raise OLMoCliError(f"name what to fetch: data sets (see --list), a mixture, or a group ({', '.join(GROUPS)})")
    return args, rows_of(args.names or ["all"])


def main(argv: Sequence[str]) -> int:
    args, rows = parse(argv)
    console = setup_logging(debug=args.debug)
    if args.list:
        width = max(len(row.name) for row, _ in rows)
        for row, _ in rows:
            first, *more = _listed(row)
            print(f"{row.name:<{width}}  {first}")
            print("".join(f"{'':<{width}}    {line}\n" for line in more), end="")
        return 0
    if args.check:
        states = [state_of(row, splits) for row, splits in rows]
        return _report(states, {}, console)
    fetched, refused = _fetch_all(rows, Transfers(console), args.remove_archives)
    states = [state_of(row, splits) for row, splits in rows]
    return _report(states, fetched, console) or int(refused)


def _fetch_all(rows: Sequence[tuple[Row, Any]], transfers: Transfers, remove_archives: bool) -> tuple[dict[str, Fetched], bool]:
    """(what came of each data set, whether something could not be fetched); one that fails does not stop the others."""
    fetched: dict[str, Fetched] = {}
    failed = False
    for row, _ in rows:
        if not isinstance(row, DatasetRow):
            continue
        log.info("%s: into %s", row.name, video_root() / row.folder)
        try:
            result = fetch(row.sources, video_root() / row.folder, show=transfers.of, remove_archives=remove_archives)
        except OLMoError as err:
            result = Fetched(failures=[str(err)])
        fetched[row.name] = result
        failed |= bool(result.failures)
    return fetched, failed


def _listed(row: Row) -> list[str]:
    """What there is to say about a data set, in lines."""
    lines = [f"{row.title} ({', '.join(row.splits)}): {row.source}"]
    if isinstance(row, DatasetRow):
        lines += [f"licence: {row.licence}", *([row.caution] if row.caution else [])]
    return lines


def _report(states: Sequence[SetState], fetched: dict[str, Fetched], console: Any) -> int:
    """Print what is there and what to do; returns 1 if anything is not."""
    cells = []
    for state in states:
        for split in state.splits or [None]:
            counts = ["", "", ""] if split is None else [split.split, _of(split.examples, split.expected), _videos(split)]
            cells.append([state.name, state.status, *counts])
    print_table(console, ["name", "status", "split", "examples", "videos"], cells)
    for state in states:
        failures = fetched[state.name].failures if state.name in fetched else []
        if state.complete and not failures:
            continue
        print(f"\n{state.name}: {state.status}")
        for split in state.splits:
            for problem in split.problems():
                print(f"  {split.split}: {problem}")
        for failure in failures:
            print(f"  not fetched: {failure}")
        if state.caution:
            print(f"  note: {state.caution}")
        for step in state.todo:
            print(f"  -> {step}")
    ready = sum(state.complete for state in states)
    print(f"\n{ready} of {len(states)} data sets are ready in {data_root()}")
    return int(ready < len(states))


def _of(there: int | None, expected: int | None) -> str:
    if there is None:
        return "-"
    return f"{there}" if expected is None else f"{there} of {expected}"


def _videos(split: Any) -> str:
    return "-" if split.videos is None else f"{split.videos - split.missing} of {split.videos}"
