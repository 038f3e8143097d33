"""What probing videos has found, kept on disk, so that a second epoch or run opens no file to know its length.

One small SQLite file that all data workers of all ranks share. It holds nothing that cannot be found again: where it cannot be
used, one warning says so and files are probed anew.
"""

import logging
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo.data.video_reader import VideoReader, VideoReaderConfig

log = logging.getLogger(__name__)

_TABLE = """\
CREATE TABLE IF NOT EXISTS probes (
    path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, width INTEGER, height INTEGER, num_frames INTEGER, duration REAL
) WITHOUT ROWID"""


@dataclass(frozen=True)
class VideoLength:
    """What choosing frames needs to know of a video."""

    path: str
    width: int
    height: int
    num_frames: int
    duration: float
    """Seconds."""

    @property
    def fps(self) -> float:
        return self.num_frames / self.duration


class Probes:
    """Lengths of videos by path; an entry counts while the file keeps its size and its time of change."""

    def __init__(self, file: Path | None, reader: VideoReaderConfig | None = None) -> None:
        """`file`: the SQLite file; None = nothing is kept. `reader`: how a video that is not known yet is opened."""
        self.file, self.config = file, reader or VideoReaderConfig()
        self._reader: VideoReader | None = None
        self._connection: sqlite3.Connection | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "config": self.config, "_reader": None, "_connection": None, "_owner": 0}

    def __call__(self, path: str) -> VideoLength:
        """Probe a video, or remember it; a broken one raises `BadVideoError` as decoding it would, and is not kept."""
        mark = _mark(path)
        if mark is None:
            return self._probe(path)
        try:
            known = self._execute("SELECT width, height, num_frames, duration FROM probes WHERE (path, size, changed) = (?, ?, ?)", mark)
            if known:
                return VideoLength(path, *known[0])
        except (sqlite3.Error, OSError) as err:
            self._give_up(err)
        length = self._probe(path)
        try:
            row = (*mark, length.width, length.height, length.num_frames, length.duration)
            self._execute(f"INSERT OR REPLACE INTO probes VALUES ({', '.join('?' * len(row))})", row)
        except (sqlite3.Error, OSError) as err:
            self._give_up(err)
        return length

    def _probe(self, path: str) -> VideoLength:
        if self._reader is None:
            self._reader = self.config.build()
        info = self._reader.probe(path)
        return VideoLength(path, info.width, info.height, info.num_frames, info.duration)

    def _execute(self, command: str, values: tuple) -> list[tuple]:
        if self.file is None:
            return []
        if self._connection is None or self._owner != os.getpid():  # a forked process must not use its parent's connection
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.file, timeout=20, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = OFF")  # a lost entry is found again
            self._connection.execute(_TABLE)
            self._owner = os.getpid()
        return self._connection.execute(command, values).fetchall()

    def _give_up(self, err: Exception) -> None:
        log.warning("lengths of videos are not kept: %s cannot be used (%s); they are probed anew in every run", self.file, err)
        self.file = self._connection = None


def _mark(path: str) -> tuple[str, int, int] | None:
    """Path, size and time of change of a file; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns
