"""What a run of judging may spend, kept before a request is sent: the worst case is reserved, and freed when the bill is known."""

import threading
from dataclasses import dataclass

from olmo.exceptions import OLMoError


class BudgetSpent(OLMoError):
    """The next request could go over a limit."""


@dataclass(frozen=True)
class Limits:
    """Limits of one run; None = no limit."""

    requests: int | None = None
    """Requests that are sent, repeated ones too."""
    tokens: int | None = None
    """Of prompts and replies together."""
    cost: float | None = None
    """USD, at the prices below."""
    price_prompt: float = 0.0
    """USD per million tokens."""
    price_reply: float = 0.0

    def price(self, prompt: int, reply: int) -> float:
        """USD of so many tokens."""
        return (prompt * self.price_prompt + reply * self.price_reply) / 1e6


class Budget:
    """Counts what is spent and what may be spent by the requests on their way."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = self.prompt_tokens = self.reply_tokens = 0
        """Spent."""
        self._reserved = [0, 0]
        self._on_the_way = 0
        self._spent: str | None = None
        self._changed = threading.Condition()

    @property
    def cost(self) -> float:
        return self.limits.price(self.prompt_tokens, self.reply_tokens)

    def reserve(self, prompt: int, reply: int) -> None:
        """Take room for one request, waiting while requests on their way may still give some back.

        Raises `BudgetSpent` when there is none, then and ever after: a smaller request that would still fit is not waited for.
        """
        with self._changed:
            while self._spent is None and (limit := self._exceeded(prompt, reply)):
                if self._on_the_way == 0 or limit == "max_requests":
                    self._spent = limit
                    self._changed.notify_all()
                else:
                    self._changed.wait()
            if self._spent is not None:
                raise BudgetSpent(f"the next request could exceed --{self._spent}")
            self.requests += 1
            self._on_the_way += 1
            self._reserved[0] += prompt
            self._reserved[1] += reply

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """A request is over: give back what was reserved for it, and count what it used."""
        with self._changed:
            self._on_the_way -= 1
            for kind in (0, 1):
                self._reserved[kind] -= reserved[kind]
            self.prompt_tokens += used[0]
            self.reply_tokens += used[1]
            self._changed.notify_all()

    def _exceeded(self, prompt: int, reply: int) -> str | None:
        """The flag of the limit that one more request could exceed."""
        prompt += self.prompt_tokens + self._reserved[0]
        reply += self.reply_tokens + self._reserved[1]
        limits = self.limits
        if limits.requests is not None and self.requests + 1 > limits.requests:
            return "max_requests"
        if limits.tokens is not None and prompt + reply > limits.tokens:
            return "max_tokens_total"
        if limits.cost is not None and limits.price(prompt, reply) > limits.cost:
            return "max_cost"
        return None
