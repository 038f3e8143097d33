"""Metrics of a result folder computed again, now that there are judgements."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from olmo.eval.judges import JUDGE_METRICS
from olmo.eval.judges.merge import read_judgements, read_predictions, with_judgements
from olmo.eval.metrics import METRICS as METRIC_OF
from olmo.eval.results import METRICS, SETTINGS
from olmo.eval.statistics import score
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError


def task_of(folder: Path) -> str | None:
    """`name:split` of the task whose answers lie in a folder; None where its settings do not tell."""
    settings = _read(folder / SETTINGS)
    task = settings.get("task") if settings else None
    return task if isinstance(task, str) else None


def rescore(folder: Path, judge: str, model: str) -> dict[str, Any] | None:
    """Replace the scores in `metrics.json` by those of the judge's metric, for the records with their judgements; note who judged.

    Returns the new content; None where there is no `metrics.json`, because the evaluation has not finished.
    """
    path = folder / METRICS
    content = _read(path)
    if content is None:
        return None
    metric = METRIC_OF[JUDGE_METRICS[judge]]
    records = with_judgements(read_predictions(folder), folder, judge, model)
    scores = score(metric, records, compat=content.get("compat", False))
    lines = {x.example_id: x for x in read_judgements(folder) if (x.judge, x.model) == (judge, model)}
    content |= {
        "status": "scored",
        "metric": JUDGE_METRICS[judge],
        "headline": metric.headline,
        "metrics": {name: found.value for name, found in scores.items()},
        "scores": {name: found.asdict() for name, found in scores.items()},
        "questions": len(records),
        "judge": {
            "judge": judge,
            "model": model,
            "judged": len(lines),
            "unparsed": sum(x.unparsed for x in lines.values()),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        },
    }
    part = path.with_name(f"{path.name}.tmp")
    try:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as err:
        raise OLMoEnvironmentError(f"cannot write {path}: {err.strerror or err}") from None
    return content


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise OLMoDataError(f"{path} is not a JSON file: {err}") from None
    if not isinstance(content, dict):
        raise OLMoDataError(f"{path} should hold a JSON object")
    return content
