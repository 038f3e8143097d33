"""A web server on this machine that serves files out of a dict, and misbehaves when told to; it can also speak like the hub."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_name(content: bytes) -> str:
    """The checksum of small files on the hub."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Web:
    """What the server has, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> content."""
    served: dict[str, bytes] = field(default_factory=dict)
    """What is sent instead."""
    commit: str = COMMIT
    drops: list[int] = field(default_factory=list)
    """The next answers with a body end after so many bytes of it, and the connection breaks."""
    statuses: list[int] = field(default_factory=list)
    """The next requests are answered by these."""
    error_code: str = ""
    """What the hub calls the error when it refuses."""
    content_type: str = "application/octet-stream"
    ranges: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    """Path -> where it has moved."""
    etag: str | None = '"one"'
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range) of every request."""
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Authorization) of every request."""
    lfs: dict[str, str] = field(default_factory=dict)
    """Of the hub: file -> the checksum that it states."""

    def ranges_of(self, path: str) -> list[str | None]:
        return [asked for method, p, asked in self.asked if method == "GET" and p == path]


class _Handler(BaseHTTPRequestHandler):
    web: ClassVar[Web]
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        web, path = self.web, self.path.partition("?")[0]
        web.asked.append((self.command, path, self.headers.get("Range")))
        web.tokens.append((path, self.headers.get("Authorization")))
        if web.statuses and (status := web.statuses.pop(0)) != 200:
            self._send(status, b"", {"Retry-After": "0", "X-Error-Code": web.error_code}, body)
            return
        if path in web.redirects:
            self._send(302, b"", {"Location": web.redirects[path]}, body)
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)", path):
            self._listing(match[1], body)
        elif match := re.fullmatch(rf"/datasets/[^/]+/[^/]+/resolve/{web.commit}/(.*)", path):
            self._file(match[1], body, {"X-Repo-Commit": web.commit})
        else:
            self._file(path, body, {})

    def _listing(self, repo: str, body: bool) -> None:
        siblings = []
        for name, content in self.web.files.items():
            entry = {"rfilename": name, "size": len(content), "blobId": git_name(content)}
            if name in self.web.lfs:
                entry["lfs"] = {"size": len(content), "sha256": self.web.lfs[name], "pointerSize": 130}
            siblings.append(entry)
        answer = {"id": repo, "sha": self.web.commit, "siblings": siblings, "private": False, "downloads": 0, "likes": 0, "tags": []}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, name: str, body: bool, headers: dict[str, str]) -> None:
        web = self.web
        content = web.served.get(name, web.files.get(name))
        if content is None:
            self._send(404, b"not here", {}, body)
            return
        headers = headers | {"Content-Type": web.content_type, "Accept-Ranges": "bytes"}
        etag = f'"{hashlib.md5(content).hexdigest()}"' if "X-Repo-Commit" in headers else web.etag
        if etag is not None:
            headers["ETag"] = etag
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, etag)
        if match is None or not web.ranges or not same:
            self._send(200, content, headers, body)
            return
        start = int(match[1])
        if start >= len(content):
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"}, body)
            return
        self._send(206, content[start:], headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        if content and self.web.drops and "application/json" not in headers.get("Content-Type", ""):
            content = content[: self.web.drops.pop(0)]
            self.close_connection = True
        self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    handler = type("Handler", (_Handler,), {"web": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
