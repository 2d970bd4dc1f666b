"""Real processes that do one thing at the same moment, for the tests of what several workers agree on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

PROCESSES = 4
_PATIENCE = 120.0  # seconds for the slowest process to come up on a busy machine

_barrier: Barrier | None = None


def _remember(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def together() -> None:
    """Wait until every racer is here."""
    assert _barrier is not None
    _barrier.wait(_PATIENCE)


class Racers:
    """``PROCESSES`` spawned processes, each with a task of its own in every race."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def race(self, work: Callable[..., Any], *arguments: Any) -> Sequence[Any]:
        """``work(racer, *arguments)`` in every process; it calls ``together`` before it starts. Results by racer."""
        futures = [self._pool.submit(work, racer, *arguments) for racer in range(PROCESSES)]
        return [future.result(timeout=_PATIENCE) for future in futures]


@contextmanager
def racers() -> Iterator[Racers]:
    """The processes, for as long as the block lasts."""
    context = multiprocessing.get_context("spawn")  # no fork of a process that has threads
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_remember, initargs=(barrier,)) as pool:
        yield Racers(pool)
