"""What the error browser of a report shows: the questions that some run got wrong, with what each run saw and said."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmo.eval.metrics.metric import Metric, Record

RIGHT = 1.0


def wrong_questions(runs: Mapping[str, Sequence[Record]], metric: Metric, limit: int) -> tuple[list[dict[str, Any]], int]:
    """(entries of at most `limit` questions in the order of the data set, how many questions some run got wrong).

    Where there are more than `limit`, they are taken evenly from the whole, so that no part of a data set is hidden.
    """
    by_run = {name: {r["example_id"]: r for r in records} for name, records in runs.items()}
    order = {id_: r["order"] for records in by_run.values() for id_, r in records.items()}
    wrong = [id_ for id_ in sorted(order, key=order.__getitem__) if any(_is_wrong(r.get(id_), metric) for r in by_run.values())]
    chosen = wrong
    if len(wrong) > limit:
        chosen = [wrong[i] for i in np.linspace(0, len(wrong) - 1, limit).round().astype(int)]
    return [_entry(id_, by_run, metric) for id_ in chosen], len(wrong)


def _is_wrong(record: Record | None, metric: Metric) -> bool:
    return record is not None and metric.graded(record).value < RIGHT


def _entry(id_: str, by_run: Mapping[str, Mapping[str, Record]], metric: Metric) -> dict[str, Any]:
    said = {name: records[id_] for name, records in by_run.items() if id_ in records}
    first = next(iter(said.values()))
    return {
        "id": id_,
        "video": first["video"],
        "type": first["question_type"],
        "question": first["question"],
        "options": list(first.get("options") or ()),
        "truth": first["answer"] if isinstance(first["answer"], str) else " | ".join(map(str, first["answer"] or ())),
        "answers": [_answer(name, record, metric) for name, record in said.items()],
    }


def _answer(name: str, record: Record, metric: Metric) -> dict[str, Any]:
    grade = metric.graded(record)
    return {
        "run": name,
        "text": record["prediction"],
        "value": grade.value,
        "parsed": grade.parsed,
        "failed": (record.get("failed") or {}).get("message"),
        "prompt": record.get("prompt", ""),
        "times": [round(float(t), 2) for t in record.get("frame_times") or ()],
        "kept": list(record.get("kept") or ()),
        "tokens": [record.get("tokens_before"), record.get("tokens_after")],
    }
