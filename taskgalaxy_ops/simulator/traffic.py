"""What passes through a server, whatever it carries: requests in flight, replies by status, first and last instant."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class Traffic:
    """Counts chat requests from arrival to reply; for one thread. ``clock`` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Count from nothing again; what is in flight stays."""
        self._most = self._in_flight
        self._statuses: Counter[str] = Counter()
        self._first: float | None = None
        self._last: float | None = None

    def arrived(self) -> None:
        """A request is there, with its whole body."""
        self._in_flight += 1
        self._most = max(self._most, self._in_flight)
        if self._first is None:
            self._first = self._clock()

    def left(self, status: int | None) -> None:
        """It is replied to; None: its connection was broken instead."""
        self._in_flight -= 1
        self._statuses["broken" if status is None else str(status)] += 1
        self._last = self._clock()

    def summary(self) -> Mapping[str, Any]:
        """For ``/stats``: from ``first_arrival`` to ``last_reply`` are the seconds that a client's rate is made of."""
        return {
            "statuses": dict(self._statuses),
            "rate_limited": self._statuses["429"],
            "in_flight_max": self._most,
            "first_arrival": self._first,
            "last_reply": self._last,
        }
