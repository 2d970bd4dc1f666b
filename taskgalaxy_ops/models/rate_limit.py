"""Limits how many requests are in flight to a model. The limit adapts to what the model accepts.

The method is additive increase, multiplicative decrease (Chiu and Jain, 1989), with two changes. A 429 means that one
request too many was in flight, so each 429 takes one off. The width that was refused last is tried again after more
successes, the more often it was refused. A model that fails repeatedly is sent nothing for a growing time, then a
single request, until its patience, a time, is over. The model's own rate-limit headers are obeyed.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Mapping

FIRST_WIDTH = 16  # requests in flight at the start
OPENING_SECONDS = 0.002  # wait before one more request at the start: a 429 arrives sooner than a reply
PROBE_AFTER = 48  # successes at a width before a wider one is tried
PROBE_LONGEST = 4096
SLOWED = 0.7  # factor on the width after a time-out or an overload
FAILURES_TO_OPEN = 5  # attempts that failed in a row, after which the model gets a pause
BACKOFF_SECONDS = 0.5  # the first pause; doubled each time
BACKOFF_LONGEST = 30.0
RESET_LONGEST = 300.0  # the longest wait that headers on what is left can cause


def backoff(attempt: int) -> float:
    """Seconds to wait before the next try, with jitter; ``attempt`` counts from 1."""
    return min(BACKOFF_LONGEST, BACKOFF_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def until_there_is_room(headers: Mapping[str, str]) -> float:
    """Seconds until a request fits again, if OpenAI's headers say that no request or no token is left; else 0."""
    longest = 0.0
    for what in ("requests", "tokens"):
        try:
            left = int(headers[f"x-ratelimit-remaining-{what}"])
            limit = int(headers[f"x-ratelimit-limit-{what}"])
        except (KeyError, ValueError):
            continue
        if left <= 0 < limit:
            # At the reset the whole limit is free again. One request is enough, or a hundredth of the tokens.
            share = 1 / limit if what == "requests" else 0.01
            longest = max(longest, share * _span(headers.get(f"x-ratelimit-reset-{what}", "")))
    return min(longest, RESET_LONGEST)


