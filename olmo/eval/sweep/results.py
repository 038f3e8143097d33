"""What the evaluations of a sweep left behind, as one record per point and one per setting."""

import json
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from olmo.eval.results import METRICS, newest_results
from olmo.eval.sweep.plan import Point
from olmo.eval.task import Task
from olmo.exceptions import OLMoEnvironmentError

READING = "video"
"""The timed part in which a video is decoded and cut into patches: on other cores, often while the model computes."""


def read_point(point: Point, folder: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    """The record of a point whose evaluation has ended: its tasks, and their mean."""
    by_task = {task.label: task_result(task, folder) for task in tasks}
    rows = list(by_task.values())
    half = [sqrt(sum((r["value"] - r[end]) ** 2 for r in rows)) / len(rows) for end in ("low", "high")]
    value = fmean(r["value"] for r in rows)
    return {
        "name": point.name,
        "checkpoint": point.checkpoint,
        "label": point.label,
        "frames": point.frames,
        "topk": point.topk,
        "method": point.method,
        "seed": point.seed,
        # Tasks have different videos, so their errors are independent and add up in squares.
        "value": value,
        "low": value - half[0],
        "high": value + half[1],
        "reliable": all(r["reliable"] for r in rows),
        **{key: mean_known([r[key] for r in rows]) for key in ("tokens", "tokens_before", "seconds", "reading")},
        "tasks": by_task,
    }


def task_result(task: Task, folder: Path) -> dict[str, Any]:
    """Score, tokens and seconds of one task below the folder of a point."""
    found = newest_results(folder, f"**/predictions*-{task.name}-{task.split}-*")
    if found is None:
        raise OLMoEnvironmentError(f"the evaluation left no results of {task.label} below {folder}")
    content = json.loads((found / METRICS).read_text(encoding="utf-8"))
    score = content["scores"][content["headline"]]
    timed = content["seconds"]
    asked = timed.get("questions", 0)
    in_model = sum(seconds for part, seconds in timed.items() if part not in ("questions", READING))
    return {
        **{key: score[key] for key in ("value", "low", "high", "n", "reliable", "unparsed")},
        "unreadable": content["failed"]["questions"],
        "tokens": content["tokens_after"],
        "tokens_before": content["tokens_before"],
        "seconds": in_model / asked if asked else None,  # nothing was timed where a killed run had all answers already
        "reading": timed.get(READING, 0.0) / asked if asked else None,
    }


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean, or None where one of them is not known."""
    return None if None in values else fmean(values)


def over_seeds(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per setting. Of several seeds it holds the means, also of the ends of the intervals (all seeds were asked the same
    questions, so there are no more of them), and the spread of the seeds."""
    together: dict[tuple, list[Mapping[str, Any]]] = {}
    for record in records:
        together.setdefault((record["label"], record["frames"], record["topk"], record["method"]), []).append(record)
    settings = []
    for rows in together.values():
        values = [r["value"] for r in rows]
        numbers = ("value", "low", "high", "tokens", "tokens_before", "seconds", "reading")
        settings.append(
            {
                **{key: rows[0][key] for key in ("label", "frames", "topk", "method")},
                **{key: mean_known([r[key] for r in rows]) for key in numbers},
                "reliable": all(r["reliable"] for r in rows),
                "seeds": [r["seed"] for r in rows if r["seed"] is not None],
                "spread": [min(values), max(values)],
                "tasks": {
                    t: {"value": fmean(r["tasks"][t]["value"] for r in rows), "n": rows[0]["tasks"][t]["n"]} for t in rows[0]["tasks"]
                },
            }
        )
    return settings


def pareto_front(settings: Sequence[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    """The settings that no other beats: none is at least as good and costs less, or is better at the same cost. By rising cost."""
    front: list[Mapping[str, Any]] = []
    for setting in sorted((s for s in settings if s[cost] is not None), key=lambda s: (s[cost], -s["value"])):
        if not front or setting["value"] > front[-1]["value"]:
            front.append(setting)
    return front
