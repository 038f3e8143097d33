"""The completion marker of a checkpoint, which is also the list of its files with their lengths and check sums.

`complete.json` is written last. A checkpoint that is being written has `unfinished.json` from its first file on, so that
the two are told from folders of the published layout, which have neither: these are whole when all their parts are there.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo.exceptions import OLMoCheckpointError

COMPLETE, UNFINISHED = "complete.json", "unfinished.json"
VERSION = 1
EDITABLE = ("config.yaml",)
"""What people may change by hand: another length of it is no sign of a partial checkpoint (but `verify` finds it)."""

Entries = Mapping[str, Mapping[str, Any]]


def marker_text(entries: Entries, *, ephemeral: bool) -> bytes:
    """What `complete.json` holds; `entries`: file -> bytes and sha256."""
    record = {"version": VERSION, "ephemeral": ephemeral, "files": {name: dict(entries[name]) for name in sorted(entries)}}
    return (json.dumps(record, indent=1) + "\n").encode()


def parse_marker(text: bytes, where: str | Path) -> dict[str, Any]:
    """The marker's record, or an error that names the file."""
    try:
        record = json.loads(text)
        version, files = record["version"], record["files"]
        sound = all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in files.values())
        outside = next((n for n in files if Path(n).is_absolute() or ".." in Path(n).parts), None)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise OLMoCheckpointError(f"{where} is not a completion marker of this package: {err!r}") from None
    if version != VERSION or not sound:
        raise OLMoCheckpointError(f"{where} is not a completion marker that this version reads (version {version}, not {VERSION})")
    if outside is not None:
        raise OLMoCheckpointError(f"{where} names a file outside its folder: {outside}")
    return record


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of a checkpoint, None if it has none."""
    file = folder / COMPLETE
    return parse_marker(file.read_bytes(), file) if file.is_file() else None


def missing_file(entries: Entries, sizes: Mapping[str, int]) -> str | None:
    """The first file of the marker that is not there in full, None if all are; `sizes`: what is there."""
    for name, entry in entries.items():
        if name not in sizes:
            return name
        if sizes[name] < entry["bytes"] and name not in EDITABLE:
            return f"the last {entry['bytes'] - sizes[name]} bytes of {name}"
    return None


def sizes_on_disk(folder: Path, names: Mapping[str, Any]) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def verify_checkpoint(folder: str | Path, part: int = 0, parts: int = 1) -> int:
    """Compare the check sums of a checkpoint's files with its marker; returns the bytes read.

    Of several processes each reads every `parts`-th file. Folders without a marker have no check sums, and 0 is returned.
    Raises `OLMoCheckpointError` that names the first file which differs.
    """
    folder = Path(folder)
    record = read_marker(folder)
    if record is None:
        return 0
    entries = record["files"]
    absent = missing_file(entries, sizes_on_disk(folder, entries))
    if absent is not None:
        raise OLMoCheckpointError(f"the checkpoint {folder} is not whole: {absent} is missing")
    done = 0
    for name in sorted(entries, key=lambda n: entries[n]["bytes"], reverse=True)[part::parts]:
        with open(folder / name, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entries[name]["sha256"]:
            raise damaged(folder / name)
        done += entries[name]["bytes"]
    return done


def damaged(file: str | Path) -> OLMoCheckpointError:
    return OLMoCheckpointError(
        f"{file} is damaged: its bytes do not have the check sum of {COMPLETE}; delete its checkpoint to take the one before it"
    )
