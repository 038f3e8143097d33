"""Files of data sets on the Hugging Face hub: huggingface_hub says which and where, and they are fetched like those of any web server.

So they are resumed where they broke off (which the library gives up), and each is held against the checksum that the hub states. A
repository is taken as of one commit. What arrived is noted (`Folder.note`), so that the next call asks for nothing that is there.
HF_ENDPOINT names another server that speaks like the hub, HF_TOKEN (or HF_ACCESS_TOKEN) opens gated sets.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from olmo.data.download.archives import inside
from olmo.data.download.folder import Folder
from olmo.data.download.http import BUSY, Checksum, Patience, RefusedError, Tell, download
from olmo.data.sources import Hub
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, first_line

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 8
"""Files that are fetched at a time."""

LARGEST_BY_HTTP = 50_000_000_000
"""Bytes; the hub gives larger files only to its own library."""

MOST_FAILURES = 5
"""Files that may fail before the others are given up."""

SECONDS_PER_NOTE = 10.0


@dataclass(frozen=True)
class _HubFile:
    name: str
    size: int
    checksum: Checksum | None


def fetch_hub(source: Hub, folder: Folder, tell: Tell, patience: Patience) -> list[Path]:
    """Bring all files of `source` into the folder; returns where they lie (or lay, where an archive was unpacked and removed)."""
    hub = _Hub(source, folder.path / source.into, patience)
    files = hub.listing()
    account = _Account(source, folder, hub.commit, files, tell)
    waiting = [f for f in files if not (folder.unpacked(hub.place(f)) or _same_size(hub.place(f), account.sizes.get(f.name)))]
    account.begin(waiting)

    def fetch(file: _HubFile) -> None:
        hub.fetch(file, lambda done, total: account.is_at(file, done))
        account.arrived(file, hub.place(file).stat().st_size)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(fetch, file) for file in waiting]
        failures = []
        try:
            for job in jobs:
                try:
                    job.result()
                except OLMoDataError as err:
                    failures.append(err)
                    if len(failures) == MOST_FAILURES:
                        break
        finally:
            account.stopped = True  # after an error or an interruption; else nobody reads it
            pool.shutdown(cancel_futures=True)
            account.write()
    if failures:
        raise OLMoDataError(f"{failures[0]}" + (f"; and {len(failures) - 1} more files" if failures[1:] else ""))
    return [hub.place(f) for f in files]


def _same_size(path: Path, size: int | None) -> bool:
    return size is not None and path.is_file() and path.stat().st_size == size


def wanted_archives(source: Hub, files: Sequence[Path], folder: Folder) -> list[Path]:
    """Those of the fetched files that the source wants unpacked."""
    top = folder.path / source.into
    return [f for f in files if any(fnmatch(f.relative_to(top).as_posix(), pattern) for pattern in source.unpack)]


class _Stopped(Exception):
    """Leaves a download of which nobody waits for the rest."""


class _Account:
    """What of a source is there, as several threads fetch it."""

    def __init__(self, source: Hub, folder: Folder, commit: str, files: Sequence[_HubFile], tell: Tell) -> None:
        self.source, self.folder, self.commit, self.tell = source, folder, commit, tell
        self.total = sum(f.size for f in files)
        noted = folder.noted(source)
        self.sizes: dict[str, int] = noted.get("files", {}) if noted.get("commit") == commit else {}
        """Of the files that are whole."""
        self.stopped = False
        self._whole = 0
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()
        self._written = time.monotonic()

    def begin(self, waiting: Sequence[_HubFile]) -> None:
        self._whole = self.total - sum(f.size for f in waiting)
        self.tell(self._whole, self.total)

    def is_at(self, file: _HubFile, done: int) -> None:
        """So many bytes of a file are there."""
        if self.stopped:
            raise _Stopped
        with self._lock:
            self._running[file.name] = done
            self.tell(self._whole + sum(self._running.values()), self.total)

    def arrived(self, file: _HubFile, size: int) -> None:
        with self._lock:
            self._running.pop(file.name, None)
            self._whole += file.size
            self.sizes[file.name] = size
            self.tell(self._whole + sum(self._running.values()), self.total)
        if time.monotonic() - self._written > SECONDS_PER_NOTE:
            self.write()

    def write(self) -> None:
        with self._lock:
            self._written = time.monotonic()
            self.folder.note(self.source, {"commit": self.commit, "files": self.sizes})


class _Hub:
    """One repository as a source names it."""

    def __init__(self, source: Hub, into: Path, patience: Patience) -> None:
        import huggingface_hub

        self.source, self.into, self.patience = source, into, patience
        self.library = huggingface_hub
        self.endpoint = os.environ.get("HF_ENDPOINT") or None
        self.token = os.environ.get("HF_TOKEN") or os.environ.get("HF_ACCESS_TOKEN") or huggingface_hub.get_token()
        self.repo, self.commit = source.repo, ""

    def place(self, file: _HubFile) -> Path:
        return self.into / file.name

    def listing(self) -> list[_HubFile]:
        """The files that the source wants, as of the newest commit."""
        api = self.library.HfApi(endpoint=self.endpoint, token=self.token)
        info = self._patiently(lambda: api.dataset_info(self.source.repo, files_metadata=True, timeout=self.patience.timeout))
        self.repo, self.commit = info.id, info.sha
        names = [s for s in info.siblings or () if any(fnmatch(s.rfilename, pattern) for pattern in self.source.patterns)]
        for pattern in self.source.patterns:
            if not any(fnmatch(s.rfilename, pattern) for s in names):
                raise OLMoDataError(f"{self.source}: there is no file '{pattern}'; it may have moved, see its page")
        for sibling in names:
            inside(sibling.rfilename, self.source.repo)
        return [_HubFile(s.rfilename, s.size or 0, _checksum(s)) for s in names]

    def fetch(self, file: _HubFile, tell: Tell) -> None:
        """One file."""
        place = {"repo_type": "dataset", "revision": self.commit, "endpoint": self.endpoint}
        if file.size > LARGEST_BY_HTTP:
            options = place | {"local_dir": self.into, "token": self.token}
            self._patiently(lambda: self.library.hf_hub_download(self.repo, file.name, **options))
            if file.checksum is not None and (error := file.checksum.error(self.place(file), file.name, str(self.source))):
                self.place(file).unlink()
                raise error
            return
        url = self.library.hf_hub_url(self.repo, file.name, **place)
        try:
            download(url, self.place(file), file.checksum, token=self.token, tell=tell, patience=self.patience)
        except RefusedError as err:
            raise self._refused(err.status, err.code) from None

    def _patiently(self, call: Callable[[], T]) -> T:
        """What the library answers, after several attempts where that may help."""
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

        failures = 0
        while True:
            try:
                return call()
            except OfflineModeIsEnabled:
                raise OLMoEnvironmentError(f"{self.source}: HF_HUB_OFFLINE forbids to ask the hub; unset it to download") from None
            except (OSError, HTTPError) as err:
                answer = getattr(err, "response", None)
                if answer is not None and answer.status_code not in BUSY:
                    raise self._refused(answer.status_code, answer.headers.get("X-Error-Code", "")) from None
                failures += 1
                if failures >= self.patience.attempts:
                    raise OLMoDataError(f"{self.source}: {first_line(err)}, {failures} times in a row") from None
                log.info("%s: %s; trying again", self.source.repo, first_line(err))
                self.patience.wait(failures)

    def _refused(self, status: int, code: str) -> OLMoDataError:
        """An answer of the hub that another attempt would not change, as a sentence."""
        page = f"huggingface.co/datasets/{self.source.repo}"
        if code == "GatedRepo":
            return OLMoDataError(f"{page} is gated: accept its conditions there, make a token, and set HF_TOKEN to it")
        if status in (401, 403, 404):
            return OLMoDataError(f"{page} is not there, or only with a token in HF_TOKEN that may read it (the hub says {status})")
        return OLMoDataError(f"{page}: the hub says {status}")


def _checksum(sibling: Any) -> Checksum | None:
    """What the hub states: of large files their own checksum, of others the name that git gives the content."""
    if sibling.lfs is not None:
        return Checksum("sha256", sibling.lfs.sha256)
    return None if sibling.blob_id is None else Checksum("git", sibling.blob_id)
