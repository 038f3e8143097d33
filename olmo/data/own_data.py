"""A data file of one's own as a data set: a JSONL whose every line is checked when its index is built.

What is wrong anywhere in the file is told at once, so that a file is mended in one go. Lines are found through the same mapped index
as those of published data sets, and paths of media are relative to the file.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.dataset import Example
from olmo.data.index import Index, open_index
from olmo.data.own_conversations import check_conversations
from olmo.data.own_lines import (
    check_clip,
    check_id,
    check_media,
    check_subtitles,
    check_weight,
    cues_in,
    parse_line,
    raw_lines,
)
from olmo.data.records import Record, with_clip
from olmo.data.subtitles import Cues, rebased
from olmo.exceptions import OLMoDataError, OLMoDataFileError

FORMAT = 1
"""Part of the name of an index; raise it when records change."""
MOST_PROBLEMS = 20
"""Problems told at once."""


class OwnDataset:
    """The lines of a file, whatever the split: an evaluation names its own file."""

    def __init__(self, path: Path, index: Index) -> None:
        self.path, self.index = path, index
        self.name = str(path)

    def __len__(self) -> int:
        return len(self.index)

    def get(self, index: int, rng: np.random.Generator) -> Example:
        record = self.index[index]
        example: Example = {key: self._media(record[key]) for key in ("video", "image") if key in record}
        example["metadata"] = with_clip({"example_id": f"{self.path.name}:{record['id']}"}, record.get("clip"))
        if "subtitles" in record:
            example["subtitle"] = rebased(self._cues(record["subtitles"]), *record.get("clip", (0.0,)))
        if "weight" in record:
            example["weight"] = record["weight"]
        conversations = record["conversations"]
        if len(conversations) > 1:
            return example | {"message_list": conversations}
        (only,) = conversations
        return example | only | {"metadata": example["metadata"] | only.get("metadata", {})}

    def _cues(self, subtitles: str | list[list[Any]]) -> Cues:
        """Of a file as it is now, or as the line says."""
        if not isinstance(subtitles, str):
            return {(start, end): text for start, end, text in subtitles}
        path = self.path.parent / subtitles
        try:
            return cues_in(path)
        except OSError as err:
            raise OLMoDataError(f"the subtitles {path} cannot be read: {err.strerror or err}") from None

    def _media(self, path: str | list[str]) -> str | list[str]:
        folder = self.path.parent
        return [str(folder / p) for p in path] if isinstance(path, list) else str(folder / path)


def open_own(name: str) -> OwnDataset:
    """Open a data file; OLMoDataFileError names every place where it is wrong (the first 20)."""
    path = Path(name)
    try:
        path.open("rb").close()
    except OSError as err:
        raise OLMoDataFileError(f"{path} cannot be read: {err.strerror or err}") from None
    whole = path.absolute()
    mark = hashlib.sha256(f"{FORMAT} {whole}".encode()).hexdigest()[:8]
    key = f"own-{re.sub(r'[^A-Za-z0-9]+', '_', path.stem)[:40]}-{mark}"
    return OwnDataset(path, open_index(str(path), key, [whole], lambda: checked_records(path)))


def checked_records(path: Path) -> Iterator[Record]:
    """The lines as records; at the end of the file OLMoDataFileError if anything was wrong with it."""
    problems: list[str] = []
    places: dict[str, str] = {}
    for where, raw in raw_lines(path):
        found: list[str] = []
        record = _record(raw, where, path.parent, places, found)
        problems += found
        if len(problems) >= MOST_PROBLEMS:
            break
        if not problems:
            yield record
    if problems:
        few = problems[:MOST_PROBLEMS]
        count = f"the first {len(few)} problems" if len(problems) >= MOST_PROBLEMS else f"{len(few)} problem" + "s" * (len(few) > 1)
        raise OLMoDataFileError("\n".join([f"{path}: {count}", *(f"  {p}" for p in few)]))
    if not places:
        raise OLMoDataFileError(f"{path} holds no line; a line is a JSON mapping with a question or messages")


def _record(raw: bytes, where: str, folder: Path, places: dict[str, str], problems: list[str]) -> Record:
    """One line as a record, with whatever is wrong with it added to `problems`. `places`: id -> the line that has it."""
    record: Record = {}
    try:
        line = parse_line(raw, where)
    except OLMoDataError as err:
        problems.append(str(err))
        return record
    here = [partial(check, folder=folder) for check in (check_media, check_subtitles)]
    for check in (*here, check_clip, check_weight, check_conversations, check_id):
        try:
            record |= check(line)
        except OLMoDataError as err:
            problems.append(str(err))
    number = where.rpartition(", ")[2]
    name = record.setdefault("id", number)
    if name in places:
        problems.append(f"{where}: the 'id' {name} stands already at {places[name]}; every line should have its own")
    places.setdefault(name, number)
    return record
