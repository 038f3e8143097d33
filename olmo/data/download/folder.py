"""What the downloader remembers about the folder of a data set: what was fetched and what was unpacked.

The notes lie in its sub-folder `.download`, so that nothing is fetched or unpacked twice, also when an archive was removed after it was
unpacked. Deleting a note (or the whole sub-folder) makes the downloader look again.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from olmo.data.download.archives import Archive, whole_name
from olmo.data.paths import file_lock
from olmo.data.sources import Source


class Folder:
    """The folder of a data set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes = path / ".download"
        self.workshop = self.notes / "unpacking"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one downloader at a time works here; the others wait."""
        self.notes.mkdir(parents=True, exist_ok=True)
        with file_lock(self.notes / "lock"):
            yield

    # -- what was fetched

    def noted(self, source: Source) -> dict[str, Any]:
        """What was written down about a source; empty if nothing was."""
        return _read(self._note_of(source))

    def note(self, source: Source, content: dict[str, Any]) -> None:
        _write(self._note_of(source), content)

    def _note_of(self, source: Source) -> Path:
        mark = hashlib.sha256(repr(source).encode()).hexdigest()[:8]
        return self.notes / f"{_plain(str(source))}-{mark}.json"

    # -- what was unpacked

    def unpacked(self, file: Path) -> bool:
        """Whether the archive that `file` is (a piece of) was unpacked here: the file itself may be gone since, but is not another."""
        name = whole_name(file.name)
        note = _read(self._mark_of(file.with_name(name or file.name)))
        size = note.get("sizes", {}).get(file.name)
        return size is not None and (not file.exists() or file.stat().st_size == size)

    def all_unpacked(self, archive: Archive) -> bool:
        return all(self.unpacked(file) for file in archive.files)

    def mark_unpacked(self, archive: Archive, count: int) -> None:
        sizes = {file.name: file.stat().st_size for file in archive.files}
        _write(self._mark_of(archive.files[0].with_name(archive.name)), {"members": count, "sizes": sizes})

    def _mark_of(self, whole: Path) -> Path:
        return self.notes / "unpacked" / f"{_plain(whole.relative_to(self.path).as_posix())}.json"


def _plain(text: str) -> str:
    """A text as a file name."""
    return re.sub(r"[^\w.-]+", "_", text)[:120]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content))
    os.replace(part, path)
