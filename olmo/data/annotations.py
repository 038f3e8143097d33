"""Annotation files of every kind that data sets come in, with errors that name the file, the line and the key.

A reader sees entries: dicts that know where they stand. Whatever is wrong with one is told as a sentence about that place, so that
a user can open the file there.
"""

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
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
            raise OLMoDataError(f"{self.where}: the key '{key}' is missing; there is {some(self)}")
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

    def entries(self, key: str) -> list["Entry"]:
        """A list of mappings."""
        values = self.need(key, list)
        for i, value in enumerate(values):
            if not isinstance(value, Entry):
                raise self._wrong(f"{key}[{i}]", value, dict)
        return values

    def _number(self, key: str, value: Any, kind: type) -> int | float:
        try:
            number = float(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            number = None
        if number is None or not math.isfinite(number) or (kind is int and not number.is_integer()):
            raise self._wrong(key, value, kind)
        return kind(number)

    def _wrong(self, key: str, value: Any, kind: type) -> OLMoDataError:
        return OLMoDataError(f"{self.where}: '{key}' should be {_KINDS[kind]}, but is {json.dumps(value, default=str)[:60]}")


def some(names: Collection[Any], most: int = 20) -> str:
    """Names as a sentence lists them, the first of many."""
    return ", ".join([*map(str, islice(names, most)), *(["..."] if len(names) > most else [])]) or "nothing"


def having(entries: Iterable[Entry], *keys: str) -> Iterator[Entry]:
    """The same entries; OLMoDataError where one lacks some of `keys`, which names all that are expected and all that are there.

    For files whose layout was never seen: one error should tell how they are laid out instead.
    """
    for entry in entries:
        if lacking := [key for key in keys if key not in entry]:
            expected = f"should have the keys {', '.join(keys)}, but lacks {', '.join(lacking)}"
            raise OLMoDataError(f"{entry.where}: {expected}; there is {some(entry)}")
        yield entry


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
    for where, value in _json_lines(path, dict):
        yield Entry(value, where)


def read_lists(path: Path) -> Iterator[Entry]:
    """A file with a JSON list on every line, of which the first names the columns."""
    columns: list[str] | None = None
    for where, row in _json_lines(path, list):
        if columns is None:
            columns = row
            continue
        if len(row) != len(columns):
            raise OLMoDataError(f"{where}: has {len(row)} values, but the first line names {len(columns)} columns")
        yield Entry(dict(zip(map(str, columns), row, strict=True)), where)


def _json_lines(path: Path, kind: type) -> Iterator[tuple[str, Any]]:
    """Where and what: the JSON of every line that is not blank."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as err:
            raise OLMoDataError(f"{where}: is no JSON ({err.msg})") from None
        if not isinstance(value, kind):
            raise OLMoDataError(f"{where}: should be {_KINDS[kind]}, but is {line[:60]}")
        yield where, value


def read_csv(path: Path, delimiter: str = ",", columns: list[str] | None = None) -> Iterator[Entry]:
    """A table of text; `columns` names them where the file has no header."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), fieldnames=columns, delimiter=delimiter, restkey="")
    expected = f"the {len(columns)} it should have ({', '.join(columns)})" if columns else "the header"
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        amount = "more" if row.get("") else "fewer" if None in row.values() else None
        if amount is not None:
            first = next(value for value in row.values() if value is not None)
            raise OLMoDataError(f"{where}: has {amount} columns than {expected}; it begins with {first[:60]!r}")
        yield Entry({k: v for k, v in row.items() if k}, where)


def read_parquet(path: Path, columns: list[str] | None = None) -> Iterator[Entry]:
    """A parquet file, row by row, without holding the whole of it; of these `columns` alone, if given, all of which it must have."""
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
    there = file.schema_arrow.names
    if lacking := [column for column in columns or () if column not in there]:
        expected = f"should have the columns {', '.join(columns)}, but lacks {', '.join(lacking)}"
        raise OLMoDataError(f"{path} {expected}; there is {some(there)}")
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
    return [line for line in _text(path).split("\n") if line.strip()]


def unique(entries: Iterable[Entry], key: str) -> Iterator[Entry]:
    """The same entries; OLMoDataError where two have the same `key` (a text or a whole number) or one has none."""
    seen: dict[Any, str] = {}
    for entry in entries:
        value = entry[key] if isinstance(entry.get(key), (str, int)) else entry.need(key, str)
        if value in seen:
            raise OLMoDataError(f"{entry.where}: the {key} {value!r} stands already at {seen[value]}")
        seen[value] = entry.where
        yield entry


def one_file(folder: Path, pattern: str) -> Path:
    """The only file of that pattern. OLMoDataError if there are several, or none."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise OLMoDataError(f"{folder} should have one file {pattern}, but there is {names}")
    return found[0]


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
