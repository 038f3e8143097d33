"""Which videos are there: many sets point to videos that are gone from where they were published."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from olmo.data.records import Record
from olmo.exceptions import OLMoDataError

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".webm", ".avi"))

Place = Callable[[str], str | None]
"""What an annotation calls a video -> its path below the folder of the data set, or None where it is not there."""


class Listing:
    """The files below a folder; every directory is read once, because asking for each file is slow on a network drive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, frozenset[str]] = {}

    def names(self, directory: str) -> frozenset[str]:
        """Names in a directory below the folder (none if there is no such directory)."""
        if directory not in self._names:
            path = self.folder / directory
            self._names[directory] = frozenset(os.listdir(path)) if path.is_dir() else frozenset()
        return self._names[directory]

    def path(self, file: str) -> str | None:
        """A `Place` for annotations that hold the path itself."""
        directory, name = os.path.split(file)
        return file if name in self.names(directory) else None

    def by_stem(self, directory: str) -> dict[str, str]:
        """Name without its ending -> name."""
        return {os.path.splitext(name)[0]: name for name in sorted(self.names(directory))}


def videos_below(folder: Path, below: str, name_of: Callable[[Path], str] = lambda path: path.stem) -> Place:
    """A `Place` for annotations that hold a name alone: the videos anywhere below `folder / below`, whatever their format.

    `name_of` tells the name from a path; of two videos with the same name the first by its path is meant. A row names its folders
    among its `files` (such as `videos/**/`), so that the index is made anew when videos come or go.
    """
    files = (Path(at, name) for at, _, names in os.walk(folder / below) for name in names)
    paths: dict[str, str] = {}
    for file in sorted(file for file in files if file.suffix.lower() in VIDEO_SUFFIXES):
        paths.setdefault(name_of(file), file.relative_to(folder).as_posix())
    return paths.get


def with_videos(records: Iterable[tuple[str, Record]], place: Place, where: Path) -> Iterator[Record]:
    """The records whose video is there, completed by its path.

    Sets whose videos come from the web lose some over the years: what is not there is left out and counted in the log. `records`
    come as (what `place` is asked for, record); `where` is the folder that messages name. OLMoDataError if no video is there.
    """
    found: set[str] = set()
    missing: dict[str, None] = {}
    for name, record in records:
        if (path := place(name)) is None:
            missing[name] = None
        else:
            found.add(path)
            yield {"video": path, **record}
    if not missing:
        return
    first, total = next(iter(missing)), len(found) + len(missing)
    if not found:
        raise OLMoDataError(f"none of its {total} videos is in {where}; the first should be {first}")
    told = "left out: %d of %d videos, which are not in %s (the first: %s); they stay out until the index is made anew"
    log.warning(told, len(missing), total, where, first)
