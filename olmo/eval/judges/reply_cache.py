"""Replies on disk, one file each, under the sha256 of everything that they depend on."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from olmo.eval.judges.conversation import Message, Reply
from olmo.exceptions import OLMoEnvironmentError

log = logging.getLogger(__name__)


def digest(*parts: Any) -> str:
    """sha256 of values that JSON can express; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def request_key(base_url: str, model: str, messages: Sequence[Message], parameters: Mapping[str, Any]) -> str:
    """Name of the reply to a request. Two servers may call different models by one name."""
    return digest(base_url, model, list(messages), dict(parameters))


class ReplyCache:
    """A folder of replies; a file is there as a whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Reply | None:
        path = self._path(key)
        try:
            return Reply(**json.loads(path.read_text(encoding="utf-8"))["reply"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            log.warning("%s is not a saved reply; asking again", path)
            return None

    def put(self, key: str, reply: Reply, request: Mapping[str, Any]) -> None:
        """Keep a reply, with the request for those who want to know."""
        path = self._path(key)
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"request": request, "reply": asdict(reply)}, ensure_ascii=False, indent=1), encoding="utf-8")
            os.replace(part, path)
        except OSError as err:
            raise OLMoEnvironmentError(f"cannot write replies to {self.folder}: {err.strerror or err}") from None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
