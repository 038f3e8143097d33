"""Questions about short clips of the internet: TGIF-QA, How2QA, SUTD-TrafficQA, Social-IQ 2.0, FunQA."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, read_csv
from olmo.data.dataset import Example
from olmo.data.records import MC, OE, DatasetRow, Record, multiple_choice, open_ended
from olmo.data.sources import Hub
from olmo.exceptions import OLMoDataError

# -- TGIF-QA: tables of questions, of which those on actions and transitions have options

TGIF_TABLES = ("action", "count", "transition", "frameqa")
TGIF_WITH_OPTIONS = ("action", "transition")


def _tgif_files(split: str) -> list[str]:
    return [f"{split.capitalize()}_{table}_question.csv" for table in TGIF_TABLES]


def _tgif_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a video are one example."""
    by_video: dict[str, list[dict]] = {}
    for table, name in zip(TGIF_TABLES, _tgif_files(split), strict=True):
        for entry in read_csv(folder / name, delimiter="\t"):
            by_video.setdefault(entry.need("gif_name", str), []).append(_tgif_question(entry, table in TGIF_WITH_OPTIONS))
    for name, questions in by_video.items():
        yield {"video": f"videos/{name}.mp4", "questions": questions}


def _tgif_question(entry: Entry, has_options: bool) -> dict:
    question = {"question": entry.need("question", str)}
    if not has_options:
        return question | {"answer": entry.need("answer", str)}
    options, answer = [entry.need(f"a{i}", str) for i in range(1, 6)], entry.need("answer", int)
    if not 0 <= answer < len(options):
        raise OLMoDataError(f"{entry.where}: the answer is option {answer}, but there are 5, counted from 0")
    return question | {"options": options, "answer": answer}


def _tgif_example(record: Record, rng: np.random.Generator) -> Example:
    messages = []
    for q in record["questions"]:
        if "options" not in q:
            messages.append(open_ended(q["question"], q["answer"]))
            continue
        messages.append(multiple_choice(q["question"], q["options"], q["answer"], record["video"]))
        messages.append(open_ended(q["question"], q["options"][q["answer"]]))
    return {"video": record["video"], "message_list": messages}


ROWS = (
    DatasetRow(
        name="tgif",
        title="TGIF-QA",
        folder="TGIF",
        sources=(Hub("allenai/Molmo2-TGIF"),),
        style=f"{MC}+{OE}",
        records=_tgif_records,
        example=_tgif_example,
        files=_tgif_files,
        splits=("train", "test"),
    ),
)
