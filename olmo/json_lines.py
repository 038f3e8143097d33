"""Files of JSON lines that grow while a process may be killed at any moment, and small files that are old or new but never half."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a file that end in a newline: the last one may have been cut by a crash."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


def append_records(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Add lines behind the whole ones of a file; they are on disk when this returns."""
    cut_partial_line(Path(path))
    with open(path, "a", encoding="utf-8") as file:
        write_through(file, as_lines(records))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        write_through(file, text)
    temporary.replace(path)


def write_through(file: IO[str], text: str) -> None:
    """Write text that is on disk when this returns, whatever happens to the process or the machine then."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def as_lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


def cut_partial_line(path: Path) -> None:
    """Remove what a crash left behind the last newline, so that the next line starts on its own."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)
