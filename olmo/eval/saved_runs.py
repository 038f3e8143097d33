"""Evaluations that are over, read from their result folders."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo.eval.judges.merge import with_judgements
from olmo.eval.metrics import METRICS, Metric
from olmo.eval.results import METRICS as FINISHED
from olmo.eval.results import PREDICTIONS, SETTINGS
from olmo.eval.task_table import AVERAGES, TASKS
from olmo.eval.tasks import own_task
from olmo.exceptions import OLMoDataError
from olmo.json_lines import read_records


@dataclass(frozen=True)
class Run:
    """One task of one run, as its result folder holds it."""

    path: Path
    label: str
    """Task and split."""
    metric: Metric
    settings: dict[str, Any]
    records: list[dict[str, Any]]
    content: dict[str, Any]
    """What `metrics.json` says."""


def task_means() -> dict[str, list[str]]:
    """The means over tasks that results are given as: name -> task labels."""
    return {mean: [TASKS[name].label for name in names] for means in AVERAGES.values() for mean, names in means.items()}


def read_runs(path: str | Path) -> dict[str, Run]:
    """Task label -> run, of a result folder or of all below a folder. Errors: none there, one unfinished, a task twice."""
    base = Path(path)
    files = [base / PREDICTIONS] if (base / PREDICTIONS).is_file() else sorted(base.rglob(PREDICTIONS))
    if not files:
        raise OLMoDataError(f"{base} holds no result folder (a folder with {PREDICTIONS})")
    runs: dict[str, Run] = {}
    for file in files:
        run = read_run(file.parent)
        if run.label in runs:
            raise OLMoDataError(f"{base} holds two results of {run.label}: {runs[run.label].path} and {run.path}; name one of them")
        runs[run.label] = run
    return runs


def read_run(folder: Path) -> Run:
    """The finished result folder of one task."""
    if not (folder / FINISHED).is_file():
        raise OLMoDataError(f"{folder} is not finished: it has no {FINISHED}; run the evaluation to its end")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        content = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
        records = with_judgements(read_records(folder / PREDICTIONS), folder)
    except FileNotFoundError:
        raise OLMoDataError(f"{folder} has no {SETTINGS}, so nothing tells which task it is") from None
    except json.JSONDecodeError as err:
        raise OLMoDataError(f"{folder} holds a file that is no JSON: {err}") from None
    return Run(folder, settings["task"], metric_of(folder, settings, records), settings, records, content)


def metric_of(folder: Path, settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Metric:
    """The metric of the task that a result folder is of."""
    file = (settings.get("data") or {}).get("file")
    task = own_task(file) if file else TASKS.get(settings["task"].partition(":")[0])
    if task is None or task.metric not in METRICS:
        raise OLMoDataError(f"{folder}: {settings['task']} has no metric that reads saved predictions")
    if task.judge and not any("judgement" in r for r in records):
        raise OLMoDataError(
            f"{folder}: the answers of {settings['task']} count only with a judge's verdicts; run scripts/judge.py on it first"
        )
    return METRICS[task.metric]
