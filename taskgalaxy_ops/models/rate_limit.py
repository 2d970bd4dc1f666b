"""How many requests a model is sent at once: as many as it takes, found out by trying, and none while it is away.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), with what is known here besides: a 429 tells that one
request too many was in flight, so that many are taken off at once; and the width that was refused last is tried again
the later, the more often it was refused. A model that fails again and again is left alone for longer and longer, then
asked one request; what its own rate-limit headers say of what is left is believed.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

FIRST_WIDTH = 16  # requests in flight before anything is known
OPENING_SECONDS = 0.002  # until one more is tried, while none was refused: a 429 comes back sooner than a reply
PROBE_AFTER = 48  # successes at a width before one more is tried
PROBE_LONGEST = 4096
SLOWED = 0.7  # of the width that is left after a time-out or an overload
FAILURES_TO_OPEN = 5  # attempts in a row that failed, after which a model is left alone for a while
BACKOFF_SECONDS = 0.5  # doubled each time
BACKOFF_LONGEST = 30.0
RETRY_AFTER_LONGEST = 300.0  # a longer one is the provider's way to say: not today


def backoff(attempt: int) -> float:
    """Seconds to wait before the next try, with jitter; ``attempt`` from 1."""
    return min(BACKOFF_LONGEST, BACKOFF_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait; 0 where it says nothing.

    ``retry-after-ms``, or Retry-After, which is a number or a date (RFC 9110, 10.2.3).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        try:
            seconds = float(text) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, OverflowError, TypeError):
                continue
        if seconds > 0:  # false of nan too
            return min(seconds, RETRY_AFTER_LONGEST)
    return 0.0


def until_there_is_room(headers: Mapping[str, str]) -> float:
    """Seconds until a provider that says it has no request, or no token, left will have one (OpenAI's headers)."""
    longest = 0.0
    for what in ("requests", "tokens"):
        try:
            left = int(headers[f"x-ratelimit-remaining-{what}"])
            limit = int(headers[f"x-ratelimit-limit-{what}"])
        except (KeyError, ValueError):
            continue
        if left <= 0 < limit:
            # All of the limit is back at the reset: of requests one is enough, of tokens a hundredth.
            share = 1 / limit if what == "requests" else 0.01
            longest = max(longest, share * _span(headers.get(f"x-ratelimit-reset-{what}", "")))
    return min(longest, RETRY_AFTER_LONGEST)


def _span(text: str) -> float:
    """Seconds of a span such as ``6m0s``, ``1.5s``, ``120ms`` or a bare number; 0 of anything else."""
    seconds, number = 0.0, ""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    at = 0
    while at < len(text):
        if text[at].isdigit() or text[at] == ".":
            number, at = number + text[at], at + 1
            continue
        unit = "ms" if text[at : at + 2] == "ms" else text[at]
        try:
            seconds += float(number) * units[unit]
        except (ValueError, KeyError):
            return 0.0
        number, at = "", at + len(unit)
    try:
        return seconds + float(number or 0)
    except ValueError:
        return 0.0


class Rate:
    """So many of something a minute, evenly: a bucket that holds a second's worth (Turner's token bucket)."""

    def __init__(self, a_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second = a_minute / 60
        self._holds = max(1.0, self._a_second)
        self._left = self._holds
        self._clock = clock
        self._at = clock()

    def wait(self) -> float:
        """Seconds until something may be taken; 0 if it may be now."""
        now = self._clock()
        self._left = min(self._holds, self._left + (now - self._at) * self._a_second)
        self._at = now
        return 0.0 if self._left > 0 else (1e-3 - self._left) / self._a_second

    def take(self, amount: float = 1.0) -> None:
        """Take some; what is more than there is has to be waited for by who comes next."""
        self._left -= amount

    def share(self, a_minute: float) -> None:
        """Another rate from now on."""
        self.wait()  # until now it was the former one
        self._a_second, self._holds = a_minute / 60, max(1.0, a_minute / 60)


class Width:
    """How many requests may be in flight, of at most ``most``: it learns from each one that comes back.

    ``most`` may be changed; what was learnt above it is there again when it is lifted.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = float(min(most, FIRST_WIDTH))
        self._refused_at: float | None = None  # the width that was too much
        self._patience = PROBE_AFTER
        self._since = 0  # successes at this width

    def __int__(self) -> int:
        return max(1, min(self.most, int(self.now)))

    @property
    def opening(self) -> bool:
        """Whether nothing was ever too much, and there is more to try."""
        return self._refused_at is None and self.now < self.most

    def widen(self) -> None:
        """One more."""
        self.now += 1

    def served(self) -> None:
        """A request was served."""
        if self.now >= self.most:
            return
        if self._refused_at is None:  # one more with each, which doubles it a round
            self.widen()
            return
        self._since += 1
        if self._since >= self._patience:
            self.now, self._since = self.now + 1, 0
            if self.now > self._refused_at:  # what was too much is not any more
                self._patience = max(PROBE_AFTER, self._patience // 2)

    def refused(self) -> None:
        """A request was one too many."""
        if self._refused_at is not None and self.now >= self._refused_at:
            self._patience = min(PROBE_LONGEST, self._patience * 2)
        self.now = min(self.now, self.most)
        self._refused_at, self._since = self.now, 0
        self.now = max(1.0, self.now - 1)

    def slowed(self) -> None:
        """The model is overloaded, or took too long."""
        self.now = min(self.now, self.most)
        self._refused_at, self._since = self._refused_at or self.now, 0
        self.now = max(1.0, self.now * SLOWED)


class Unavailable(Exception):
    """The model is left alone for the rest of this run."""


class Limit:
    """Who may send a model a request now. For one event loop.

    Retries go first, in the order of the requests. ``patience``: how often a model that has failed altogether is
    looked at again before it is given up.
    """

    def __init__(
        self,
        most: int,
        *,
        requests_a_minute: float | None = None,
        tokens_a_minute: float | None = None,
        patience: int = 6,
    ) -> None:
        self.width = Width(most)
        self.requests = Rate(requests_a_minute) if requests_a_minute else None
        self.tokens = Rate(tokens_a_minute) if tokens_a_minute else None
        self._most = most
        self._a_minute = (requests_a_minute, tokens_a_minute)
        self.in_flight = 0
        self.why = ""  # it was given up
        self._patience = patience
        self._again: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._number = 0
        self._until = 0.0  # nothing is sent before
        self._failures = 0  # attempts in a row that came to nothing
        self._opened = 0  # times in a row that it was left alone
        self._alarm: asyncio.TimerHandle | None = None
        self._opening: asyncio.TimerHandle | None = None
        self.served = 0

    def share(self, place: int, of: int) -> None:
        """Take one worker's part of all this, the one at ``place`` (from 0) of so many; in flight at least one."""
        self.width.most = max(1, self._most // of + (place < self._most % of))
        for rate, a_minute in zip((self.requests, self.tokens), self._a_minute, strict=True):
            if rate and a_minute:
                rate.share(a_minute / of)
        if self._alarm:  # it was set for the former rate
            self._alarm.cancel()
            self._alarm = None
        self._admit()

    async def enter(self, again: int = 0) -> None:
        """Wait for a turn; ``again``: the number of a request that was refused, which goes before new ones.

        Raises Unavailable.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._number += 1
            heapq.heappush(self._again, (again, self._number, turn))
        else:
            self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.back()
            raise

    def _admit(self) -> None:
        """Let in who may be now, and see to it that this is looked at again when more may be."""
        while self._again or self._waiting:
            if self.why:
                self._next().set_exception(Unavailable(self.why))
                continue
            if self.in_flight >= (1 if self._opened else int(self.width)):
                if self.width.opening and not self._failures and self._opening is None:
                    self._opening = asyncio.get_running_loop().call_later(OPENING_SECONDS, self._widen)
                return
            if (wait := self._wait()) > 0:
                if self._alarm is None:
                    self._alarm = asyncio.get_running_loop().call_later(wait, self._wake)
                return
            if self.requests:
                self.requests.take()
            self.in_flight += 1
            self._next().set_result(None)

    def _widen(self) -> None:
        """Nothing was refused for a moment: try one more, while requests are waiting."""
        self._opening = None
        if self.width.opening and not self._failures:
            self.width.widen()
            self._admit()

    def _next(self) -> asyncio.Future[None]:
        return heapq.heappop(self._again)[2] if self._again else self._waiting.popleft()

    def _wait(self) -> float:
        rates = [rate.wait() for rate in (self.requests, self.tokens) if rate]
        return max([self._until - time.monotonic(), *rates])

    def _wake(self) -> None:
        self._alarm = None
        self._admit()

    def back(self) -> None:
        """A request that had its turn is back, or was not sent."""
        self.in_flight -= 1
        self._admit()

    def worked(self, tokens: int = 0, headers: Mapping[str, str] | None = None) -> None:
        """It was served: ``tokens`` in all."""
        self.served += 1
        self._failures = self._opened = 0
        self.width.served()
        if self.tokens:
            self.tokens.take(tokens)
        if headers and (wait := until_there_is_room(headers)):
            self._pause(wait)

    def refused(self, wait: float) -> None:
        """429: one too many. Where nothing but these comes back, all wait as long as was asked for."""
        self._failures += 1
        self.width.refused()
        if self._failures > max(FAILURES_TO_OPEN, self.in_flight):
            self._pause(wait)

    def failed(self, why: str, *, slow: bool = False) -> None:
        """No reply, or one of a server that is broken (``slow``: a time-out, or an overload)."""
        self._failures += 1
        if slow:
            self.width.slowed()
        # What was in flight when it was left alone comes back as failures, too: they say nothing new.
        if (self._opened or self._failures >= FAILURES_TO_OPEN) and time.monotonic() >= self._until:
            self._opened += 1
            if self._opened > self._patience:
                self.give_up(why)
            self._pause(backoff(self._opened))

    @property
    def closed(self) -> bool:
        """Whether all wait, since nothing but failures came back: who failed need not wait by itself."""
        return bool(self._opened)

    def give_up(self, why: str) -> None:
        """Let nobody in any more: all who wait, and who come, get Unavailable."""
        self.why = self.why or why
        self._admit()

    def _pause(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)
