"""What several workers agree on, raced by real processes on every store: logs, leases, budget, registry."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

import pytest
from conftest import Place
from racing import PROCESSES, Racers, together

from taskgalaxy_ops.errors import BudgetError, LeaseLostError
from taskgalaxy_ops.records import Claim, Image
from taskgalaxy_ops.storage import Store
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import Caps, Ledger
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.registry import Registry
from taskgalaxy_ops.storage.scan_staging import ScanStaging

APPENDS = 8


def _append(racer: int, place: Place, compacts: bool) -> list[tuple[int, int, int]]:
    log = Log(place.connect(), "log")
    together()
    done = []
    for n in range(APPENDS):
        done.append((log.append({"racer": racer, "n": n}).number, racer, n))
        if compacts and racer == 0 and n % 4 == 3:
            log.compact()
    return done


@pytest.mark.parametrize("compacts", [False, True])
def test_racing_appenders_lose_nothing_and_double_nothing(
    racers: Racers, place: Place, store: Store, compacts: bool
) -> None:
    done = [entry for part in racers.race(_append, place, compacts) for entry in part]
    entries = Log(store, "log").read()
    assert [(entry.number, entry.body["racer"], entry.body["n"]) for entry in entries] == sorted(done)
    assert len(entries) == PROCESSES * APPENDS
    if not compacts:
        assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    for racer in range(PROCESSES):
        assert [entry.body["n"] for entry in entries if entry.body["racer"] == racer] == list(range(APPENDS))


def _take_shard(racer: int, place: Place, shard: str) -> bool:
    store = place.connect()
    together()
    try:
        with Lease(store, shard) as lease:
            together()
            lease.check()
            return True
    except LeaseLostError:
        together()
        return False


def test_of_racing_workers_one_holds_a_image_shard(racers: Racers, place: Place, store: Store) -> None:
    for turn in range(5):
        assert sum(racers.race(_take_shard, place, f"home{turn}")) == 1


def _spend(racer: int, place: Place, caps: Caps) -> tuple[int, int]:
    ledger = Ledger(place.connect(), caps)
    together()
    cost = calls = 0
    while True:
        try:
            block = ledger.take(f"home{racer}", calls=3, ceiling=10)
        except BudgetError:
            return cost, calls
        cost, calls = cost + 7 * block.calls, calls + block.calls
        ledger.settle(block, calls=block.calls, cost=7 * block.calls)


def test_racing_workers_never_overspend(racers: Racers, place: Place, store: Store) -> None:
    caps = Caps(max_cost=300, max_calls=36)
    spent = racers.race(_spend, place, caps)
    cost, calls = (sum(part) for part in zip(*spent, strict=True))
    total = Ledger(store, caps).spent()
    assert (total.cost, total.calls) == (cost, calls)
    assert cost <= 300
    # What cannot be had is refused near the end, while others' blocks are still held at their highest.
    assert 36 - 3 * PROCESSES < calls <= 36


def _image(number: int) -> Image:
    return Image(f"{number:064x}", 10, 10, "png", 100, "0" * 40)


def _register(racer: int, place: Place) -> None:
    registry, source = Registry(place.connect()), f"source{racer}"
    together()
    with ScanStaging(source) as found:
        for image in (_image(number) for number in range(racer * 5, racer * 5 + 15)):
            found.claim(Claim(source, image.image, f"{image.image[-3:]}.png"), image)
        registry.register("somewhere", found, 4)


def test_racing_registrations_give_each_image_one_image_shard(racers: Racers, place: Place, store: Store) -> None:
    racers.race(_register, place)
    registry = Registry(store)
    image_index = [image.image for shard in registry.shards() for image in registry.images(shard)]
    assert sorted(image_index) == [_image(n).image for n in range((PROCESSES - 1) * 5 + 15)]
    assert list(registry.scans()) == [f"source{racer}" for racer in range(PROCESSES)]
    assert len(list(registry.claims())) == PROCESSES * 15


def _hold(place: Place, seconds: float, pipe: Connection) -> None:
    store = place.connect()
    lease = Lease(store, "home", seconds=seconds)
    lease.check()
    pipe.send("held")
    pipe.recv()
    try:
        lease.check()
        pipe.send("still held")
    except LeaseLostError as error:
        pipe.send(str(error))
    Journal(store, "home").forget(["late"], "f")  # what it had already paid for is kept all the same
    pipe.send("appended")


def test_a_worker_that_slept_past_its_lease_finds_out_before_it_sends(folder_store: Store) -> None:
    place = Place(folder_store.url)
    mine, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_hold, args=(place, 1.0, theirs), daemon=True)
    worker.start()
    assert mine.poll(60)
    assert mine.recv() == "held"
    os.kill(worker.pid or 0, signal.SIGSTOP)
    with Lease(folder_store, "home", wait=60) as lease:
        os.kill(worker.pid or 0, signal.SIGCONT)
        mine.send("go on")
        assert mine.poll(60)
        assert "the lease ran out" in mine.recv()
        assert mine.recv() == "appended"
        lease.check()
        assert Journal(folder_store, "home").forgets == 1
    worker.join(60)


def test_a_killed_workers_image_shard_is_taken_over(folder_store: Store) -> None:
    place = Place(folder_store.url)
    mine, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_hold, args=(place, 0.5, theirs), daemon=True)
    worker.start()
    assert mine.poll(60)
    assert mine.recv() == "held"
    worker.kill()
    worker.join()
    with Lease(folder_store, "home", wait=60) as lease:
        lease.check()
