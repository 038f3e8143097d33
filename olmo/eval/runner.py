"""Asking every question of a task and turning the answers into numbers."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from olmo.data.failures import FailureLog
from olmo.eval.kept_cells import pack_cells
from olmo.eval.metrics import METRICS
from olmo.eval.questions import Question, QuestionBatch, QuestionBatches, kept_per_frame, share_of
from olmo.eval.results import ResultFolder
from olmo.eval.statistics import Score, format_table, score
from olmo.eval.task import Task
from olmo.inference.api import VideoQA
from olmo.inference.generation import GenerationOutput
from olmo.provenance import versions

log = logging.getLogger(__name__)

MAX_BAD_FRACTION = 0.01
"""Share of questions with unreadable videos that an evaluation tolerates: they count as wrong, so many of them are a wrong number."""

Progress = Callable[[int, int], None]
"""Called with (questions answered, questions of this rank)."""


def unanswered(questions: Sequence[Question], folder: ResultFolder, retry_failed: bool = False) -> list[Question]:
    """Those of the questions that the folder has no answer for; `retry_failed`: also those whose video could not be read."""
    done = {r["example_id"] for r in folder.read_predictions() if not (retry_failed and "failed" in r)}
    return [q for q in questions if q.record["example_id"] not in done]


def answer_questions(
    qa: VideoQA,
    questions: Sequence[Question],
    folder: ResultFolder,
    *,
    batch_size: int,
    max_new_tokens: int,
    num_workers: int = 0,
    retry_failed: bool = False,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Answer this rank's share of the questions, those that are not answered yet, and append the answers to the folder.

    A question whose video cannot be read gets an empty answer. More of these than `max_bad_fraction` end the run with
    OLMoDataError, after what was answered is on disk. Returns seconds by part, with `questions` = how many of the answers they
    cover (the first batch warms up and is left out).
    """
    mine = share_of(questions, folder.rank, folder.world_size)
    todo = unanswered(mine, folder, retry_failed)
    done = len(mine) - len(todo)
    if done:
        log.info("%d of %d questions are answered already", done, len(mine))
    left, asked = ({q.record["example_id"] for q in some} for some in (todo, mine))
    bad = failure_account([r for r in folder.read_predictions() if r["example_id"] in asked - left], max_bad_fraction)
    bad.check()  # starting again and again must not get past the limit
    parts: list[dict[str, float]] = []
    progress(done, len(mine))
    try:
        for item in QuestionBatches(todo, qa.reader, batch_size).iterate(num_workers):
            parts.append(_answer_batch(qa, item, folder, max_new_tokens))
            bad.record(len(item.records) + len(item.failures), item.failures)
            done += len(item.records) + len(item.failures)
            progress(done, len(mine))
    finally:
        folder.close()
    return sum_parts(parts[1:] or parts)


def failure_account(records: Sequence[dict[str, Any]], limit: float) -> FailureLog:
    """What could not be read among the records of answered questions."""
    account = FailureLog(limit, "--max_bad_fraction={:g}")
    failed = [r["failed"] for r in records if "failed" in r]
    account.load_state_dict({"reads": len(records), "by_cause": Counter(f["cause"] for f in failed)})
    account.files = {f["file"] or f["message"]: f["message"] for f in failed}
    return account


def _answer_batch(qa: VideoQA, item: QuestionBatch, folder: ResultFolder, max_new_tokens: int) -> dict[str, float]:
    if item.batch is None:
        folder.append(item.failed)
        return {"questions": 0, "video": item.seconds}
    start = time.perf_counter()
    output = qa.generate(item.batch, max_new_tokens)
    folder.append([*with_answers(item, output, qa.decode(output)), *item.failed])
    wall = time.perf_counter() - start
    known = output.seconds
    other = max(0.0, wall - sum(known.values()))
    return {"questions": len(item.records), "video": item.seconds, **known, "other": other}


