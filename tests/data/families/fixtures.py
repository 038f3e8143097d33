"""Miniatures of data sets, written in the formats in which their publishers give them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from olmo.data.catalogue import get_dataset
from olmo.data.dataset import Dataset, Example

SEED = 7

MC, OE = "video_multiple_choice", "video_short_answer"


def mc(question: str, options: list[str], answer: int, style: str = MC) -> dict:
    """The message of a question with options."""
    return {"question": question, "options": options, "answer_idx": answer, "style": style}


def oe(question: str, answer: str, style: str = OE) -> dict:
    """The message of a question with a text as answer."""
    return {"question": question, "answer": answer, "style": style}


class Miniature:
    """The folder of one data set below a data directory of its own."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, content: str) -> Path:
        path = self._path(name)
        path.write_text(content, encoding="utf-8")
        return path

    def json(self, name: str, content: Any) -> Path:
        return self.text(name, json.dumps(content))

    def jsonl(self, name: str, lines: list) -> Path:
        return self.text(name, "".join(json.dumps(line) + "\n" for line in lines))

    def csv(self, name: str, rows: list[dict], delimiter: str = ",") -> Path:
        path = self._path(name)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        return path

    def parquet(self, name: str, rows: list[dict]) -> Path:
        path = self._path(name)
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    def touch(self, *names: str) -> None:
        """Empty files, for videos that are looked for and not decoded."""
        for name in names:
            self._path(name).touch()


def open_split(name: str, split: str = "train") -> Dataset:
    return get_dataset(name, split)


def example(name: str, split: str = "train", index: int = 0, seed: int = SEED) -> Example:
    """An example as the trainer gets it, its video relative to the data set's folder."""
    dataset = get_dataset(name, split)
    found = dataset.get(index, np.random.default_rng(seed))
    return {**found, "video": str(Path(found["video"]).relative_to(dataset.folder))}
