"""What the error browser of a report shows: the questions that some run got wrong, with what each run saw and said."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmo.eval.metrics.metric import Metric, Record
from olmo.inference.show import film_strip
from olmo.nn.pruning_plan import CellGrid

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


def pack_cells(keep: np.ndarray) -> dict[str, Any]:
    """Bool [F, C] as a few hundred bytes of text."""
    return {"shape": list(keep.shape), "bits": base64.b64encode(np.packbits(keep).tobytes()).decode()}


def unpack_cells(packed: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `pack_cells`."""
    frames, cells = packed["shape"]
    bits = np.frombuffer(base64.b64decode(packed["bits"]), dtype=np.uint8)
    return np.unpackbits(bits, count=frames * cells).astype(bool).reshape(frames, cells)


def drawn_frames(frames: np.ndarray, record: Record, grid: CellGrid, max_frames: int) -> dict[str, Any]:
    """What the template draws of a question's video: its frames [F, H, W, 3] with the cells that were dropped in grey."""
    keep = unpack_cells(record["keep_cells"]) if record.get("keep_cells") else None
    return film_strip(frames, record["frame_times"], keep, None, grid, max_frames=max_frames)
