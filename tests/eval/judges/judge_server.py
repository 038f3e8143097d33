"""A judge on this machine: answers chat completions by looking at the tagged parts of the prompt, and misbehaves when told to."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass
class Fault:
    """What is done instead of an answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent as it is; None = the answer."""
    text: str | None = None
    """Said by the judge instead of an answer."""
    finish: str = "stop"
    drop: bool = False
    """The connection is closed without a word."""
    short: bool = False
    """The body ends early."""
    stall: float = 0.0
    """Seconds of silence before the answer."""
    drip: float = 0.0
    """Seconds between the bytes of the body."""


@dataclass
class JudgeServer:
    """How the server behaves, and what it was asked."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    """For the next requests."""
    always: Callable[[str], Fault | None] = lambda prompt: None
    """For prompts that it gives a fault, after the list."""
    usage: bool = True
    delay: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Every request."""
    times: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    """Authorization of every request."""
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def prompts(self) -> list[str]:
        """The last message of every request."""
        return [request["messages"][-1]["content"] for request in self.asked]


def tagged(prompt: str, tag: str) -> str:
    return re.search(rf"<{tag}>\n(.*)\n</{tag}>", prompt, re.S)[1]


def sensible(messages: list[dict[str, str]]) -> str:
    """What a careful judge would say. Words decide: a text states a statement that stands in it."""
    prompt = messages[0]["content"]
    if "<statements>" in prompt:
        text = tagged(prompt, "text").lower()
        lines = [line.split(". ", 1) for line in tagged(prompt, "statements").splitlines()]
        return "\n".join(f"{n}. {'Stated' if s.lower() in text else 'Not stated'}" for n, s in lines)
    if "atomic statements" in prompt:
        said = [s.strip() for s in tagged(prompt, "description").rstrip(".").split(".")]
        return "\n".join(f"{s} | {'Colour' if 'red' in s else 'action'}" for s in said)
    if "<description>" in prompt:
        options = re.findall(r"^([A-Z])\. (.*)$", tagged(prompt, "question"), re.M)
        return next((x for x, option in options if option in tagged(prompt, "description")), "None")
    if "accuracy:" in prompt:
        return "accuracy: 4\nrelevance: 5"
    if "completeness:" in prompt:
        return "completeness: 2\nreliability: 3"
    return "Correct" if tagged(prompt, "reference").lower() in tagged(prompt, "answer").lower() else "Incorrect"


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[JudgeServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        pass

    def do_POST(self) -> None:
        state = self.server_state
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state.asked.append(request | {"path": self.path})
        state.times.append(time.monotonic())
        state.keys.append(self.headers.get("Authorization"))
        fault = state.faults.pop(0) if state.faults else state.always(request["messages"][-1]["content"]) or Fault()
        state.closing.wait(fault.stall + state.delay)
        if fault.drop:
            self.close_connection = True
            return
        text = sensible(request["messages"]) if fault.text is None else fault.text
        reply: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": fault.finish}]}
        if state.usage:
            reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 10}
        self._send(fault, json.dumps(reply).encode() if fault.body is None else fault.body)

    def _send(self, fault: Fault, body: bytes) -> None:
        self.send_response(fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if fault.drip:
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    if self.server_state.closing.wait(fault.drip):
                        break
            else:
                self.wfile.write(body[:10] if fault.short else body)
        except OSError:
            pass  # the other side has lost its patience
        self.close_connection = fault.short or bool(fault.drip)


@contextmanager
def serving() -> Iterator[JudgeServer]:
    state = JudgeServer()
    handler = type("Handler", (_Handler,), {"server_state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
