"""All sources of a data set, one after the other: fetched, unpacked, and what is left for a person to fetch."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from olmo.data.download.archives import Archive, as_archives, unpack, whole_name
from olmo.data.download.folder import Folder
from olmo.data.download.http import Checksum, Patience, Tell, disk_error, download, name_of
from olmo.data.download.hub import fetch_hub, wanted_archives
from olmo.data.sources import ByHand, Hub, Source, Url
from olmo.exceptions import OLMoDataError, OLMoError

log = logging.getLogger(__name__)

Show = Callable[[str], AbstractContextManager[Tell]]
"""Title of a download -> where it tells how far it is."""


def _silent(title: str) -> AbstractContextManager[Tell]:
    return nullcontext(lambda done, total: None)


@dataclass
class Fetched:
    """What came of the sources of a data set."""

    unpacked: int = 0
    """Files that came out of archives just now."""
    failures: list[str] = field(default_factory=list)


def fetch(
    sources: Sequence[Source], path: Path, *, show: Show = _silent, remove_archives: bool = False, patience: Patience | None = None
) -> Fetched:
    """Bring everything that `sources` name into the folder `path`. A source that fails does not stop the others.

    `remove_archives`: delete archives when they are unpacked.
    """
    folder, result = Folder(path), Fetched()
    try:
        with folder.alone():
            for source in sorted(sources, key=lambda s: isinstance(s, ByHand)):
                try:
                    if isinstance(source, ByHand):
                        archives = archives_by_hand(source, folder, sources)
                    else:
                        archives = _fetch_source(source, folder, show, patience or Patience())
                    for archive in as_archives(archives):
                        result.unpacked += _unpack(archive, folder, remove_archives)
                except OLMoError as err:
                    result.failures.append(str(err))
                    log.error("%s", err)
    except OSError as err:
        raise disk_error(err, path) from None
    return result


def _fetch_source(source: Hub | Url, folder: Folder, show: Show, patience: Patience) -> list[Path]:
    """Fetch what can be fetched; returns the archives that are to be unpacked."""
    if isinstance(source, Hub):
        with show(source.repo) as tell:
            return wanted_archives(source, fetch_hub(source, folder, tell, patience), folder)
    file = target_of(source, folder)
    if not (source.unpack and folder.unpacked(file)):
        with show(file.name) as tell:
            checksum = None if source.sha256 is None else Checksum("sha256", source.sha256)
            download(source.url, file, checksum, tell=tell, patience=patience)
    return [file] if source.unpack else []


def target_of(source: Url, folder: Folder) -> Path:
    """Where the file of a Url goes."""
    return folder.path / source.into / name_of(source.url)


def by_hand_text(source: ByHand, folder: Path) -> str:
    """What to do about a source that only a person can fetch."""
    return f"fetch by hand: {source.what}; put it, or the archives it comes in, into {folder / source.into}"


def archives_by_hand(source: ByHand, folder: Folder, sources: Sequence[Source]) -> list[Path]:
    """Archives that a person has put where the source says; not those that belong to another of the `sources`."""
    others = {target_of(s, folder) for s in sources if isinstance(s, Url)}
    others |= {folder.path / s.into / name for s in sources if isinstance(s, Hub) for name in folder.noted(s).get("files", {})}
    there = (folder.path / source.into).glob("*")
    return [f for f in there if whole_name(f.name) is not None and f.is_file() and f not in others]


def _unpack(archive: Archive, folder: Folder, remove: bool) -> int:
    """Unpack an archive beside itself, once."""
    count = 0
    if not folder.all_unpacked(archive):
        if missing := [f for f in archive.files if not f.exists()]:
            raise OLMoDataError(f"{missing[0]} is gone, but {archive.name} cannot be unpacked without it; fetch it again")
        log.info("unpacking %s", archive.name)
        count = unpack(archive, archive.files[0].parent, folder.workshop)
        folder.mark_unpacked(archive, count)
    if remove:
        for file in archive.files:
            file.unlink(missing_ok=True)
    return count
