"""Files that hung or crashed a decoder, so that no later read, process or run pays for them again.

The list is `quarantine.jsonl` in the data folder: a line per file with its path, size, time of change, what happened and
when. A file is tried again when it has changed, or when its line (or the whole list) is deleted. All processes of a run
append to the same list and see each other's lines.
"""

import fcntl
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from olmo.data.failures import BadVideoError
from olmo.data.paths import data_root

log = logging.getLogger(__name__)

QUARANTINED_CAUSES = ("timeout", "crash")
"""What is expensive or dangerous to try again; other causes are found anew in a moment."""

Identity = tuple[str, int, int]
"""Absolute path, bytes, nanoseconds of the last change."""


def quarantine_file() -> Path:
    """Where the list lies."""
    return data_root() / "quarantine.jsonl"


class Quarantine:
    """The list as one process sees it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._listed: dict[Identity, str] = {}
        self._unwritten: dict[Identity, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self._complained: set[str] = set()

    def check(self, path: str) -> None:
        """BadVideoError if the file is on the list as it is now."""
        self._refresh()
        if not self._listed and not self._unwritten:
            return
        identity = identify(path)
        what = self._listed.get(identity) or self._unwritten.get(identity)
        if what is not None:
            raise BadVideoError(path, "quarantined", f"{what}; to try it again, delete its line in {self.file}")

    def note(self, err: BadVideoError) -> None:
        """Put the file on the list if it hung or crashed the decoder."""
        identity = identify(err.path)
        if err.cause not in QUARANTINED_CAUSES or identity is None:
            return
        when = datetime.now(UTC).isoformat(timespec="seconds")
        path, size, changed = identity
        line = json.dumps({"path": path, "size": size, "mtime_ns": changed, "cause": err.cause, "when": when}) + "\n"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(line.encode())
        except OSError as refused:
            self._unwritten[identity] = _sentence(err.cause, when)
            self._complain(f"{self.file} cannot be written ({refused.strerror}): later runs will try {err.path} again")

    def _refresh(self) -> None:
        """Read the list again if it is another than the one read last."""
        try:
            stat = os.stat(self.file)
        except OSError:
            self._listed, self._seen = {}, None
            return
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen == self._seen:
            return
        self._listed, self._seen = {}, seen
        try:
            lines = self.file.read_bytes().split(b"\n")[:-1]  # what follows the last line feed is still being written
        except OSError as refused:
            return self._complain(f"{self.file} cannot be read ({refused.strerror}): files that it names will be tried again")
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                identity = (str(entry["path"]), int(entry["size"]), int(entry["mtime_ns"]))
                self._listed[identity] = _sentence(entry["cause"], entry["when"])
            except (ValueError, KeyError, TypeError):
                if line.strip():
                    self._complain(f"{self.file}, line {number}: is no entry of the quarantine list and is ignored")

    def _complain(self, sentence: str) -> None:
        if sentence not in self._complained:
            self._complained.add(sentence)
            log.warning("%s", sentence)


def identify(path: str) -> Identity | None:
    """What a file is recognised by; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def _sentence(cause: str, when: str) -> str:
    return f"{cause} on {when}"
