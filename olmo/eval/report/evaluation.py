"""From result folders to the page of an evaluation: scores with intervals, categories, cost, and a browser of the errors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from olmo.eval.metrics.metric import Metric, Record
from olmo.eval.report.errors import wrong_questions
from olmo.eval.report.figures import score_dots
from olmo.eval.report.page import PARTS, interval, named_rows, percent, points, write_page
from olmo.eval.statistics import OVERALL, UNRELIABLE, Average, Score
from olmo.pages.drawing import run_colours

MAX_ERRORS = 300
"""Questions of a task in the error browser; more make a page that browsers are slow to open."""


@dataclass
class TaskResult:
    """What one run did on one task."""

    records: list[Record]
    metric: Metric
    scores: dict[str, Score]
    seconds: Mapping[str, float]
    """Seconds by part, and `questions` = how many answers they cover."""

    @property
    def headline(self) -> Score | None:
        return self.scores.get(self.metric.headline)


@dataclass
class EvaluatedRun:
    """One checkpoint under one set of settings."""

    name: str
    tasks: dict[str, TaskResult]
    """By label, as `nextqa_mc:test`."""
    averages: dict[str, Average]
    """Over groups of tasks, by name."""
    facts: dict[str, str]
    """Settings worth printing."""


@dataclass
class Difference:
    """One row of the comparison with the first run."""

    task: str
    run: str
    n: int
    value: float
    low: float
    high: float
    reliable: bool
    mcnemar: float | None
    needed: int | None


def build_evaluation_page(
    path: str | Path,
    runs: Sequence[EvaluatedRun],
    differences: Iterable[Difference] = (),
    drawn: Sequence[Mapping[str, Any]] = (),
    *,
    title: str = "Evaluation",
    max_errors: int = MAX_ERRORS,
) -> Path:
    """Write the page. `drawn` are questions with the strip of frames that `olmo.inference.show.film_strip` made."""
    colours = run_colours([run.name for run in runs])
    labels = list(dict.fromkeys(label for run in runs for label in run.tasks))
    errors, counts = _errors(runs, labels, max_errors)
    return write_page(
        path,
        "evaluation.html.j2",
        title=title,
        date=datetime.now().strftime("%d %B %Y, %H:%M"),
        runs=[run.name for run in runs],
        colours=colours,
        facts=named_rows([run.facts for run in runs]),
        chart=score_dots({run.name: {label: t.headline for label, t in run.tasks.items() if t.headline} for run in runs}, colours),
        score_rows=_score_rows(runs, labels),
        differences=[_difference(d) for d in differences],
        categories=[{"name": label, "rows": _category_rows(runs, label)} for label in labels],
        costs=[row for label in labels for row in _cost_rows(runs, label)],
        drawn=drawn,
        errors=errors,
        error_counts=counts,
    )


def _score_rows(runs: Sequence[EvaluatedRun], labels: Sequence[str]) -> list[dict[str, Any]]:
    rows = [_row(label, [run.tasks[label].headline if label in run.tasks else None for run in runs]) for label in labels]
    names = dict.fromkeys(name for run in runs for name in run.averages)
    return rows + [_row(name, [run.averages.get(name) for run in runs], overall=True) for name in names]


def _category_rows(runs: Sequence[EvaluatedRun], label: str) -> list[dict[str, Any]]:
    results = [run.tasks[label].scores if label in run.tasks else {} for run in runs]
    names = dict.fromkeys(name for scores in results for name in scores)
    ordered = [n for n in names if n not in OVERALL] + [n for n in OVERALL if n in names]
    return [_row(name, [scores.get(name) for scores in results], overall=name in OVERALL) for name in ordered]


def _row(name: str, scores: Sequence[Score | Average | None], overall: bool = False) -> dict[str, Any]:
    counts = sorted({score.n for score in scores if score is not None})
    return {
        "name": name.replace("_", " "),
        "overall": overall,
        "n": " / ".join(map(str, counts)) or "–",
        "cells": [None if score is None else _cell(score) for score in scores],
    }


def _cell(score: Score | Average) -> dict[str, Any]:
    cell = {"value": percent(score.value), "interval": interval(score), "unparsed": 0, "published": None}
    if isinstance(score, Score):
        cell |= {"unparsed": score.unparsed, "published": None if score.published is None else percent(score.published)}
    return cell


def _difference(d: Difference) -> dict[str, Any]:
    return {
        "task": d.task,
        "run": d.run,
        "n": d.n,
        "value": points(d.value),
        "interval": f"{points(d.low)} to {points(d.high)}" + ("" if d.reliable else f", {UNRELIABLE}"),
        "mcnemar": "–" if d.mcnemar is None else f"{d.mcnemar:.3f}",
        "needed": "–" if d.needed is None else f"{d.needed:,}",
    }


def _cost_rows(runs: Sequence[EvaluatedRun], label: str) -> list[dict[str, Any]]:
    """Tokens and seconds of a question of one task: a label and one cell per run."""
    results = [run.tasks.get(label) for run in runs]
    tokens = [("visual tokens", "visual_before", "visual_after"), ("tokens in the language model", "tokens_before", "tokens_after")]
    rows = [{"name": name, "cells": [_kept(r, before, after) for r in results]} for name, before, after in tokens]
    timed = [{} if r is None or not r.seconds.get("questions") else r.seconds for r in results]
    for part in dict.fromkeys(p for seconds in timed for p in seconds if p != "questions"):
        cells = [f"{1000 * s[part] / s['questions']:.1f} ms" if part in s else "–" for s in timed]
        rows.append({"name": PARTS.get(part, part), "cells": cells})
    return [{"task": label if i == 0 else ""} | row for i, row in enumerate(rows)]


def _kept(result: TaskResult | None, before: str, after: str) -> str:
    """Means over the questions whose video could be read."""
    seen = [] if result is None else [r for r in result.records if "failed" not in r]
    if not seen:
        return "–"
    return f"{sum(r[after] for r in seen) / len(seen):.1f} of {sum(r[before] for r in seen) / len(seen):.1f}"


def _errors(runs: Sequence[EvaluatedRun], labels: Sequence[str], limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The data of the error browser, and a sentence for each task that has more errors than it shows."""
    found, sentences = [], []
    for label in labels:
        those = {run.name: run.tasks[label] for run in runs if label in run.tasks}
        metric = next(iter(those.values())).metric
        cases, total = wrong_questions({name: r.records for name, r in those.items()}, metric, limit)
        found.append({"name": label, "cases": cases})
        if total > len(cases):
            sentences.append(f"{label}: {total} questions were not right in every run; {len(cases)} of them, taken evenly, are listed.")
    return found, sentences
