"""Files of data sets on the Hugging Face hub: huggingface_hub fetches them, and large ones are held against the hub's checksum.

A repository is taken as of one commit. What arrived is noted (`Folder.note`), so that the next call asks for nothing that is there.
HF_ENDPOINT names another server that speaks like the hub, HF_TOKEN (or HF_ACCESS_TOKEN) opens gated sets.
"""

import errno
import inspect
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
from olmo.data.download.http import BUSY, Patience, Tell, disk_error, sha256_of, wrong_checksum
from olmo.data.sources import Hub
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, first_line, missing_package

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 8
"""Files that are fetched at a time."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class _HubFile:
    name: str
    size: int | None
    sha256: str | None


def fetch_hub(source: Hub, folder: Folder, tell: Tell, patience: Patience) -> list[Path]:
    """Bring all files of `source` into the folder; returns where they lie (or lay, where an archive was unpacked and removed)."""
    hub = _Hub(source, folder.path / source.into, patience)
    commit, files = hub.listing()
    account = _Account(source, folder, commit, files, tell)
    waiting = [f for f in files if not (folder.unpacked(hub.place(f)) or _same_size(hub.place(f), account.sizes.get(f.name)))]
    account.begin(waiting)

    def fetch(file: _HubFile) -> None:
        hub.fetch(file, commit, account)
        account.arrived(file, hub.place(file).stat().st_size)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(fetch, file) for file in waiting]
        try:
            for job in jobs:
                job.result()
        finally:
            account.stopped = True  # after an error or an interruption; else nobody reads it
            pool.shutdown(cancel_futures=True)
            account.write()
    return [hub.place(f) for f in files]


def _same_size(path: Path, size: int | None) -> bool:
    return size is not None and path.is_file() and path.stat().st_size == size


class _Stopped(Exception):
    """Leaves a download of which nobody wants the rest."""


class _Account:
    """What of a source is there, as several threads fetch it."""

    def __init__(self, source: Hub, folder: Folder, commit: str, files: Sequence[_HubFile], tell: Tell) -> None:
        self.source, self.folder, self.commit, self.tell = source, folder, commit, tell
        self.total = sum(f.size or 0 for f in files)
        noted = folder.noted(source)
        self.sizes: dict[str, int] = noted.get("files", {}) if noted.get("commit") == commit else {}
        """Of the files that are whole."""
        self.bytes = 0
        self.stopped = False
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()
        self._written = time.monotonic()

    def begin(self, waiting: Sequence[_HubFile]) -> None:
        self.bytes = self.total - sum(f.size or 0 for f in waiting)
        self.tell(self.bytes, self.total)

    def more(self, file: _HubFile, count: float) -> None:
        """`count` bytes of a file arrived (or are given up, if negative)."""
        if self.stopped:
            raise _Stopped
        with self._lock:
            self._running[file.name] = self._running.get(file.name, 0) + int(count)
            self.bytes += int(count)
            self.tell(self.bytes, self.total)

    def arrived(self, file: _HubFile, size: int) -> None:
        with self._lock:
            self.bytes += (file.size or 0) - self._running.pop(file.name, 0)
            self.sizes[file.name] = size
            self.tell(self.bytes, self.total)
        if time.monotonic() - self._written > 10:
            self.write()

    def write(self) -> None:
        with self._lock:
            self._written = time.monotonic()
            self.folder.note(self.source, {"commit": self.commit, "files": self.sizes})


class _Hub:
    """One repository as a source names it."""

    def __init__(self, source: Hub, into: Path, patience: Patience) -> None:
        try:
            import huggingface_hub
            from huggingface_hub.utils import disable_progress_bars
        except ImportError:
            raise missing_package("huggingface_hub", "data", f"fetching {source.repo}") from None
        disable_progress_bars()
        self.source, self.into, self.patience = source, into, patience
        self.library = huggingface_hub
        self.server = {
            "endpoint": os.environ.get("HF_ENDPOINT") or None,
            "token": os.environ.get("HF_TOKEN") or os.environ.get("HF_ACCESS_TOKEN") or None,
        }

    def place(self, file: _HubFile) -> Path:
        return self.into / file.name

    def listing(self) -> tuple[str, list[_HubFile]]:
        """(commit, the files that the source wants)."""
        api = self.library.HfApi(**self.server)
        info = self._patiently(lambda: api.dataset_info(self.source.repo, files_metadata=True, timeout=self.patience.timeout))
        files = [_HubFile(s.rfilename, s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings or ()]
        wanted = [f for f in files if any(fnmatch(f.name, pattern) for pattern in self.source.patterns)]
        for pattern in self.source.patterns:
            if not any(fnmatch(f.name, pattern) for f in wanted):
                raise OLMoDataError(f"{self.source}: there is no file '{pattern}'; it may have moved, see its page")
        for file in wanted:
            inside(file.name, self.source.repo)
        return info.sha, wanted

    def fetch(self, file: _HubFile, commit: str, account: _Account) -> None:
        """One file, resumed where it broke off."""
        options = {"repo_type": "dataset", "revision": commit, "local_dir": self.into, **self.server}
        if "tqdm_class" in inspect.signature(self.library.hf_hub_download).parameters:  # older versions tell nothing of a file's middle
            options["tqdm_class"] = self._counter(file, account)
        self._patiently(lambda: self.library.hf_hub_download(self.source.repo, file.name, **options))
        path = self.place(file)
        if file.sha256 is not None and (found := sha256_of(path)) != file.sha256:
            path.unlink()
            raise wrong_checksum(str(self.source), file.name, file.sha256, found)

    def _counter(self, file: _HubFile, account: _Account) -> type:
        """What the library takes for a progress bar of one file."""

        class Counter(self.library.utils.tqdm):
            def __init__(self, *words: Any, initial: float = 0, **options: Any) -> None:
                super().__init__(*words, initial=initial, **options)
                account.more(file, initial)

            def update(self, n: float | None = 1) -> None:
                account.more(file, n or 0)

        return Counter

    def _patiently(self, call: Callable[[], T]) -> T:
        from huggingface_hub.errors import HTTPError

        failures = 0
        while True:
            try:
                return call()
            except (OSError, HTTPError) as err:
                self._refuse(err)
                failures += 1
                if failures >= self.patience.attempts:
                    raise OLMoDataError(f"{self.source}: {first_line(err)}, {failures} times in a row") from None
                log.info("%s: %s; trying again", self.source.repo, first_line(err))
                self.patience.wait(failures)

    def _refuse(self, err: Any) -> None:
        """Raise where another attempt would be no better."""
        errors = self.library.errors
        page = f"huggingface.co/datasets/{self.source.repo}"
        if isinstance(err, errors.OfflineModeIsEnabled):
            raise OLMoEnvironmentError(f"{page}: HF_HUB_OFFLINE forbids to ask the hub; unset it to download") from None
        if isinstance(err, errors.GatedRepoError):
            raise OLMoDataError(f"{page} is gated: accept its conditions there, make a token, and set HF_TOKEN to it") from None
        if isinstance(err, errors.RepositoryNotFoundError):
            raise OLMoDataError(f"{page} is not there, or only with a token in HF_TOKEN that may read it") from None
        answer = getattr(err, "response", None)
        if answer is not None and answer.status_code not in BUSY:
            raise OLMoDataError(f"{page}: the server says {answer.status_code} ({first_line(err)})") from None
        if isinstance(err, OSError) and err.errno in _DISK:
            raise disk_error(err, self.into) from None


def wanted_archives(source: Hub, files: Sequence[Path], folder: Folder) -> list[Path]:
    """Those of the fetched files that the source wants unpacked."""
    top = folder.path / source.into
    return [f for f in files if any(fnmatch(f.relative_to(top).as_posix(), pattern) for pattern in source.unpack)]
