"""Asking every question of a task and turning the answers into numbers."""

import logging
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from olmo.data.failures import FailureLog, cause_and_file
from olmo.eval.metrics import METRICS
from olmo.eval.questions import Question, QuestionBatch, QuestionBatches, share_of
from olmo.eval.results import ResultFolder
from olmo.eval.statistics import Score, format_table, score
from olmo.eval.tasks import Task
from olmo.exceptions import OLMoDataError
from olmo.inference.api import VideoQA
from olmo.version import __version__

log = logging.getLogger(__name__)

MAX_BAD_FRACTION = 0.01
"""Share of unreadable questions that an evaluation tolerates. Fixed: scores with different shares left out do not compare."""

Progress = Callable[[int, int], None]
"""Called with (questions answered, questions of this rank)."""


@dataclass
class Answered:
    """What one rank did."""

    seconds: dict[str, float]
    """Seconds by part, with `questions` = how many of the answers they cover (the first batch warms up and is left out)."""
    failures: list[dict[str, str]]
    """Skipped questions, by file and cause."""


def answer_questions(
    qa: VideoQA,
    questions: Sequence[Question],
    folder: ResultFolder,
    *,
    batch_size: int,
    max_new_tokens: int,
    num_workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> Answered:
    """Answer this rank's share of the questions, those that are not answered yet, and append the answers to the folder."""
    mine = share_of(questions, folder.rank, folder.world_size)
    finished = {r["example_id"] for r in folder.read_predictions()}
    todo = [q for q in mine if q.record["example_id"] not in finished]
    done = len(mine) - len(todo)
    if done:
        log.info("%d of %d questions are answered already", done, len(mine))
    bad = FailureLog(MAX_BAD_FRACTION, "the fixed limit of an evaluation ({:g})")
    skipped: list[dict[str, str]] = []
    parts: list[dict[str, float]] = []
    progress(done, len(mine))
    try:
        for item in QuestionBatches(todo, qa.reader, batch_size).iterate(num_workers):
            parts.append(_answer_batch(qa, item, folder, max_new_tokens))
            bad.record(len(item.records) + len(item.failures), item.failures)
            skipped += [_failure(f) for f in item.failures]
            done += len(item.records) + len(item.failures)
            progress(done, len(mine))
    finally:
        folder.close()
    return Answered(_sum(parts[1:] or parts), skipped)


def _answer_batch(qa: VideoQA, item: QuestionBatch, folder: ResultFolder, max_new_tokens: int) -> dict[str, float]:
    if item.batch is None:
        return {"questions": 0, "video": item.seconds}
    start = time.perf_counter()
    output = qa.generate(item.batch, max_new_tokens)
    answers = zip(item.records, qa.decode(output), output.tokens_before, output.tokens_after, strict=True)
    folder.append(record | {"prediction": text, "tokens_before": before, "tokens_after": after} for record, text, before, after in answers)
    wall = time.perf_counter() - start
    known = output.seconds
    other = max(0.0, wall - sum(known.values()))
    return {"questions": len(item.records), "video": item.seconds, **known, "other": other}


def _sum(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for key, value in part.items():
            total[key] += value
    return dict(total)


def _failure(err: OLMoDataError) -> dict[str, str]:
    cause, file = cause_and_file(err)
    return {"file": file, "cause": cause, "message": str(err)}


def finish(
    folder: ResultFolder,
    task: Task,
    questions: Sequence[Question],
    answered: Sequence[Answered],
    *,
    max_examples: int | None,
    eval_config: dict[str, Any],
    model_config: dict[str, Any],
) -> dict[str, Any]:
    """Rank 0, when all have answered: merge the files, compute the metrics, write `metrics.json` and return its content."""
    asked = {q.record["example_id"] for q in questions}
    records = [r for r in folder.merge() if r["example_id"] in asked]
    skipped = [f for a in answered for f in a.failures]
    if not records:
        raise OLMoDataError(f"{task.label}: no question could be answered ({len(skipped)} were skipped because of unreadable videos)")
    metric = METRICS[task.metric]
    scores = score(metric, records)
    content = {
        "task": task.label,
        "metric": task.metric,
        "headline": metric.headline,
        "metrics": {name: s.value for name, s in scores.items()},
        "scores": {name: s.asdict() for name, s in scores.items()},
        "questions": len(records),
        "skipped": skipped,
        "max_examples": max_examples,
        "tokens_before": _mean(records, "tokens_before"),
        "tokens_after": _mean(records, "tokens_after"),
        "seconds": _sum([a.seconds for a in answered]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
        "eval_config": eval_config,
        "model_config": model_config,
    }
    folder.write_metrics(content)
    return content


def _mean(records: Sequence[dict[str, Any]], key: str) -> float:
    return sum(r[key] for r in records) / len(records)


def versions() -> dict[str, str]:
    """What a number depends on besides its settings."""
    return {"olmo": __version__, "python": platform.python_version(), "torch": torch.__version__}


def format_scores(task: Task, content: dict[str, Any]) -> list[str]:
    """What a terminal shows: the table of scores, and what the answers took."""
    lines = [f"{task.title} ({task.split}), {content['questions']} questions"]
    lines += format_table({name: Score.from_dict(raw) for name, raw in content["scores"].items()})
    lines.append(f"  tokens per question: {content['tokens_before']:.1f} before pruning, {content['tokens_after']:.1f} after")
    if content["skipped"]:
        causes = defaultdict(int)
        for failure in content["skipped"]:
            causes[failure["cause"]] += 1
        lines.append("  skipped: " + ", ".join(f"{n} {cause}" for cause, n in causes.items()))
    return lines
