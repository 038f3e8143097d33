"""Folders of checkpoints on a disk or in an object store, reached alike through fsspec.

A disk can rename, so what is written there becomes visible at once. An object store cannot: there a checkpoint exists
when its marker does, which is written last (`marker.py`).
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError, first_line, missing_package

PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""What fsspec needs for other object stores than S3, whose package is in the extra `cloud`."""


def is_url(location: str | os.PathLike) -> bool:
    """Whether this names an object store (`s3://bucket/run`) and not a folder on a disk."""
    return bool(re.match(r"[a-z][a-z0-9+.-]+://", str(location))) and not str(location).startswith("file://")


class HashingStream:
    """A file being written that knows its length and its SHA-256 as far as it is written."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.length, self._hash = stream, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.stream.write(data)
        self._hash.update(data)
        size = memoryview(data).nbytes
        self.length += size
        return size

    def tell(self) -> int:
        return self.length

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        """Closing is the business of `Store.writing`: until then the file may still be given up."""

    def entry(self) -> dict[str, Any]:
        """How the marker describes the file."""
        return {"bytes": self.length, "sha256": self._hash.hexdigest()}


class Store:
    """A folder of checkpoints. Names are paths below it, with slashes."""

    def __init__(self, location: str | os.PathLike) -> None:
        self.location = str(location).rstrip("/") if is_url(location) else str(location).removeprefix("file://")
        self.renames = not is_url(location)
        """Whether this is a disk: names can be changed, and folders exist by themselves."""
        if self.renames:
            self.fs, self.root = LocalFileSystem(), str(Path(self.location).absolute())
            return
        scheme = self.location.partition("://")[0]
        try:
            self.fs, self.root = url_to_fs(self.location, use_listings_cache=False)
        except ImportError as err:
            if scheme in ("s3", "s3a"):
                raise missing_package("s3fs", "cloud", f"{scheme}://") from err
            package = f": pip install {PACKAGES[scheme]}" if scheme in PACKAGES else f" ({first_line(err)})"
            raise OLMoEnvironmentError(f"{scheme}:// needs a package that is not installed{package}") from err
        except ValueError:
            raise OLMoConfigurationError(f"{self.location}: the kind of store {scheme}:// is not known") from None

    def __str__(self) -> str:
        return self.location

    def path(self, name: str = "") -> str:
        """The path as the file system has it."""
        return f"{self.root}/{name}" if name else self.root

    def url(self, name: str) -> str:
        """The path as a user would write it."""
        return f"{self.location}/{name}"

    # ------------------------------------------------------------------------------------------ reading

    def files(self, folder: str) -> dict[str, int]:
        """Name below `folder` -> bytes, of all files there; empty if there is no such folder."""
        self.fs.invalidate_cache()
        top = self.path(folder)
        try:
            found = self.fs.find(top, detail=True)
        except FileNotFoundError:
            return {}
        prefix = self.fs._strip_protocol(top) + "/"
        return {p.removeprefix(prefix): info["size"] for p, info in found.items() if p.startswith(prefix)}

    def folders(self) -> list[str]:
        """Names of the folders here."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(Path(info["name"]).name for info in found if info["type"] == "directory")

    def exists(self, name: str) -> bool:
        self.fs.invalidate_cache()
        return self.fs.exists(self.path(name))

    def read(self, name: str) -> bytes:
        with self.fs.open(self.path(name), "rb") as file:
            return file.read()

    # ------------------------------------------------------------------------------------------ writing

    @contextmanager
    def writing(self, name: str) -> Iterator[HashingStream]:
        """A new file; on a disk it is there to stay (fsync) when the block ends. After an error nothing is promised of it."""
        file = self.fs.open(self.path(name), "wb")
        try:
            stream = HashingStream(file)
            yield stream
            if self.renames:
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(Exception):  # the first error is the one that matters
                file.discard() if hasattr(file, "discard") and not self.renames else file.close()
            raise
        file.close()

    def write(self, name: str, data: bytes) -> dict[str, Any]:
        """Write a small file; returns its entry for the marker."""
        with self.writing(name) as stream:
            stream.write(data)
        return stream.entry()

    def make_folder(self, name: str) -> None:
        if self.renames:
            os.makedirs(self.path(name), exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name (an object store copies it: only for small ones)."""
        if self.renames:
            os.replace(self.path(old), self.path(new))
        else:
            self.fs.mv(self.path(old), self.path(new))

    def sync_folder(self, name: str) -> None:
        """See to it that the names in a folder of a disk survive a loss of power."""
        if self.renames:
            with suppress(OSError):  # some network file systems cannot
                handle = os.open(self.path(name), os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def delete_file(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def delete(self, folder: str) -> None:
        """Delete a folder with all that is in it; fine if there is none."""
        if self.renames:
            if os.path.isdir(self.path(folder)):
                shutil.rmtree(self.path(folder))
            return
        for name in self.files(folder):
            self.delete_file(f"{folder}/{name}")

    def probe(self) -> None:
        """Write and delete a byte, so that a place that cannot be written shows before anything expensive is built."""
        self.make_folder("")
        name = f".probe-{os.getpid()}"
        self.write(name, b"0")
        self.delete_file(name)
        if not self.renames and self.exists(name):
            raise OSError(errno.EPERM, "a file that was written cannot be deleted again", self.url(name))
