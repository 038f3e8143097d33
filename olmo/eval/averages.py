"""Means over the tasks of a group, written where its results lie once all of them have been evaluated together."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from olmo.eval.metrics import METRICS
from olmo.eval.results import PREDICTIONS
from olmo.eval.statistics import UNRELIABLE, Average, average_of_tasks
from olmo.eval.task import Task
from olmo.eval.task_table import AVERAGES
from olmo.eval.tasks import resolve_tasks
from olmo.json_lines import read_records, write_whole


@dataclass(frozen=True)
class Result:
    """One task that has been evaluated."""

    task: Task
    folder: Path
    asked: frozenset[str] | None = None
    """Ids of the questions that count, where the folder may hold answers to more; None = all."""

    def records(self) -> list[dict]:
        found = read_records(self.folder / PREDICTIONS)
        return found if self.asked is None else [r for r in found if r["example_id"] in self.asked]


def averages_of(group: str, results: Mapping[str, Result], compat: bool = False) -> dict[str, Average] | None:
    """The means that are reported for a group; None unless every task of it is among the results (label -> result)."""
    members = {task.name: task.label for task in resolve_tasks(group)}
    if not all(label in results for label in members.values()):
        return None
    scored = {name: (METRICS[results[label].task.metric], results[label].records()) for name, label in members.items()}
    return {mean: average_of_tasks([scored[name] for name in names], compat) for mean, names in AVERAGES[group].items()}


def write_averages(results: Mapping[str, Result], compat: bool = False) -> list[str]:
    """Write a file for every group whose tasks are all there; returns lines for the terminal."""
    lines: list[str] = []
    for group in AVERAGES:
        found = averages_of(group, results, compat)
        if found is None:
            continue
        folders = {task.label: results[task.label].folder for task in resolve_tasks(group)}
        file = average_file(group, list(folders.values()))
        content = {"group": group, "compat": compat, "averages": {name: asdict(average) for name, average in found.items()}}
        content["results"] = {label: folder.name for label, folder in folders.items()}
        write_whole(file, json.dumps(content, indent=2) + "\n")
        lines.append(f"{group}, mean of tasks")
        lines += [f"  {name:<{max(map(len, found))}}  {format_average(average)}" for name, average in found.items()]
        lines.append(f"  {file}")
    return lines


def average_file(group: str, folders: Sequence[Path]) -> Path:
    """Beside the result folders, called after what they are averages of."""
    mark = hashlib.sha256("\n".join(folder.name for folder in folders).encode()).hexdigest()[:8]
    return folders[0].parent / f"averages-{group}-{mark}.json"


def format_average(average: Average) -> str:
    interval = f"[{100 * average.low:5.1f}, {100 * average.high:5.1f}]"
    note = "" if average.reliable else f"  {UNRELIABLE}"
    return f"{100 * average.value:5.1f} %  {interval}  {average.tasks} tasks, {average.n} questions{note}"
