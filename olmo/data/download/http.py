"""One file from a web server: resumed where it broke off, checked, and put under its name only when it is whole.

What has arrived waits beside the target as NAME.part, with a note on which version of the file it belongs to. So a download that is
started again (the next attempt, or the next day) goes on where it stopped, and never joins two versions.
"""

import hashlib
import http.client
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, first_line
from olmo.version import __version__

log = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes read at once."""

LONGEST_PAUSE = 60.0
"""Seconds; pauses between attempts double until here."""

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may be another one a little later."""

Tell = Callable[[int, int | None], None]
"""Told (bytes that are there, bytes in all, where known)."""


@dataclass(frozen=True)
class Patience:
    """How long a download is tried."""

    attempts: int = 6
    """In a row without a single new byte."""
    pause: float = 1.0
    """Seconds before the second of them; doubled every time."""
    timeout: float = 60.0
    """Seconds without a sign of the server."""

    def wait(self, failures: int, asked: float | None = None) -> None:
        """Sleep after the attempt number `failures`; `asked`: what the server wishes."""
        time.sleep(min(LONGEST_PAUSE, max(self.pause * 2 ** (failures - 1), asked or 0)))


@dataclass(frozen=True)
class Checksum:
    """What the content of a file must add up to."""

    kind: Literal["sha256", "git"]
    """git: the name that git gives the content (SHA-1 of its length and itself)."""
    value: str
    """Hexadecimal."""

    def of(self, path: Path) -> str:
        """That of a file."""
        with open(path, "rb") as file:
            if self.kind == "sha256":
                return hashlib.file_digest(file, "sha256").hexdigest()
            digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
            while block := file.read(CHUNK):
                digest.update(block)
            return digest.hexdigest()

    def error(self, path: Path, name: str, source: str) -> OLMoDataError | None:
        """What to say when a file that adds up to something else was deleted; None if it is right."""
        if (found := self.of(path)) == self.value:
            return None
        sums = f"expected {self.kind} {self.value}, found {found}"
        return OLMoDataError(f"{source}: the checksum of {name} is wrong: {sums}; what was fetched is deleted")


class RefusedError(OLMoDataError):
    """A server's answer that another attempt would not change."""

    def __init__(self, url: str, status: int, reason: str, code: str) -> None:
        super().__init__(f"{url}: the server says {status} {reason}")
        self.status, self.code = status, code


class _Dropped(Exception):
    """The connection broke, or the server is busy: worth another attempt."""

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


