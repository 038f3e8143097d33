"""From finished runs to `report.html`: collects numbers with the metrics, draws charts, fills the template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from olmo.eval.metrics import METRICS
from olmo.eval.report.figures import accuracy_bars, loss_curves
from olmo.eval.report.page import PARTS, interval, named_rows, percent, points, write_page
from olmo.eval.statistics import OVERALL, UNRELIABLE, Score, paired_difference, score
from olmo.exceptions import OLMoDataError
from olmo.inference.show import film_strip
from olmo.nn.pruning_plan import CellGrid
from olmo.pages.drawing import run_colours

LOSS_KEY = "train/CrossEntropyLoss"


@dataclass
class ReportRun:
    """One trained and evaluated model."""

    name: str
    records: list[dict[str, Any]]
    """Saved predictions on the held-out questions."""
    metric: str
    """Name of the metric in `olmo.eval.metrics.METRICS`; the same for all runs of a report."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(step, training loss)."""
    train_seconds: float | None = None
    timing: dict[str, float] = field(default_factory=dict)
    """Seconds of the evaluation by part, and `questions` = how many questions they cover."""
    costs: dict[str, str] = field(default_factory=dict)
    """More rows of the table of tokens and time."""
    facts: dict[str, str] = field(default_factory=dict)
    """Settings worth printing, in order."""


@dataclass
class SampleVideo:
    """One held-out video, what was kept of it, and what every run answered."""

    title: str
    frames: np.ndarray
    """[F, H, W, 3] uint8."""
    timestamps: Sequence[float]
    keep_cells: np.ndarray | None
    """[F, C] bool."""
    scores: np.ndarray | None
    """[F, C]."""
    grid: CellGrid
    questions: list[dict[str, Any]]
    """Mappings with `question`, `answer` and `predictions` {run name: text}."""


def read_curve(path: str | Path, key: str = LOSS_KEY) -> list[tuple[int, float]]:
    """(step, value) of one logged quantity; where a step was logged twice (after a resume) the later line counts."""
    points: dict[int, float] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row.get(key) is not None:  # null = not finite
                    points[int(row["step"])] = float(row[key])
    except FileNotFoundError:
        raise OLMoDataError(f"there is no training log {path}") from None
    except json.JSONDecodeError as err:
        raise OLMoDataError(f"{path} is not a training log in JSON lines: {err}") from None
    return sorted(points.items())


def build_report(
    path: str | Path,
    *,
    title: str,
    runs: Sequence[ReportRun],
    samples: Sequence[SampleVideo],
    settings: Mapping[str, Mapping[str, str]],
    commands: Sequence[str] = (),
    type_order: Sequence[str] = (),
    verdict: Sequence[str] = (),
) -> Path:
    """Write the page. The first run is the reference that the others are compared with; types come in `type_order`, and
    `verdict` are sentences about the whole."""
    scores = {run.name: score(METRICS[run.metric], run.records) for run in runs}
    types = list(dict.fromkeys(t for by_type in scores.values() for t in by_type if t not in OVERALL))
    types.sort(key=lambda t: type_order.index(t) if t in type_order else len(type_order))
    only_types = {name: {t: by_type[t] for t in types if t in by_type} for name, by_type in scores.items()}
    tokens = {run.name: token_means(run.records) for run in runs}
    colours = run_colours([r.name for r in runs])
    curves = {r.name: r.curve for r in runs if r.curve}
    return write_page(
        path,
        "report.html.j2",
        title=title,
        date=datetime.now().strftime("%d %B %Y, %H:%M"),
        runs=runs,
        colours=colours,
        tiles=_tiles(runs, scores, tokens),
        accuracy_chart=accuracy_bars(only_types, colours),
        accuracy_rows=[_accuracy_row(t, scores) for t in [*types, "average"]],
        differences=[_difference(runs[0], run) for run in runs[1:]],
        loss_chart=loss_curves(curves, colours, "cross-entropy per answer token") if curves else None,
        cost=_cost_rows(runs, list(tokens.values())),
        samples=[_sample(s, runs) for s in samples],
        settings=settings,
        facts=named_rows([r.facts for r in runs]),
        commands=commands,
        verdict=verdict,
    )


