"""Which videos are there: many sets point to videos that are gone from where they were published."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from olmo.data.records import Record
from olmo.exceptions import OLMoDataError

log = logging.getLogger(__name__)


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
