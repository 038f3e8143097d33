"""What the evaluations of a sweep left behind, as one record per point and one per setting."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from olmo.eval.metrics import METRICS
from olmo.eval.results import METRICS as FINISHED
from olmo.eval.results import PREDICTIONS, newest_results
from olmo.eval.statistics import average_of_tasks
from olmo.eval.sweep.plan import Point
from olmo.eval.task import Task
from olmo.exceptions import OLMoEnvironmentError
from olmo.json_lines import read_records

READING = "video"
"""The timed part in which a video is decoded and cut into patches: on other cores, often while the model computes."""


def read_point(point: Point, folder: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    """The record of a point whose evaluation has ended: its tasks, and their mean."""
    folders = {task.label: result_of(task, folder) for task in tasks}
    by_task = {label: task_result(found) for label, found in folders.items()}
    rows = list(by_task.values())
    mean = average_of_tasks([(METRICS[task.metric], read_records(folders[task.label] / PREDICTIONS)) for task in tasks])
    return {
        "name": point.name,
        "checkpoint": point.checkpoint,
        "label": point.label,
        "frames": point.frames,
        "topk": point.topk,
        "method": point.method,
        "seed": point.seed,
        **{key: getattr(mean, key) for key in ("value", "low", "high", "reliable")},
        **{key: mean_known([r[key] for r in rows]) for key in ("tokens", "tokens_before", "seconds", "reading")},
        "tasks": by_task,
    }


def result_of(task: Task, folder: Path) -> Path:
    """Where the results of one task lie below the folder of a point."""
    found = newest_results(folder, f"**/predictions*-{task.name}-{task.split}-*")
    if found is None:
        raise OLMoEnvironmentError(f"the evaluation left no results of {task.label} below {folder}")
    return found


def task_result(folder: Path) -> dict[str, Any]:
    """Score, tokens and seconds of one task."""
    content = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
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
