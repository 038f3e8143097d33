"""`scripts/eval_report.py`: one page from the result folders of one or more runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from olmo.eval.compare import compare
from olmo.eval.report.drawn import draw_errors
from olmo.eval.report.evaluation import MAX_ERRORS, Difference, EvaluatedRun, TaskResult, build_evaluation_page
from olmo.eval.saved_runs import Run, read_runs, task_means
from olmo.eval.statistics import Average, average_of_tasks, score
from olmo.launch import CommandParser
from olmo.pages.names import run_names

FACTS = ("checkpoint", "frames", "topk", "precision")
"""Settings of a run that the page prints."""


def build_parser() -> CommandParser:
    parser = CommandParser("eval_report.py", "Write report.html from evaluated runs: scores, categories, cost and a browser of the errors.")
    parser.add_argument("runs", nargs="+", help="result folder, or a folder with those of several tasks; one for each run")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs (the names of their folders)")
    parser.add_argument("--output", default="report.html", help="the page to write (report.html)")
    parser.add_argument("--title", default="Evaluation", help="heading of the page")
    parser.add_argument("--errors", type=int, default=MAX_ERRORS, help=f"wrong answers of each task in the page ({MAX_ERRORS})")
    parser.add_argument("--drawn", type=int, default=2, help="of these, how many of each task with their frames; needs the videos (2)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(list(argv))
    names = run_names(args.runs, args.names)
    saved = dict(zip(names, map(read_runs, args.runs), strict=True))
    path = build_evaluation_page(
        args.output,
        [evaluated(name, runs) for name, runs in saved.items()],
        differences(saved),
        [sample for name, runs in saved.items() for run in runs.values() for sample in draw_errors(name, run, args.drawn)],
        title=args.title,
        max_errors=args.errors,
    )
    print(f"wrote {path}")
    return 0


def evaluated(name: str, runs: Mapping[str, Run]) -> EvaluatedRun:
    """Scores of one run, computed from what it predicted."""
    tasks = {
        label: TaskResult(run.records, run.metric, score(run.metric, run.records), run.content.get("seconds", {}))
        for label, run in runs.items()
    }
    averages: dict[str, Average] = {
        mean: average_of_tasks([(runs[label].metric, runs[label].records) for label in labels])
        for mean, labels in task_means().items()
        if all(label in runs for label in labels)
    }
    return EvaluatedRun(name, tasks, averages, facts([run.settings for run in runs.values()]))


def facts(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Settings of all tasks of a run; where tasks differ, all values."""
    return {key: " / ".join(dict.fromkeys(str(s[key]) for s in settings if key in s)) for key in FACTS}


def differences(saved: Mapping[str, Mapping[str, Run]]) -> Iterator[Difference]:
    """Every other run against the first, task by task and in the means."""
    (_, first), *others = saved.items()
    for name, runs in others:
        found = compare(first, runs, task_means())
        for task in found.tasks:
            test = None if task.mcnemar is None else task.mcnemar.exact
            yield difference(task.label, name, task, test)
        for average in found.averages:
            yield difference(average.name, name, average, None)


def difference(label: str, name: str, found: Any, mcnemar: float | None) -> Difference:
    delta, needed = found.difference, None if found.needed is None else found.needed.questions
    return Difference(label, name, delta.n, delta.value, delta.low, delta.high, delta.reliable, mcnemar, needed)
