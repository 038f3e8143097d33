"""Annotation files of every kind that data sets come in, with errors that name the file, the line and the key.

A reader sees entries: dicts that know where they stand. Whatever is wrong with one is told as a sentence about that place, so that
a user can open the file there.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from olmo.exceptions import OLMoDataError, missing_package

_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}


class Entry(dict):
    """One annotation; `where` is its place as a sentence would name it."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def need(self, key: str, kind: type) -> Any:
        """The value of `key` as `kind` (str, int, float, bool, list or dict). Numbers may be written as text, as CSV files do.

        Mappings in it become entries too. OLMoDataError if it is missing or something else.
        """
        if key not in self or self[key] is None:
            known = ", ".join(map(str, self)) or "nothing"
            raise OLMoDataError(f"{self.where}: the key '{key}' is missing; there is {known}")
        value = self[key]
        if kind in (int, float):
            return self._number(key, value, kind)
        if not isinstance(value, kind):
            raise self._wrong(key, value, kind)
        if kind is dict:
            return Entry(value, f"{self.where}, {key}")
        if kind is list:
            return [Entry(v, f"{self.where}, {key}[{i}]") if isinstance(v, dict) else v for i, v in enumerate(value)]
        return value

    def optional(self, key: str, kind: type, default: Any = None) -> Any:
        """As `need`, but `default` where the key is missing or null."""
        return default if self.get(key) is None else self.need(key, kind)

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        values = self.need(key, list)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise self._wrong(f"{key}[{i}]", value, str)
        return values

    def _number(self, key: str, value: Any, kind: type) -> int | float:
        try:
            number = float(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            number = None
        if number is None or (kind is int and number != int(number)):
            raise self._wrong(key, value, kind)
        return kind(number)

    def _wrong(self, key: str, value: Any, kind: type) -> OLMoDataError:
        return OLMoDataError(f"{self.where}: '{key}' should be {_KINDS[kind]}, but is {json.dumps(value, default=str)[:60]}")


def read_json(path: Path) -> Any:
    """A JSON file: mappings (also those in a list at the top) as entries."""
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as err:
        raise OLMoDataError(f"{path}, line {err.lineno}: is no JSON ({err.msg})") from None
    if isinstance(content, dict):
        return Entry(content, str(path))
    if isinstance(content, list):
        return [Entry(v, f"{path}, entry {i}") if isinstance(v, dict) else v for i, v in enumerate(content)]
    return content


def read_json_list(path: Path) -> list[Entry]:
    """A JSON file that is a list of mappings."""
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(v, Entry) for v in content):
        raise OLMoDataError(f"{path} should be a list of mappings")
    return content


def read_jsonl(path: Path) -> Iterator[Entry]:
    """A file with a JSON mapping on every line that is not blank."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as err:
            raise OLMoDataError(f"{where}: is no JSON ({err.msg})") from None
        if not isinstance(value, dict):
            raise OLMoDataError(f"{where}: should be a mapping, but is {line[:60]}")
        yield Entry(value, where)


def read_csv(path: Path, delimiter: str = ",", columns: list[str] | None = None) -> Iterator[Entry]:
    """A table of text; `columns` names them where the file has no header."""
    reader = csv.DictReader(_text(path).splitlines(keepends=True), fieldnames=columns, delimiter=delimiter, restkey="")
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if "" in row and row[""]:
            raise OLMoDataError(f"{where}: has more columns than the header")
        if None in row.values():
            raise OLMoDataError(f"{where}: has fewer columns than the header")
        yield Entry({k: v for k, v in row.items() if k}, where)


def read_parquet(path: Path, columns: list[str] | None = None) -> Iterator[Entry]:
    """A parquet file, row by row, without holding the whole of it."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_package("pyarrow", "data", f"reading {path.name}") from None
    from pyarrow import ArrowInvalid

    _must_exist(path)
    try:
        file = pq.ParquetFile(path)
    except ArrowInvalid as err:
        raise OLMoDataError(f"{path} is no parquet file ({err})") from None
    number = 0
    for batch in file.iter_batches(batch_size=1024, columns=columns):
        for row in batch.to_pylist():
            yield Entry(row, f"{path}, row {number}")
            number += 1


def read_text(path: Path) -> str:
    """The whole of a UTF-8 text file."""
    return _text(path)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    return [line for line in _text(path).splitlines() if line.strip()]


def unique(entries: Iterable[Entry], key: str) -> Iterator[Entry]:
    """The same entries; OLMoDataError where two have the same `key`."""
    seen: dict[Any, str] = {}
    for entry in entries:
        value = entry.need(key, str) if isinstance(entry.get(key), str) else entry.get(key)
        if value in seen:
            raise OLMoDataError(f"{entry.where}: the {key} {value!r} stands already at {seen[value]}")
        seen[value] = entry.where
        yield entry


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise OLMoDataError(f"{path} is missing")


def _text(path: Path) -> str:
    _must_exist(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        line = path.read_bytes()[: err.start].count(b"\n") + 1
        raise OLMoDataError(f"{path}, line {line}: is not UTF-8 text") from None