def _span(text: str) -> float:
    """The seconds in a span such as ``6m0s``, ``1.5s``, ``120ms`` or a bare number; 0 for any other text."""
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
    """Lets ``a_minute`` of something through a minute, evenly: Turner's token bucket, which holds a second's worth."""

    def __init__(self, a_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second = a_minute / 60
        self._holds = max(1.0, self._a_second)
        self._left = self._holds
        self._clock = clock
        self._at = clock()

    def wait(self) -> float:
        """Seconds until something may be taken; 0 if it may be taken now."""
        now = self._clock()
        self._left = min(self._holds, self._left + (now - self._at) * self._a_second)
        self._at = now
        return 0.0 if self._left > 0 else (1e-3 - self._left) / self._a_second

    def take(self, amount: float = 1.0) -> None:
        """Take an amount. If it is more than the bucket holds, the next caller waits for the rest."""
        self._left -= amount

    def share(self, a_minute: float) -> None:
        """Change the rate from now on."""
        self.wait()  # fill the bucket at the former rate up to now
        self._a_second, self._holds = a_minute / 60, max(1.0, a_minute / 60)


class Width:
    """How many requests may be in flight, at most ``most``. It adapts to the outcome of each request.

    ``most`` may be changed; a larger width that was reached before applies again when ``most`` is raised.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = float(min(most, FIRST_WIDTH))
        self._refused_at: float | None = None  # the width at which a request was refused last
        self._patience = PROBE_AFTER  # successes before a wider one is tried
        self._since = 0  # successes at this width

    def __int__(self) -> int:
        return max(1, min(self.most, int(self.now)))

    @property
    def opening(self) -> bool:
        """Whether no request was refused yet, and the width is still below ``most``."""
        return self._refused_at is None and self.now < self.most

    def widen(self) -> None:
        """Allow one more request."""
        self.now += 1

    def served(self) -> None:
        """Count a request that was served."""
        if self.now >= self.most:
            return
        if self._refused_at is None:  # one more with each request, which doubles the width a round
            self.widen()
            return
        self._since += 1
        if self._since >= self._patience:
            self.now, self._since = self.now + 1, 0
            if self.now > self._refused_at:  # the width that was refused before works now
                self._patience = max(PROBE_AFTER, self._patience // 2)

    def refused(self) -> None:
        """Count a request that was refused because too many were in flight."""
        if self._refused_at is not None and self.now >= self._refused_at:
            self._patience = min(PROBE_LONGEST, self._patience * 2)
        self.now = min(self.now, self.most)
        self._refused_at, self._since = self.now, 0
        self.now = max(1.0, self.now - 1)

    def slowed(self) -> None:
        """Count a request that was slow: a time-out, or an overloaded model."""
        self.now = min(self.now, self.most)
        self._refused_at, self._since = self._refused_at or self.now, 0
        self.now = max(1.0, self.now * SLOWED)


class Unavailable(Exception):
    """The model is sent nothing more in this run."""


class Limit:
    """Decides which request may be sent to a model now. For one event loop.

    Retries go before new requests, in the order of the requests. ``most``: requests in flight. ``patience``: seconds
    that a model which serves nothing is waited for, before it is given up. ``stays``: whether to go on waiting so long
    after its first failure (seconds); else it is given up for now. ``waiting``: called when the model is sent nothing
    for a while, with the reason and the seconds, and with "" when it serves again.
    """

    def __init__(
        self,
        most: int,
        *,
        requests_a_minute: float | None = None,
        tokens_a_minute: float | None = None,
        patience: float = 1800.0,
        stays: Callable[[float], bool] = lambda seconds: True,
        waiting: Callable[[str, float], None] = lambda why, seconds: None,
    ) -> None:
        self.width = Width(most)
        self.requests = Rate(requests_a_minute) if requests_a_minute else None
        self.tokens = Rate(tokens_a_minute) if tokens_a_minute else None
        self._most = most
        self._a_minute = (requests_a_minute, tokens_a_minute)
        self.in_flight = 0
        self.why = ""  # why the model was given up; "": it was not
        self._patience = patience
        self._stays = stays
        self._announce = waiting
        self._away_since: float | None = None  # when the first attempt failed since the last one was served
        self._again: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._number = 0
        self._until = 0.0  # nothing is sent before this time, on the monotonic clock
        self._failures = 0  # attempts that failed in a row
        self._opened = 0  # pauses in a row
        self._alarm: asyncio.TimerHandle | None = None
        self._opening: asyncio.TimerHandle | None = None
        self.served = 0  # requests

    def share(self, place: int, of: int) -> None:
        """Use only a worker's share of all limits: worker ``place`` (from 0) of ``of``. At least one request fits."""
        self.width.most = max(1, self._most // of + (place < self._most % of))
        for rate, a_minute in zip((self.requests, self.tokens), self._a_minute, strict=True):
            if rate and a_minute:
                rate.share(a_minute / of)
        if self._alarm:  # its time followed from the former rate
            self._alarm.cancel()
            self._alarm = None
        self._admit()

    async def enter(self, again: int = 0) -> None:
        """Wait until a request may be sent. ``again``: the number of a request that is sent again; 0: a new one.

        Requests that are sent again go before new ones. Raises Unavailable if the model is given up.
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
        """Let waiting requests go as far as the limits allow, and set a timer for when the next may go."""
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
        """Widen by one, since no request was refused for ``OPENING_SECONDS`` and more requests are waiting."""
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
        """Free the place of a request that is back, or was not sent."""
        self.in_flight -= 1
        self._admit()

    def worked(self, tokens: int = 0, headers: Mapping[str, str] | None = None) -> None:
        """Count a request that was served; ``tokens``: what it used in all."""
        self.served += 1
        if self._away_since is not None:
            self._away_since = None
            self._announce("", 0.0)
        self._failures = self._opened = 0
        self.width.served()
        if self.tokens:
            self.tokens.take(tokens)
        if headers and (wait := until_there_is_room(headers)):
            self._pause(wait)

    def reached(self) -> None:
        """Count a request that the model refused for good: it is there."""
        self._away_since = None
        self._failures = self._opened = 0

    def refused(self, why: str, wait: float, asked: float = 0.0) -> None:
        """Count a 429. If only 429s come back, all requests wait ``wait`` seconds; ``asked``: as the server asked."""
        self._failures += 1
        self.width.refused()
        if self._failures > max(FAILURES_TO_OPEN, self.in_flight) and self._patient(why, asked):
            self._pause(wait)
            self._announce(why, wait)

    def failed(self, why: str, *, slow: bool = False, asked: float = 0.0) -> None:
        """Count a request without a reply or with a server error; ``slow``: a time-out, or an overload.

        asked: seconds that the server asks to wait.
        """
        self._failures += 1
        if slow:
            self.width.slowed()
        if not self._patient(why, asked):
            return
        # Requests that were in flight when a pause began fail, too; they do not count as new failures.
        if (asked or self._opened or self._failures >= FAILURES_TO_OPEN) and time.monotonic() >= self._until:
            self._opened += 1
            wait = asked or min(backoff(self._opened), self.patience_left)
            self._pause(wait)
            self._announce(why, wait)

    def _patient(self, why: str, asked: float) -> bool:
        """False if the model is given up: it served nothing for as long as it is waited for, or asks for longer."""
        first = self._away_since is None
        self._away_since = time.monotonic() if self._away_since is None else self._away_since
        if asked > self._patience:
            self._away_since = None  # it is there, and says when to come back
            self.give_up(f"{why}; it asks to wait {asked:,.0f} s, patience_seconds is {self._patience:g}")
        elif self.patience_left <= 0 and not first:  # one failure alone may be of its request
            self.give_up(f"{why}; it has served nothing for {self._patience:g} s (patience_seconds)")
        elif not self._stays(self.away):
            self.give_up(f"{why}; it has served nothing for {self.away:.0f} s")
        return not self.why

    @property
    def away(self) -> float:
        """Seconds since the first attempt that failed, if none was served since; else 0."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    @property
    def patience_left(self) -> float:
        """Seconds that the model is still waited for."""
        return self._patience - self.away

    @property
    def closed(self) -> bool:
        """Whether a pause holds back all requests, so that a failed request need not wait by itself."""
        return bool(self._opened)

    def give_up(self, why: str) -> None:
        """Send nothing more: all waiting and later requests get Unavailable."""
        self.why = self.why or why
        self._admit()

    def _pause(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)