def with_answers(item: QuestionBatch, output: GenerationOutput, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a batch with what the model answered, and what it kept of every frame."""
    rows = None if output.vision is None or output.vision.keep_rows is None else output.vision.keep_rows.cpu().numpy()
    found = []
    for i, (record, text) in enumerate(zip(item.records, texts, strict=True)):
        row = item.batch.layout[i]
        kept = {"kept": kept_per_frame(row.segments, None if rows is None else rows[i])}
        kept |= {} if rows is None else {"kept_cells": pack_cells(rows[i][: row.num_pooled])}
        tokens = {"tokens_before": output.tokens_before[i], "tokens_after": output.tokens_after[i]}
        found.append(record | kept | {"prediction": text} | tokens)
    return found


def sum_parts(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds by part, added up."""
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for key, value in part.items():
            total[key] += value
    return dict(total)


def finish(
    folder: ResultFolder,
    task: Task,
    questions: Sequence[Question],
    *,
    seconds: dict[str, float],
    max_examples: int | None,
    compat: bool = False,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    eval_config: dict[str, Any],
    model_config: dict[str, Any],
) -> dict[str, Any]:
    """Rank 0, when all have answered: merge the files, compute the metrics, write `metrics.json` and return its content.

    No metrics, but OLMoDataError, where more than `max_bad_fraction` of all videos cannot be read.
    """
    asked = {q.record["example_id"] for q in questions}
    records = [r for r in folder.merge() if r["example_id"] in asked]
    failure_account(records, max_bad_fraction).check()
    content = {
        **scored(task, records, compat),
        "max_examples": max_examples,
        "compat": compat,
        "seconds": seconds,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
        "starts": folder.read_starts(),
        "eval_config": eval_config,
        "model_config": model_config,
    }
    folder.write_metrics(content)
    return content


def scored(task: Task, records: Sequence[dict[str, Any]], compat: bool = False) -> dict[str, Any]:
    """What the records of a task amount to: its scores, if it has a metric that needs no judge, and what is known without one."""
    status = "needs judge" if task.judge else "predictions only" if task.metric is None else "scored"
    metric = METRICS[task.metric] if status == "scored" else None
    scores = {} if metric is None else score(metric, records, compat)
    seen = [r for r in records if "failed" not in r]
    return {
        "task": task.label,
        "status": status,
        "metric": task.metric,
        "headline": None if metric is None else metric.headline,
        "metrics": {name: found.value for name, found in scores.items()},
        "scores": {name: found.asdict() for name, found in scores.items()},
        "questions": len(records),
        "failed": failures(records),
        "tokens_before": _mean(seen, "tokens_before"),
        "tokens_after": _mean(seen, "tokens_after"),
    }


def failures(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many questions could not be asked, and each file to blame once."""
    failed = [r["failed"] for r in records if "failed" in r]
    return {"questions": len(failed), "files": list({f["file"] or f["message"]: f for f in failed}.values())}


def _mean(records: Sequence[dict[str, Any]], key: str) -> float:
    return sum(r[key] for r in records) / len(records) if records else 0.0


def format_scores(task: Task, content: dict[str, Any]) -> list[str]:
    """What a terminal shows: the table of scores, and what the answers took."""
    lines = [f"{task.title} ({task.split}), {content['questions']} questions"]
    if content["scores"]:
        lines += format_table({name: Score.from_dict(raw) for name, raw in content["scores"].items()})
    else:
        lines.append(f"  {content['status']}: the predictions are written")
    lines.append(f"  tokens per question: {content['tokens_before']:.1f} before pruning, {content['tokens_after']:.1f} after")
    if failed := content["failed"]["questions"]:
        files = content["failed"]["files"]
        causes = ", ".join(f"{n} {cause}" for cause, n in Counter(f["cause"] for f in files).items())
        first = files[0]["file"] or files[0]["message"]
        lines.append(f"  counted as wrong because their videos cannot be read: {failed} questions ({causes}), first {first}")
    return lines