def token_means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean tokens of a question: the whole prompt before and after pruning, and the visual tokens among them."""
    keys = ("tokens_before", "tokens_after", "visual_before", "visual_after")
    return {k: float(np.mean([r[k] for r in records])) for k in keys}


def _tiles(
    runs: Sequence[ReportRun], scores: Mapping[str, Mapping[str, Score]], tokens: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    tiles = [
        {
            "label": "right answers, mean of types",
            "values": [(r.name, percent(scores[r.name]["average"].value), interval(scores[r.name]["average"])) for r in runs],
        },
        {
            "label": "visual tokens per question",
            "values": [(r.name, f"{tokens[r.name]['visual_after']:.0f}", f"of {tokens[r.name]['visual_before']:.0f}") for r in runs],
        },
        {
            "label": "tokens in the language model",
            "values": [(r.name, f"{tokens[r.name]['tokens_after']:.0f}", f"of {tokens[r.name]['tokens_before']:.0f}") for r in runs],
        },
    ]
    if all(r.train_seconds is not None for r in runs):
        tiles.append({"label": "training time", "values": [(r.name, _duration(r.train_seconds), "") for r in runs]})
    return tiles


def _accuracy_row(name: str, scores: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    cells = [by_type.get(name) for by_type in scores.values()]
    first = next(c for c in cells if c is not None)
    return {
        "name": {"average": "mean of types"}.get(name, name.replace("_", " ")),
        "overall": name in OVERALL,
        "chance": None if first.chance is None else percent(first.chance),
        "constant": None if first.constant is None else percent(first.constant),
        "n": first.n,
        "cells": [None if c is None else {"value": percent(c.value), "interval": interval(c)} for c in cells],
    }


def _difference(reference: ReportRun, run: ReportRun) -> dict[str, str]:
    delta = paired_difference(METRICS[run.metric], reference.records, run.records)
    return {
        "text": f"{run.name} minus {reference.name}",
        "value": f"{points(delta.value)} points",
        "interval": f"{points(delta.low)} to {points(delta.high)}" + ("" if delta.reliable else f", {UNRELIABLE}"),
        "n": str(delta.n),
    }


def _cost_rows(runs: Sequence[ReportRun], tokens: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows of the table of tokens and seconds: a label and one cell per run."""
    rows = [
        {"name": "visual tokens per question", "cells": [f"{t['visual_after']:.1f} of {t['visual_before']:.1f}" for t in tokens]},
        {"name": "tokens per question, text included", "cells": [f"{t['tokens_after']:.1f} of {t['tokens_before']:.1f}" for t in tokens]},
    ]
    if any(r.train_seconds is not None for r in runs):
        rows.append({"name": "training", "cells": ["–" if r.train_seconds is None else _duration(r.train_seconds) for r in runs]})
    rows += named_rows([r.costs for r in runs])
    parts = [p for p in dict.fromkeys(k for r in runs for k in r.timing) if p != "questions"]
    for part in parts:
        cells = [f"{1000 * r.timing[part] / r.timing['questions']:.1f} ms" if part in r.timing else "–" for r in runs]
        rows.append({"name": f"one question: {PARTS.get(part, part)}", "cells": cells})
    return rows


def _sample(sample: SampleVideo, runs: Sequence[ReportRun]) -> dict[str, Any]:
    questions = []
    for q in sample.questions:
        said = [(run, q["predictions"][run.name]) for run in runs]
        answers = [{"text": text, "right": METRICS[run.metric].graded(q | {"prediction": text}).value == 1} for run, text in said]
        questions.append({"question": q["question"], "answer": q["answer"], "answers": answers})
    strip = film_strip(sample.frames, sample.timestamps, sample.keep_cells, sample.scores, sample.grid, max_frames=16)
    return {"title": sample.title, "strip": strip, "questions": questions}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else (f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min")
