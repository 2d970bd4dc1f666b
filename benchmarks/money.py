"""The budget's figures: how much of it is put to use, and how far a forecast is from the cost.

`gateway.budget_used`: eight processes share a budget of 2,000 typical calls, each of which is held at five times what
it comes to until it is back. Work is plenty; the share of the budget that was put to use when all have stopped.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from pathlib import Path

from taskgalaxy_ops.errors import BudgetError
from taskgalaxy_ops.models.purse import Purse, Till
from taskgalaxy_ops.storage.budget import Caps, Ledger
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.leases import Lease

TYPICAL = 1_000_000  # nano-dollars
TIMES = 5  # a call is held at


def budget_used(
    folder: Path, *, processes: int = 8, in_flight: int = 16, calls: int = 2000, seconds: float = 0.1
) -> tuple[float, float, float]:
    """Share of the budget that was put to use, what was overspent (nano-dollars), and wall seconds."""
    cap = calls * TYPICAL
    context = multiprocessing.get_context("spawn")
    came_to = context.Queue()
    workers = [
        context.Process(target=_worker, args=(folder, number, cap, in_flight, seconds, came_to))
        for number in range(processes)
    ]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    spent = sum(came_to.get() for _ in workers)
    for worker in workers:
        worker.join()
    return spent / cap, max(0, spent - cap), time.monotonic() - began


def _worker(
    folder: Path, number: int, cap: int, in_flight: int, seconds: float, came_to: multiprocessing.Queue[int]
) -> None:
    came_to.put(asyncio.run(_spend(folder, number, cap, in_flight, seconds)))


async def _spend(folder: Path, number: int, cap: int, in_flight: int, seconds: float) -> int:
    store = FolderStore(folder)
    till = Till(Ledger(store, Caps(max_cost=cap)))
    random.seed(number)
    spent = 0

    async def ask(purse: Purse) -> None:
        nonlocal spent
        while True:
            try:
                block = await purse.draw(TIMES * TYPICAL)
            except BudgetError:
                return
            await asyncio.sleep(seconds * random.uniform(0.5, 2))
            cost = round(TYPICAL * random.uniform(0.5, 1.5))
            spent += cost
            await purse.back(block, cost)

    async def home(name: str) -> None:
        with await asyncio.to_thread(Lease, store, name):
            purse = Purse(till, name, 32)
            await asyncio.gather(*(ask(purse) for _ in range(in_flight // 2)))
            await purse.close()

    await asyncio.gather(*(home(f"home-{number}-{each}") for each in range(2)))
    return spent
