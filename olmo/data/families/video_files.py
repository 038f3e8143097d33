"""Which videos are there: many sets point to videos that are gone from where they were published."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from olmo.data.records import Record
from olmo.exceptions import OLMoDataError

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".webm", ".avi"))


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

    def __contains__(self, file: str) -> bool:
        directory, name = os.path.split(file)
        return name in self.names(directory)

    def by_stem(self, directory: str) -> dict[str, str]:
        """Name without its ending -> name."""
        return {os.path.splitext(name)[0]: name for name in sorted(self.names(directory))}


def with_video(listing: Listing, records: Iterator[Record]) -> Iterator[Record]:
    """Only the records whose video is there; says how many are not. OLMoDataError if there is none at all."""
    found = missing = 0
    example = ""
    for record in records:
        if record["video"] in listing:
            found += 1
            yield record
        else:
            missing, example = missing + 1, example or record["video"]
    if missing and not found:
        raise OLMoDataError(f"none of its {missing} videos is in {listing.folder}, where the first should be {example}")
    if missing:
        found_of = (listing.folder, missing, found + missing, example)
        log.warning("%s: %d of %d videos are not there (the first: %s); they stay out until the index is deleted", *found_of)


def with_videos(
    records: Iterable[tuple[str, Record]], folder: Path, below: str, name_of: Callable[[Path], str] = lambda path: path.stem
) -> Iterator[Record]:
    """The records whose video is below `folder / below`, completed by its path, whatever its format.

    Sets whose videos come from the web lose some over the years: what is not there is left out and counted in the log. `records`
    come as (name of the video, record); `name_of` tells the name from a path. A row names its folders among its `files` (such as
    `videos/**/`), so that the index is made anew when videos come or go. OLMoDataError if no video is there.
    """
    files = sorted(p for p in (folder / below).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    paths: dict[str, str] = {}
    for file in files:
        paths.setdefault(name_of(file), file.relative_to(folder).as_posix())
    missing: dict[str, None] = {}
    found = False
    for name, record in records:
        if name in paths:
            found = True
            yield {"video": paths[name], **record}
        else:
            missing[name] = None
    if missing and not found:
        raise OLMoDataError(f"none of the {len(missing)} annotated videos is in {folder / below}; the first would be {next(iter(missing))}")
    if missing:
        log.warning("left out: %d videos that are not in %s, such as %s", len(missing), folder / below, next(iter(missing)))
