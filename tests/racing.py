"""Runs real processes that start something at the same moment, for tests of several workers on one store."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

PROCESSES = 4
_PATIENCE = 120.0  # seconds that the slowest process may need to start on a busy machine

_barrier: Barrier | None = None


def _remember(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def together() -> None:
    """Wait until every racer has called this."""
    assert _barrier is not None
    _barrier.wait(_PATIENCE)


class Racers:
    """``PROCESSES`` spawned processes, each with a task of its own in every race."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def race(self, work: Callable[..., Any], *arguments: Any) -> Sequence[Any]:
        """Run ``work(racer, *arguments)`` in every process; returns the results in order of racer.

        ``work`` calls ``together`` where the race begins.
        """
        futures = [self._pool.submit(work, racer, *arguments) for racer in range(PROCESSES)]
        return [future.result(timeout=_PATIENCE) for future in futures]


@contextmanager
def racers() -> Iterator[Racers]:
    """The processes; they end with the ``with`` block."""
    context = multiprocessing.get_context("spawn")  # a process with threads must not be forked
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_remember, initargs=(barrier,)) as pool:
        yield Racers(pool)
