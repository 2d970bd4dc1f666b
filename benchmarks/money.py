"""The budget's figures: the share of it that is used, overspending, and the error of a forecast.

`gateway.budget_used`: eight processes share a budget of 2,000 typical calls, for each of which five times its cost is
reserved until its reply comes. There is more work than budget; the share of the budget that was spent when all stopped.

    python -m benchmarks.money [images of each source; default: 1000, some 15 minutes on two cores]

`gateway.overspend`: eight processes are killed 200 times, and get 429 in between: the amount billed over the budget.

`gateway.forecast`: three different sources (pages, drawn shapes, parts of photographs), with the simulated models and
their prices. A probe asks about one image in twenty of each; then the rest of each is run. The figure is the largest
distance of (forecast / cost) from 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.figures import Book, Figure
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import Simulator
from taskgalaxy_ops.errors import BudgetError
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.operations import forecast as forecasting
from taskgalaxy_ops.operations.probe import probe
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.sources import builtin
from taskgalaxy_ops.sources.builtin import photos
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import NANO, Caps, JournaledCalls, Ledger
from taskgalaxy_ops.workspace import Workspace

SOURCES = ("documents", "shapes", "photos")
TYPICAL = 1_000_000  # nano-dollars
TIMES = 5  # a reservation is this many times a call's typical cost


def budget_used(
    folder: Path, *, processes: int = 8, in_flight: int = 16, calls: int = 2000, seconds: float = 0.1
) -> tuple[float, float, float]:
    """The share of the budget that was spent, the amount overspent (nano-dollars), and wall seconds."""
    cap = calls * TYPICAL
    context = multiprocessing.get_context("spawn")
    spent_queue = context.Queue()
    workers = [
        context.Process(target=_worker, args=(folder, number, cap, in_flight, seconds, spent_queue))
        for number in range(processes)
    ]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    spent = sum(spent_queue.get() for _ in workers)
    for worker in workers:
        worker.join()
    return spent / cap, max(0, spent - cap), time.monotonic() - began


def _worker(
    folder: Path, number: int, cap: int, in_flight: int, seconds: float, spent_queue: multiprocessing.Queue[int]
) -> None:
    spent_queue.put(asyncio.run(_spend(folder, number, cap, in_flight, seconds)))


async def _spend(folder: Path, number: int, cap: int, in_flight: int, seconds: float) -> int:
    store = FolderStore(folder)
    run_budget = RunBudget(Ledger(store, Caps(max_cost=cap)))
    random.seed(number)
    spent = 0

    async def ask(shard_budget: ShardBudget) -> None:
        nonlocal spent
        while True:
            try:
                block = await shard_budget.draw(TIMES * TYPICAL)
            except BudgetError:
                return
            await asyncio.sleep(seconds * random.uniform(0.5, 2))
            cost = round(TYPICAL * random.uniform(0.5, 1.5))
            spent += cost
            await shard_budget.back(block, cost)

    async def shard(name: str) -> None:
        with await asyncio.to_thread(Lease, store, name):
            shard_budget = ShardBudget(run_budget, name, 32)
            await asyncio.gather(*(ask(shard_budget) for _ in range(in_flight // 2)))
            await shard_budget.close()

    await asyncio.gather(*(shard(f"home-{number}-{each}") for each in range(2)))
    return spent


def overspend(
    folder: Path, *, processes: int = 8, kills: int = 200, calls: int = 100_000, lease: float = 0.5
) -> tuple[float, float, int]:
    """Nano-dollars over the budget, the share of it that the ledger counts as spent, and the number of kills.

    The provider's bill is written when a call arrives, so that it includes calls whose reply a killed worker never got;
    one call in five gets 429. After a kill another worker continues the same image shard.
    """
    cap = calls * TYPICAL
    context = multiprocessing.get_context("spawn")

    def start(number: int) -> multiprocessing.process.BaseProcess:
        worker = context.Process(target=_mortal, args=(folder, number, cap, lease, random.random()))
        worker.start()
        return worker

    workers = {number: start(number) for number in range(processes)}
    killed = 0
    while any(worker.is_alive() for worker in workers.values()):
        time.sleep(random.uniform(0, 4 * lease / processes))
        number = random.randrange(processes)
        if killed < kills and workers[number].is_alive():
            workers[number].kill()
            workers[number].join()
            killed += 1
            workers[number] = start(number)
    billed = sum(int(line) for file in folder.glob("billed-*") for line in file.read_text().split())
    return max(0, billed - cap), Ledger(FolderStore(folder / "store"), Caps()).spent().cost / cap, killed


def _mortal(folder: Path, number: int, cap: int, lease: float, seed: float) -> None:
    asyncio.run(_spend_and_die(folder, number, cap, lease, seed))


async def _spend_and_die(folder: Path, number: int, cap: int, lease: float, seed: float) -> None:
    store, shard, chance = FolderStore(folder / "store"), f"home-{number}", random.Random(seed)
    run_budget = RunBudget(Ledger(store, Caps(max_cost=cap)))
    kept = folder / f"journal-{number}"
    with (
        await asyncio.to_thread(Lease, store, shard, seconds=lease, wait=60),
        (folder / f"billed-{number}").open("a", buffering=1) as bill,
        kept.open("a+", buffering=1) as journal,
    ):
        journal.seek(0)
        shown: dict[str, JournaledCalls] = {}
        for block, cost in (line.split() for line in journal if line.endswith("\n")):
            before = shown.get(block, JournaledCalls())
            shown[block] = JournaledCalls(before.cost + int(cost), calls=before.calls + 1)
        run_budget.ledger.settle_orphans(shard, shown)
        shard_budget = ShardBudget(run_budget, shard, 32)

        async def ask() -> None:
            with contextlib.suppress(BudgetError):
                while True:
                    drawn = await shard_budget.draw(TIMES * TYPICAL)
                    refused = chance.random() < 0.2
                    cost = 0 if refused else round(TYPICAL * chance.uniform(0.5, TIMES))
                    bill.write(f"{cost}\n")
                    await asyncio.sleep(chance.uniform(0, 0.05))
                    if not refused:
                        journal.write(f"{drawn.block} {cost}\n")
                    await shard_budget.back(drawn, cost)

        await asyncio.gather(*(ask() for _ in range(8)))
        await shard_budget.close()


def forecast(folder: Path, base_url: str, *, images: int = 400) -> tuple[float, Mapping[str, Any]]:
    """The largest distance of forecast / cost from 1 over the sources, and the numbers of each source.

    base_url: of `taskgalaxy simulate`. images: of each source.
    """
    workspace = Workspace.open(_settings(folder, base_url, images))
    for source in SOURCES:
        pipeline.ingest(workspace, source)
    probe(workspace)
    by_source: dict[str, Any] = {}
    for made in forecasting.forecast(workspace).sources:
        before = workspace.ledger().spent(("source", made.source)).cost
        result = pipeline.generate(workspace, pipeline.RunOptions(sources=[made.source]))
        if result.pending:
            raise RuntimeError(f"{made.source}: {result.pending} pending, {result.reasons}")
        cost = (workspace.ledger().spent(("source", made.source)).cost - before) / NANO
        by_source[made.source] = {
            "probed": made.measured,
            "left": made.images,
            "forecast": made.cost.expected,
            "low": made.cost.low,
            "high": made.cost.high,
            "cost": cost,
            "ratio": made.cost.expected / cost,
        }
    return max(abs(each["ratio"] - 1) for each in by_source.values()), by_source


def _settings(folder: Path, base_url: str, images: int) -> Settings:
    for name in SOURCES[:2]:
        builtin.build(name, folder / name, limit=images)
    _parts(folder / "photos", images)

    def model(name: str) -> dict[str, Any]:
        price = {"input": 2.5, "output": 10.0}
        return {"name": name, "base_url": base_url, "model": name, "simulated": True, "price": price}

    return parse_settings(
        {
            "store": f"file://{folder / 'store'}",
            "sources": {name: {"location": str(folder / name)} for name in SOURCES},
            "ingest": {"shard_images": 64},
            "teacher": model("sim-teacher"),
            "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
            "budget": {"max_cost": None, "max_calls": None},
        }
    )


def _parts(folder: Path, count: int) -> None:
    """Parts of the photographs that ship, of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = [Image.open(io.BytesIO(made.raw)).convert("RGB") for made in photos.images(None, 0)]
    for number in range(count):
        photograph = whole[number % len(whole)]
        wide, high = (round(side * (0.3 + 0.6 * draw("part", number, side))) for side in photograph.size)
        left = round(draw("x", number) * (photograph.width - wide))
        top = round(draw("y", number) * (photograph.height - high))
        photograph.crop((left, top, left + wide, top + high)).save(folder / f"{number:05d}.png")


def main() -> None:
    """Measure and report the three figures."""
    book = Book("gateway")
    with tempfile.TemporaryDirectory() as folder:
        used, over, seconds = budget_used(Path(folder))
    detail = {"overspent": over / NANO, "seconds": seconds, "processes": 8, "times_typical": TIMES}
    book.add(Figure("gateway.budget_used", used, 0.95, "higher", detail))
    with tempfile.TemporaryDirectory() as folder:
        over, counted, killed = overspend(Path(folder))
    book.add(Figure("gateway.overspend", over / NANO, 0, "lower", {"kills": killed, "counted": counted}))
    with tempfile.TemporaryDirectory() as folder, Simulator(Path(folder) / "simulator") as simulator:
        images = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
        distance, by_source = forecast(Path(folder), simulator.base_url, images=images)
    book.add(Figure("gateway.forecast", distance, 0.1, "lower", {"images": images, **by_source}))


if __name__ == "__main__":
    main()
