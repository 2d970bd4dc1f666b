"""Rate limits that the server knows: requests in flight, requests and tokens a time, for each API key.

A token bucket a rate: it holds a second's worth (a minute's for the rates a minute), starts full and fills steadily.
A request is admitted with an estimate of its tokens, and settled with those that its reply used; a request that is
refused takes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from taskgalaxy_ops.simulator.config import Limits

_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    """``rate`` a second, at most ``size``; ``level`` as it was ``at`` that second."""

    rate: float
    size: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until this much may be taken; what is larger than the bucket may go when it is full."""
        return max(0.0, min(amount, self.size) - self.level) / self.rate

    @property
    def reset(self) -> float:
        """Seconds until it is full."""
        return (self.size - self.level) / self.rate


@dataclass(slots=True)
class Account:
    """What one key (or one model of a key) has under way and left."""

    requests: list[_Bucket]
    tokens: _Bucket | None
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not admitted, and when it may be."""

    message: str
    seconds: float
    kind: str  # OpenAI's error type: requests or tokens


@dataclass(slots=True)
class Slot:
    """An admitted request; to be released once."""

    account: Account
    estimate: float

    def release(self, tokens: int | None) -> None:
        """The reply is made, with so many tokens; None: none were used."""
        self.account.in_flight -= 1
        if self.account.tokens is not None:
            self.account.tokens.level += self.estimate - (tokens or 0)


@dataclass(slots=True)
class Gate:
    """Admits requests by ``limits``; for one thread. ``clock`` counts seconds."""

    limits: Limits
    clock: Callable[[], float] = time.monotonic
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)

    def admit(self, key: str, model: str, tokens: int) -> Slot | Refused:
        """A slot for a request of about this many tokens, or why there is none."""
        account, limits = self.account(key, model), self.limits
        if limits.concurrency is not None and account.in_flight >= limits.concurrency:
            return Refused(f"{limits.concurrency} requests are in flight", limits.busy_seconds, "requests")
        if wait := max((bucket.wait(1) for bucket in account.requests), default=0.0):
            return Refused("too many requests a time", wait, "requests")
        if account.tokens is not None:
            if wait := account.tokens.wait(tokens):
                return Refused("too many tokens a minute", wait, "tokens")
            account.tokens.level -= tokens
        for bucket in account.requests:
            bucket.level -= 1
        account.in_flight += 1
        return Slot(account, tokens)

    def account(self, key: str, model: str) -> Account:
        """The account that a key's request to a model goes to, as it stands now."""
        name = (key, model if self.limits.by == "model" else "")
        now = self.clock()
        if name not in self.accounts:
            self.accounts[name] = self._opened(now)
        account = self.accounts[name]
        for bucket in (*account.requests, *([account.tokens] if account.tokens else [])):
            bucket.fill(now)
        return account

    def _opened(self, now: float) -> Account:
        def bucket(amount: float, seconds: float) -> _Bucket:
            size = max(1.0, amount)
            return _Bucket(amount / seconds, size, size, now)

        limits = self.limits
        rates = ((limits.requests_per_second, 1.0), (limits.requests_per_minute, _MINUTE))
        tokens = bucket(limits.tokens_per_minute, _MINUTE) if limits.tokens_per_minute is not None else None
        return Account([bucket(amount, seconds) for amount, seconds in rates if amount is not None], tokens)

    def headers(self, key: str, model: str, refused: Refused | None = None) -> dict[str, str]:
        """What a reply tells of the limits: OpenAI's ``x-ratelimit-…``, and with a 429 when to come back.

        Limits are told a minute; of two rates of requests, the one that has less left.
        """
        told: dict[str, str] = {}
        if refused is not None and self.limits.retry_after:
            told["retry-after"] = str(math.ceil(refused.seconds))
            told["retry-after-ms"] = str(math.ceil(refused.seconds * 1000))
        if not self.limits.headers:
            return told
        account = self.account(key, model)
        scarce = min(account.requests, key=lambda bucket: bucket.level, default=None)
        for name, bucket in (("requests", scarce), ("tokens", account.tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{name}"] = str(int(bucket.rate * _MINUTE))
                told[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level)))
                told[f"x-ratelimit-reset-{name}"] = duration(bucket.reset)
        return told


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: ``12ms``, ``1.2s``, ``6m0s``."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds / 1000, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
