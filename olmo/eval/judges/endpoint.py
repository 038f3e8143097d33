"""One request to a server that speaks the chat-completions protocol of OpenAI: sent once, its outcome told apart.

The protocol is one POST of JSON, which the standard library can do. What matters here is ours anyhow: when to try again, what may have
been billed, and a deadline that also holds for a server that sends a byte now and then.
"""

import email.utils
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmo.eval.judges.conversation import Message, Reply
from olmo.exceptions import OLMoEnvironmentError, first_line
from olmo.version import __version__

BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Answers of a server that may be another one a little later."""
REFUSED = (400, 413, 422)
"""Answers to a request that stay the same; another request may fare better."""
MOST_BYTES = 64 << 20
"""Longest body that is read."""


class Busy(Exception):
    """The server cannot answer now; nothing was billed."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class NoAnswer(Exception):
    """The connection broke or the server was silent for too long. It may have worked, and billed."""


class Refused(Exception):
    """The server does not accept this request."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is for the server that the user named."""

    def redirect_request(self, *args):
        return None


@dataclass(frozen=True)
class Endpoint:
    """A server, and who is asked there."""

    base_url: str
    """Up to the version: https://api.openai.com/v1"""
    model: str
    api_key: str | None = None
    """Sent as a bearer token; None for servers that want none."""
    timeout: float = 120.0
    """Seconds until a reply must be there as a whole."""

    def __repr__(self) -> str:
        return f"{self.model} at {self.base_url}"

    def send(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Reply:
        """Ask once. Raises `Busy`, `NoAnswer` or `Refused`, and `OLMoEnvironmentError` where no request can ever succeed."""
        content = {"model": self.model, "messages": list(messages), **parameters}
        request = urllib.request.Request(f"{self.base_url}/chat/completions", json.dumps(content).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", f"olmo/{__version__}")
        if self.api_key:
            request.add_header("Authorization", f"Bearer {self.api_key}")
        deadline = time.monotonic() + self.timeout
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
                body = _read(response, deadline)
        except urllib.error.HTTPError as err:
            raise self._refusal(err) from None
        except urllib.error.URLError as err:  # before the request was there as a whole
            told = f"{self.base_url}: {first_line(err.reason) if isinstance(err.reason, Exception) else err.reason}"
            if isinstance(err.reason, ssl.SSLCertVerificationError):
                raise OLMoEnvironmentError(told) from None
            raise Busy(told) from None
        except TimeoutError:
            raise NoAnswer(f"{self.base_url}: no reply within {self.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as err:
            raise NoAnswer(f"{self.base_url}: the connection broke ({first_line(err)})") from None
        return _reply(body, self.base_url)

    def _refusal(self, err: urllib.error.HTTPError) -> Exception:
        """What an HTTP error means."""
        with err:
            try:
                body = err.read(1 << 16).decode(errors="replace")
            except (OSError, http.client.HTTPException):
                body = ""
        message, code = _error_of(body)
        told = f"{self.base_url} answers {err.code}" + (f": {message}" if message else "")
        if code == "insufficient_quota":
            return OLMoEnvironmentError(told)
        if err.code in BUSY:
            return Busy(told, _retry_after(err.headers.get("Retry-After")))
        if err.code in REFUSED:
            return Refused(told)
        if err.code in (401, 403):
            return OLMoEnvironmentError(f"{told}; is the key right that --api_key_env names?")
        if err.code == 404:
            return OLMoEnvironmentError(f"{told}; are --base_url (it ends in /v1 mostly) and --model {self.model} right?")
        if 300 <= err.code < 400:
            return OLMoEnvironmentError(f"{told} and points to {err.headers.get('Location')}; give the address itself as --base_url")
        return OLMoEnvironmentError(told)


def _read(response, deadline: float) -> bytes:
    """The body, piece by piece as it comes, until the deadline. One that ends early is no JSON, which is found later."""
    body = bytearray()
    while piece := response.read1(1 << 16):
        body += piece
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(body) > MOST_BYTES:
            raise http.client.HTTPException(f"the reply is longer than {MOST_BYTES >> 20} MB")
    return bytes(body)


def _error_of(body: str) -> tuple[str, str]:
    """(message, code) of an error in JSON, or the begin of whatever was sent."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        return (str(error["message"])[:300], str(error.get("code"))) if isinstance(error, dict) else (str(error)[:300], "")
    except (json.JSONDecodeError, AttributeError, KeyError):
        return " ".join(body.split())[:200], ""


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form of the header; None where it says nothing that can be read."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _reply(body: bytes, where: str) -> Reply:
    """The first choice of a completion. A body of another shape is a fault of the server, like an error 500."""
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        text, end, usage = choice["message"]["content"] or "", choice.get("finish_reason"), content.get("usage") or {}
        text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.S)  # thoughts that a server left in
        return Reply(text, end in ("length", "content_filter"), _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise NoAnswer(f"{where}: the reply is no chat completion: {body[:80].decode(errors='replace')!r}") from None


def _count(usage: Mapping[str, Any], key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) and value >= 0 else None