def name_of(url: str) -> str:
    """The file name at the end of an address."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name:
        raise OLMoDataError(f"{url} does not end with the name of a file")
    return name


def download(
    url: str,
    target: Path,
    checksum: Checksum | None = None,
    *,
    token: str | None = None,
    tell: Tell = lambda done, total: None,
    patience: Patience | None = None,
) -> None:
    """Bring `url` to `target`, unless it is there (and adds up to the checksum, if one is known).

    `token`: shown to the server that is named, and to none that it points to. OLMoDataError names the address and what the server or the
    file is like; OLMoEnvironmentError says what this machine lacks.
    """
    patience = patience or Patience()
    try:
        if target.exists():
            if checksum is None or checksum.of(target) == checksum.value:
                return
            log.warning("%s is not the file that %s promises: it is fetched again", target, url)
        part = _Part(target, url, token)
        target.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        while True:
            before = part.size
            try:
                part.go_on(tell, patience.timeout, page_is_wanted=checksum is not None)
                break
            except _Dropped as err:
                failures = 1 if part.size > before else failures + 1
                if failures >= patience.attempts:
                    have = f"; {part.size} bytes are there, and the next call goes on from them" if part.size else ""
                    raise OLMoDataError(f"{url}: {err}, {failures} times in a row{have}") from None
                log.info("%s: %s; trying again", url, err)
                patience.wait(failures, err.asked)
        if checksum is not None and (error := checksum.error(part.path, target.name, url)):
            part.remove()
            raise error
        part.finish()
    except OSError as err:
        raise disk_error(err, target) from None


def disk_error(err: OSError, path: Path) -> OLMoEnvironmentError:
    """What a user is told when a file cannot be written."""
    free = shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.exists())).free
    return OLMoEnvironmentError(f"{path} cannot be written: {err.strerror or err} ({free / 1e9:.1f} GB are free there)")


class _Part:
    """The beginning of a file, and which version of the file it is the beginning of."""

    def __init__(self, target: Path, url: str, token: str | None) -> None:
        self.target, self.url, self.token = target, url, token
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.version = self._noted()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _noted(self) -> str | None:
        """The version that the bytes belong to; bytes of unknown origin are given up."""
        try:
            note = json.loads(self.note.read_text())
            if note["url"] == self.url:
                return note["version"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.path.unlink(missing_ok=True)
        return None

    def _begin(self, version: str | None) -> None:
        self.path.unlink(missing_ok=True)
        self.note.write_text(json.dumps({"url": self.url, "version": version}))
        self.version = version

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self) -> None:
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)

    def go_on(self, tell: Tell, timeout: float, page_is_wanted: bool) -> None:
        """Fetch what is missing; returns when the file is whole."""
        have = self.size
        headers = {"User-Agent": f"olmo/{__version__}"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.version is not None:
                headers["If-Range"] = self.version
        request = urllib.request.Request(self.url, headers=headers)
        if self.token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        answer = _ask(request, timeout)
        if answer is None:  # nothing lies behind what is there
            if self.version is None or not have:
                self.remove()
                raise _Dropped("the server has nothing behind what was fetched before")
            return
        with answer:
            begin, total = _extent(answer)
            if begin not in (0, have):
                self.remove()
                raise _Dropped(f"the server sends byte {begin} and what follows, not byte {have}")
            if not page_is_wanted and answer.headers.get_content_type() == "text/html" and self.target.suffix not in (".html", ".htm"):
                raise OLMoDataError(
                    f"{self.url}: the server sends a web page instead of {self.target.name}; open it in a browser, "
                    f"and put the file into {self.target.parent}"
                )
            if begin == 0:
                self._begin(_version(answer))
            self._receive(answer, total, tell)

    def _receive(self, answer: http.client.HTTPResponse, total: int | None, tell: Tell) -> None:
        done = self.size
        with open(self.path, "ab") as file:
            tell(done, total)
            while block := _read(answer):
                file.write(block)
                done += len(block)
                tell(done, total)
        if total is not None and done != total:
            if done > total:
                self.remove()
            raise _Dropped(f"the connection ended after {done} of {total} bytes")


def _ask(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse | None:
    """The server's answer; None where it says that the range asked for is empty."""
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as err:
        with err:
            if err.code == 416:
                return None
            reason = f"the server says {err.code} {err.reason}"
            if err.code in BUSY:
                asked = err.headers.get("Retry-After", "")
                raise _Dropped(reason, float(asked) if asked.isdigit() else None) from None
            raise RefusedError(request.full_url, err.code, err.reason, err.headers.get("X-Error-Code", "")) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as err:
        raise _Dropped(f"no connection ({first_line(getattr(err, 'reason', err) or err)})") from None
    except ValueError as err:
        raise OLMoDataError(f"{request.full_url} is no address of a file ({err})") from None


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(CHUNK)
    except (http.client.HTTPException, OSError) as err:
        raise _Dropped(f"the connection broke ({first_line(err)})") from None


def _extent(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """(first byte that comes, size of the whole file)."""
    if answer.status == 206:
        first, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").replace("-", "/", 1).split("/", 2)
        return int(first) if first.isdigit() else -1, int(total) if total.isdigit() else None
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _version(answer: http.client.HTTPResponse) -> str | None:
    """What If-Range may compare: a strong ETag, or else the date."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
