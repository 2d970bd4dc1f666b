"""What this process knows of the room in providers' queues of batches: how large a batch may be, and when to wait.

Providers limit what may wait in all batches of an account. If a batch does not fit and others of ours are under way,
there will be room when these end. If none is, it is too large: a smaller one is tried at once.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict

PATIENCE_SECONDS = 90_000.0  # others' batches have ended by then: a batch takes a day at most


class BatchRoom:
    """By model, for all image shards of one process."""

    def __init__(self) -> None:
        self._under_way: defaultdict[str, set[str]] = defaultdict(set)  # nonces of batches that were made
        self._most: dict[str, int] = {}  # requests of a batch, where more did not fit
        self._full_since: dict[str, float] = {}  # when a single request did not fit for the first time in a row

    def most(self, model: str) -> float:
        """The most requests of a batch."""
        return self._most.get(model, math.inf)

    def entered(self, model: str, nonce: str) -> None:
        """A batch is under way."""
        self._under_way[model].add(nonce)

    def left(self, model: str, nonce: str, *, served: bool) -> None:
        """A batch is not under way any more; ``served``: it was worked on, so that larger ones may fit again."""
        self._under_way[model].discard(nonce)
        if served:
            self._full_since.pop(model, None)
            if model in self._most:
                self._most[model] *= 2

    def refused(self, model: str, requests: int) -> bool:
        """A batch of so many requests did not fit. Returns whether a smaller one may be tried at once."""
        if self._under_way[model]:
            return False
        if requests > 1:
            self._most[model] = max(1, int(min(self.most(model), requests)) // 2)
            return True
        self._full_since.setdefault(model, time.monotonic())
        return False

    def hopeless(self, model: str) -> bool:
        """Whether not even a single request fitted for more than a day."""
        return time.monotonic() - self._full_since.get(model, math.inf) > PATIENCE_SECONDS
