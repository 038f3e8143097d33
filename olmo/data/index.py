"""Annotations as an Arrow file that is mapped into memory: built once, read lazily, shared by all processes.

A data set of millions of questions costs a process the few pages it has touched. The index is made from the annotation files by
the reader's `records` and is named after them (path, size, time of change): it is made anew when they change.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.annotations import some
from olmo.data.dataset import Example
from olmo.data.paths import data_root, file_lock, video_root
from olmo.data.records import DatasetRow, Record
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, missing_package

log = logging.getLogger(__name__)

VERSION = 2
"""Part of the file's name; raise it when the format or what readers note changes."""

BATCH = 4096
"""Records of one Arrow batch."""


class Index:
    """Records by number, out of an Arrow file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        pa = _pyarrow()
        self._file = pa.ipc.open_file(pa.memory_map(str(self.path)))
        batches = self._file.num_record_batches
        self.size = (batches - 1) * BATCH + self._file.get_batch(batches - 1).num_rows if batches else 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Record:
        if not 0 <= number < self.size:
            raise IndexError(f"{self.path.name} has {self.size} records, none with number {number}")
        batch, row = divmod(number, BATCH)
        return json.loads(self._file.get_batch(batch).column("record")[row].as_py())


class IndexedDataset:
    """A split of a data set of the catalogue."""

    def __init__(self, row: DatasetRow, split: str, index: Index, folder: Path) -> None:
        self.name, self.split, self.index, self.folder = row.name, split, index, folder
        self.example = row.example  # not the row, whose other functions need not reach a data worker

    def __len__(self) -> int:
        return len(self.index)

    def get(self, index: int, rng: np.random.Generator) -> Example:
        example = self.example(self.index[index], rng)
        return {**example, "video": str(self.folder / example["video"])}


def open_indexed(row: DatasetRow, split: str, name: str | None = None) -> IndexedDataset:
    """Open a split, and build its index if there is none for the files as they are. `name`: what errors call it, if by an alias."""
    name = name or row.name
    folder = video_root() / row.folder
    files = _files_of(row, split, folder, name)
    try:
        index = open_index(name, f"{row.name}-{split}", files, lambda: row.records(folder, split))
    except OLMoDataError as err:
        raise OLMoDataError(f"{name}: {err}") from None
    return IndexedDataset(row, split, index, folder)


def _files_of(row: DatasetRow, split: str, folder: Path, name: str) -> list[Path]:
    found = []
    for pattern in row.files(split):
        matches = sorted(folder.glob(pattern))
        if not matches:
            there = f"{pattern} is not in {folder}{_what_is(folder, pattern)}" if folder.is_dir() else f"not found in {folder}"
            raise OLMoDataError(f"{name}: {there}; download from {row.source} (MOLMO_DATA_DIR says where data lies)")
        found += matches
    return found


def _what_is(folder: Path, pattern: str) -> str:
    """What lies where `pattern` looks, because files may only be called otherwise than expected."""
    for part in Path(pattern).parts[:-1]:
        if not (folder / part).is_dir():
            break
        folder /= part
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    return f" (there is {some(names, 10)})" if names else ""


def open_index(title: str, key: str, files: Sequence[Path], records: Callable[[], Iterator[Record]]) -> Index:
    """The index of `records` over annotation `files`, built if there is none for the files as they are.

    `title`: how messages call it. `key`: begins the name of its file; an older index of the same key makes room.
    """
    stats = [(str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in files]
    mark = hashlib.sha256(json.dumps([VERSION, stats]).encode()).hexdigest()[:16]
    path = data_root() / "indices" / f"{key}-{mark}.arrow"
    if not path.exists():
        _build(title, key, records, path)
    return Index(path)


def _build(title: str, key: str, records: Callable[[], Iterator[Record]], path: Path) -> None:
    """Write the index under its name once it is whole; other processes wait meanwhile."""
    part = path.with_suffix(f".part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.parent / f"{key}.lock"):
            if path.exists():
                return
            try:
                size = write_index(part, records())
                for old in path.parent.glob(f"{key}-{'?' * 16}.arrow"):
                    old.unlink()  # whoever has it mapped keeps it
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as err:
        raise OLMoEnvironmentError(f"the index of {title} cannot be written to {path.parent}: {err.strerror or err}") from None
    log.info("indexed %s as %s: %d examples", title, path.name, size)


def write_index(path: Path, records: Iterator[Record]) -> int:
    """Write `records` as an Arrow file, a batch at a time; returns how many there were."""
    pa = _pyarrow()
    schema = pa.schema([pa.field("record", pa.string())])
    size = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        texts = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
        while batch := list(islice(texts, BATCH)):
            writer.write_batch(pa.record_batch([pa.array(batch, pa.string())], schema=schema))
            size += len(batch)
    return size


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise missing_package("pyarrow", "data", "indexed data sets") from None
    return pyarrow
