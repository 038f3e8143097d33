"""Unpacking archives of other people: nothing is written outside the folder, and nothing stands there before all of it is unpacked.

A zip and a tar are read as the same sequence of members, and one piece of code writes them. Links are made last, when no file can be
written through them any more, and only those that stay inside. What an archive says about owners and permissions is ignored.
"""

import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from olmo.data.download.http import CHUNK, disk_error
from olmo.exceptions import OLMoDataError, first_line

_SPLIT = re.compile(r"(?P<whole>.+?\.(?:tar|tar\.gz|tgz|zip))\.(?:part[._-]?(?:[a-z]{2,3}|\d{1,4})|[a-z]{2}|\d{2,4})")
_CUT = re.compile(r"(?P<stem>.+)_part_(?:[a-z]{2}|\d{1,4}(?=\.tar\.gz))(?P<end>\.tar\.gz)?")
"""Pieces that were named before or without their ending: `long_video_part_aa`, `videos_part_001.tar.gz`."""
_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    NotImplementedError,  # how zipfile says that it does not know a member's compression
)


@dataclass(frozen=True)
class Archive:
    """An archive, in one file or cut into several (in their order)."""

    name: str
    files: tuple[Path, ...]


def whole_name(name: str) -> str | None:
    """The name of the archive that a file is, or is a piece of; None for other files."""
    if match := _CUT.fullmatch(name):
        return match["stem"] + (match["end"] or "")
    if name.lower().endswith(_SUFFIXES):
        return name
    match = _SPLIT.fullmatch(name)
    return match["whole"] if match else None


def as_archives(files: Sequence[Path]) -> list[Archive]:
    """The archives that these files are (whatever they are called), pieces of one joined in the order of their names."""
    pieces: dict[Path, list[Path]] = {}
    for file in sorted(files):
        pieces.setdefault(file.with_name(whole_name(file.name) or file.name), []).append(file)
    return [Archive(whole.name, tuple(files)) for whole, files in sorted(pieces.items())]


def unpack(archive: Archive, into: Path, workshop: Path) -> int:
    """Unpack all of it below `into`; returns the number of files.

    It is unpacked in the folder `workshop` on the same disk first, which is removed again. Files that `into` has already are replaced.
    """
    shutil.rmtree(workshop, ignore_errors=True)
    where = archive.files[0]
    try:
        workshop.mkdir(parents=True)
        count = _write_members(archive, workshop)
        _move_into(workshop, into)
        return count
    except _BROKEN as err:
        raise OLMoDataError(f"{where} is broken ({first_line(err)}); delete it and fetch it again") from None
    except OSError as err:
        raise disk_error(err, into) from None
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


# -- members


@dataclass(frozen=True)
class _Member:
    name: str
    kind: Literal["file", "folder", "link", "same_file"]
    target: str = ""
    """Of a link: relative to the link; of another name of the same file: from the top of the archive."""
    content: IO[bytes] | None = None


def _write_members(archive: Archive, folder: Path) -> int:
    links: list[tuple[_Member, Path]] = []
    count = 0
    with _open(archive) as members:
        for member in members:
            path = folder / inside(member.name, archive.name)
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            count += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.kind == "file":
                with member.content, open(path, "wb") as out:
                    shutil.copyfileobj(member.content, out, CHUNK)
            else:
                links.append((member, path))
    for member, path in links:
        _write_link(member, path, folder, archive.name)
    return count


def inside(name: str, source: str) -> PurePosixPath:
    """A name from elsewhere as a path that stays below the folder it is joined to, or an error that names `source`."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise OLMoDataError(f"{source} is not unpacked: its member '{name}' would lie outside the folder")
    return path


def _write_link(member: _Member, path: Path, folder: Path, source: str) -> None:
    root = os.path.realpath(folder)
    start = folder if member.kind == "same_file" else path.parent
    target = os.path.realpath(os.path.join(os.path.realpath(start), member.target))
    if os.path.isabs(member.target) or os.path.commonpath([root, target, os.path.realpath(path.parent)]) != root:
        raise OLMoDataError(f"{source} is not unpacked: its link '{member.name}' leads outside the folder, to '{member.target}'")
    path.unlink(missing_ok=True)
    if member.kind == "link":
        path.symlink_to(member.target)
    elif os.path.isfile(target):
        os.link(target, path)
    else:
        raise OLMoDataError(f"{source} is broken: '{member.name}' stands for '{member.target}', which it does not hold")


@contextlib.contextmanager
def _open(archive: Archive) -> Iterator[Iterator[_Member]]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(io.BufferedReader(_Joined(archive.files), CHUNK))
        begin = file.read(512)
        file.seek(0)
        if begin.startswith(b"PK"):
            yield _zip_members(stack.enter_context(zipfile.ZipFile(file)))
            return
        try:
            tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header))
        except tarfile.ReadError:
            kind = "a web page" if begin.lstrip()[:1] == b"<" else "no zip or tar archive"
            raise OLMoDataError(f"{archive.files[0]} is {kind}; delete it and fetch it again, or by hand from its page") from None
        yield _tar_members(tar)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")
        if info.flag_bits & 1:
            raise OLMoDataError(f"{name} in the archive is encrypted: unpack it by hand with the publisher's password")
        if info.is_dir() or name.endswith("/"):
            yield _Member(name, "folder")
        elif stat.S_ISLNK(info.external_attr >> 16):
            yield _Member(name, "link", archive.read(info).decode(errors="surrogateescape"))
        else:
            yield _Member(name, "file", content=archive.open(info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if info.isdir():
            yield _Member(info.name, "folder")
        elif info.isreg():
            yield _Member(info.name, "file", content=archive.extractfile(info))
        elif info.issym() or info.islnk():
            yield _Member(info.name, "link" if info.issym() else "same_file", info.linkname)
        else:
            raise OLMoDataError(f"{info.name} in the archive is a device or a pipe, which no data set needs; it is not unpacked")
        archive.members.clear()  # or a million of them would be kept
    while archive.fileobj.read(CHUNK):  # a compressed stream checks itself when it is read to its end
        pass


class _Header(tarfile.TarInfo):
    """A damaged header behind the first is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as err:
            raise tarfile.ReadError(f"{err} at byte {archive.offset}") from None


class _Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [open(file, "rb") for file in files]
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._size, self._place = sum(sizes), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence])
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer) -> int:
        number = max((i for i, start in enumerate(self._starts) if start <= self._place), default=0)
        self._files[number].seek(self._place - self._starts[number])
        count = self._files[number].readinto(buffer)
        self._place += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _move_into(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`; folders that both have are joined."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(source):
        to = target / entry.name
        if entry.is_dir(follow_symlinks=False) and to.is_dir():
            _move_into(Path(entry.path), to)
        else:
            os.replace(entry.path, to)
