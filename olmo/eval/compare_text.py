"""A comparison of two runs as lines of text, and the command that prints it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from olmo.eval.compare import AverageComparison, Comparison, TaskComparison, compare
from olmo.eval.saved_runs import read_runs, task_means
from olmo.eval.statistics import UNRELIABLE, Average, PairedDifference, format_score
from olmo.eval.statistics.mcnemar import IGNORES
from olmo.eval.statistics.power import Needed
from olmo.exceptions import OLMoEnvironmentError
from olmo.launch import CommandParser


def build_parser() -> CommandParser:
    parser = CommandParser(
        "compare_evals.py", "Compare two evaluated runs question by question: differences with intervals that use the pairing."
    )
    parser.add_argument("first", help="result folder, or a folder with those of several tasks")
    parser.add_argument("second", help="the same of the other run; differences are second minus first")
    parser.add_argument("--json", metavar="FILE", help="write all numbers to this file too")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(list(argv))
    found = compare(read_runs(args.first), read_runs(args.second), task_means())
    print(f"A = {args.first}\nB = {args.second}")
    for line in describe(found):
        print(line)
    if args.json:
        try:
            Path(args.json).write_text(json.dumps({"first": args.first, "second": args.second} | found.asdict(), indent=2) + "\n")
        except OSError as err:
            raise OLMoEnvironmentError(f"cannot write {args.json}: {err.strerror or err}") from None
    return 0


def describe(found: Comparison) -> Iterator[str]:
    """Everything that a terminal shows below the names of the runs."""
    for warning in found.warnings:
        yield f"warning: {warning}"
    for task in found.tasks:
        yield from ("", *_task(task))
    for average in found.averages:
        yield from ("", *_average(average))
    if any(task.mcnemar for task in found.tasks):
        yield from ("", f"{IGNORES}.")


def _task(task: TaskComparison) -> Iterator[str]:
    yield f"{task.label} ({task.headline}): {task.difference.n} questions in common about {task.difference.videos} videos"
    yield f"  A      {format_score(task.first)}"
    yield f"  B      {format_score(task.second)}"
    yield f"  B - A  {_difference(task.difference)}"
    if task.mcnemar is not None:
        test = task.mcnemar
        yield f"  right in one only: A {test.only_first}, B {test.only_second}; McNemar p = {test.exact:.3g} (mid-p {test.mid:.3g})"
    yield _needed(task.needed)
    yield from (f"  warning: {warning}" for warning in task.warnings)


def _average(average: AverageComparison) -> Iterator[str]:
    yield f"mean of {average.first.tasks} tasks: {average.name}, {average.difference.n} questions"
    yield f"  A      {_mean(average.first)}"
    yield f"  B      {_mean(average.second)}"
    yield f"  B - A  {_difference(average.difference)}"
    yield _needed(average.needed)


def _mean(average: Average) -> str:
    return f"{100 * average.value:5.1f} %  [{100 * average.low:5.1f}, {100 * average.high:5.1f}]{_doubt(average.reliable)}"


def _difference(difference: PairedDifference) -> str:
    value, low, high = (f"{100 * x:+5.1f}" for x in (difference.value, difference.low, difference.high))
    return f"{value}    [{low}, {high}] points{_doubt(difference.reliable)}"


def _doubt(reliable: bool) -> str:
    return "" if reliable else f"  {UNRELIABLE}"


def _needed(needed: Needed | None) -> str:
    if needed is None:
        return "  the runs agree on everything, so nothing tells how many questions a difference of 0.5 points needs"
    return f"  a difference of 0.5 points needs {needed.questions:,} questions about {needed.videos:,} videos (80 % power)"
