"""Asking with patience: from the cache where the reply is known, else from the server, within budget and pace, again after failures."""

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmo.eval.judges.budget import Budget
from olmo.eval.judges.conversation import Message, Reply, estimate_tokens
from olmo.eval.judges.endpoint import Busy, Endpoint, NoAnswer
from olmo.eval.judges.pace import Pace
from olmo.eval.judges.reply_cache import ReplyCache, request_key

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds; pauses between attempts double until here."""
LONGEST_WISH = 600.0
"""Seconds that a server may ask to wait; a wish beyond (the limit of a day is reached) counts as no answer."""
OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")
"""Parameters that bound the length of a reply."""


class Unanswered(Exception):
    """All attempts failed."""


@dataclass(frozen=True)
class Patience:
    """How often a request is sent."""

    attempts: int = 6
    pause: float = 1.0
    """Seconds before the second attempt, doubled before every further one."""


def parameters_for(given: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """Parameters of a request: ours, then the user's; null takes one away, and the newer name of the longest reply replaces the older."""
    ours = {"temperature": 0} if "max_completion_tokens" in given else {"temperature": 0, "max_tokens": max_tokens}
    return {key: value for key, value in (ours | dict(given)).items() if value is not None}


class Asker:
    """Shared by all threads of a run."""

    def __init__(
        self,
        endpoint: Endpoint,
        cache: ReplyCache,
        budget: Budget,
        pace: Pace,
        patience: Patience | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.endpoint, self.cache, self.budget, self.pace = endpoint, cache, budget, pace
        self.patience, self.parameters = patience or Patience(), parameters or {}
        self.from_cache = self.answered = 0
        """Replies found, and replies received."""
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def ask(self, messages: Sequence[Message], max_tokens: int) -> Reply:
        """Reply to a request; two threads with the same request send it once.

        Raises `Unanswered`, `Refused`, `Stopped`, `BudgetSpent`, and `OLMoEnvironmentError` where nothing can succeed.
        """
        parameters = parameters_for(self.parameters, max_tokens)
        key = request_key(self.endpoint.base_url, self.endpoint.model, messages, parameters)
        with self._lock:
            lock = self._locks[key]
        with lock:
            reply = self.cache.get(key)
            if reply is not None:
                with self._lock:
                    self.from_cache += 1
                return reply
            reply = self._send(messages, parameters, max_tokens)
            self.cache.put(key, reply, {"model": self.endpoint.model, "messages": list(messages), **parameters})
        with self._lock:
            self.answered += 1
        return reply

    def _send(self, messages: Sequence[Message], parameters: Mapping[str, Any], max_tokens: int) -> Reply:
        longest = max((parameters[name] for name in OUTPUT_LIMITS if name in parameters), default=max_tokens)
        worst = (sum(estimate_tokens(m["content"]) for m in messages), longest)
        pause = self.patience.pause
        for attempt in range(1, self.patience.attempts + 1):
            self.pace.wait()
            self.budget.reserve(*worst)
            used = (0, 0)
            try:
                reply = self.endpoint.send(messages, parameters)
                used = _used(reply, worst[0])
                return reply
            except NoAnswer as err:
                used, failure, wish = worst, err, None  # it may be billed all the same
            except Busy as err:
                failure, wish = err, err.retry_after
            finally:
                self.budget.settle(worst, used)
            if attempt == self.patience.attempts or (wish or 0) > LONGEST_WISH:
                break
            log.debug("attempt %d: %s", attempt, failure)
            if wish is not None:
                self.pace.hold(wish)
            self.pace.pause(max(pause, wish or 0))
            pause = min(2 * pause, LONGEST_PAUSE)
        asked = f", and wants to be asked again in {wish:.0f} s" if wish else ""
        raise Unanswered(f"{failure} (attempt {attempt} of {self.patience.attempts}{asked})")


def _used(reply: Reply, prompt: int) -> tuple[int, int]:
    """Tokens on the bill, estimated where the server does not tell."""
    said = estimate_tokens(reply.text) if reply.reply_tokens is None else reply.reply_tokens
    return (prompt if reply.prompt_tokens is None else reply.prompt_tokens, said)
