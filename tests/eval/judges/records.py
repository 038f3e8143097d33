"""Saved predictions to judge."""

import json
from pathlib import Path
from typing import Any


def open_record(n: int, prediction: str = "a red car", answer: Any = "a red car", **more) -> dict[str, Any]:
    return {
        "example_id": f"q{n}",
        "order": n,
        "video": f"v{n}.mp4",
        "question_type": "all",
        "question": f"What is seen in number {n}?",
        "answer": answer,
        "chance": None,
        "prediction": prediction,
        "metadata": {},
    } | more


def caption_record(n: int, prediction: str, statements: list[tuple[str, str]], reference: str) -> dict[str, Any]:
    data = {
        "atomic_statements": [text for text, _ in statements],
        "categories": [category for _, category in statements],
        "aggregated_annotations": reference,
    }
    return open_record(n, prediction, metadata={"data": data})


def compass_record(n: int, form: str, prediction: str, **metadata) -> dict[str, Any]:
    shown = {key: metadata[key] for key in ("question", "answer") if key in metadata}
    return open_record(n, prediction, metadata={"task": form, "temporal_aspect": "order"} | metadata) | shown


def result_folder(path: Path, records: list[dict[str, Any]], task: str = "moving_shapes:test") -> Path:
    """A folder as an evaluation leaves it."""
    path.mkdir(parents=True)
    (path / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (path / "settings.json").write_text(json.dumps({"task": task}))
    (path / "metrics.json").write_text(json.dumps({"metrics": {"all": 0.0}, "scores": {}, "questions": len(records)}))
    return path


def judgements(folder: Path) -> dict[str, dict[str, Any]]:
    """example_id -> line; every line must be whole, and about another example."""
    lines = [json.loads(line) for line in (folder / "judgements.jsonl").read_text().splitlines()]
    assert len({line["example_id"] for line in lines}) == len(lines)
    return {line["example_id"]: line for line in lines}
