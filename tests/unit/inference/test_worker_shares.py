"""Workers that share a model's limit: who is there, who is dead, and what each may do. No test looks at a clock."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from fakes import MemoryStore

from taskgalaxy_ops.errors import StoreError
from taskgalaxy_ops.inference.worker_shares import DEAD_SECONDS, RENEW_SECONDS, Presence, Share, Shares
from taskgalaxy_ops.models.rate_limit import Limit
from taskgalaxy_ops.storage import Store, keys

# Who is there


def test_workers_of_one_limit_are_dealt_in_an_order_that_all_see() -> None:
    store = MemoryStore()
    workers = [Presence(store) for _ in range(3)]
    for worker in workers:
        worker.look(["g"])
    shares = [worker.look(["g"])["g"] for worker in workers]
    assert sorted(shares) == [Share(0, 3), Share(1, 3), Share(2, 3)]


def test_limits_are_apart() -> None:
    store = MemoryStore()
    one, two = Presence(store), Presence(store)
    one.look(["a", "b"])
    assert two.look(["b"])["b"].of == 2
    assert {group: share.of for group, share in one.look(["a", "b"]).items()} == {"a": 1, "b": 2}


def test_who_leaves_is_not_counted_and_leaves_nothing() -> None:
    store = MemoryStore()
    one, two = Presence(store), Presence(store)
    one.look(["g"])
    assert two.look(["g"])["g"].of == 2
    one.leave(["g"])
    assert two.look(["g"]) == {"g": Share(0, 1)}
    two.leave(["g"])
    assert not store.objects


def test_a_dead_worker_is_counted_for_three_renewals_and_swept() -> None:
    store = MemoryStore()
    dead, alive = Presence(store), Presence(store)
    dead.look(["g", "another"])
    for _ in range(round(DEAD_SECONDS / RENEW_SECONDS)):
        store.clock += RENEW_SECONDS
        assert alive.look(["g"])["g"].of == 2
    store.clock += RENEW_SECONDS
    assert alive.look(["g"]) == {"g": Share(0, 1)}
    assert len(store.objects) == 1
    assert dead.look(["g"])["g"].of == 2, "it only slept"


def test_the_next_run_does_not_count_one_that_died_before() -> None:
    store = MemoryStore()
    Presence(store).look(["g"])
    store.clock += DEAD_SECONDS + 1
    assert Presence(store).look(["g"]) == {"g": Share(0, 1)}


def test_a_look_is_one_listing_and_a_put_a_limit() -> None:
    store, found = MemoryStore(), Counter[str]()
    Presence(store).look(["a"])
    store.before = lambda operation, key: found.update([operation])
    Presence(store).look(["a", "b"])
    assert found == {"replace": 2, "list": 1}


def test_every_store_tells_when_its_objects_were_written(store: Store) -> None:
    one, two = Presence(store), Presence(store)
    one.look(["g"])
    assert two.look(["g"])["g"].of == 2
    older, newer = sorted(store.list(keys.WORKERS), key=lambda each: each.written)
    assert 0 < older.written <= newer.written < older.written + DEAD_SECONDS


# What each may do


async def until(holds) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0)


def often(store: Store, **options) -> Shares:
    return Shares(store, soon=(), later=0.0, **options)


def test_two_workers_share_a_limit_and_the_rest_falls_to_who_stays() -> None:
    async def run() -> list[list[int]]:
        store = MemoryStore()
        limits, workers = [Limit(9), Limit(9)], [often(store), often(store)]
        await workers[0].join("g", lambda share: limits[0].share(*share))
        found = [[limits[0].width.most]]
        await workers[1].join("g", lambda share: limits[1].share(*share))
        await until(lambda: sum(limit.width.most for limit in limits) == 9)
        found.append(sorted(limit.width.most for limit in limits))
        await workers[0].aclose()
        await until(lambda: limits[1].width.most == 9)
        await workers[1].aclose()
        assert not store.objects
        return found

    assert asyncio.run(run()) == [[9], [4, 5]]


def test_what_a_dead_worker_had_goes_to_the_living() -> None:
    async def run() -> None:
        store, limit = MemoryStore(), Limit(8)
        Presence(store).look(["g"])
        worker = often(store)
        await worker.join("g", lambda share: limit.share(*share))
        assert limit.width.most == 4
        store.clock += DEAD_SECONDS + 1
        await until(lambda: limit.width.most == 8)
        await worker.aclose()
        assert not store.objects

    asyncio.run(run())


def test_a_store_that_fails_ends_nothing_is_noted_once_and_changes_no_share() -> None:
    async def run() -> list[str]:
        store, limit, notes, tries = MemoryStore(), Limit(8), [], 0

        def failing(operation: str, key: str) -> None:
            nonlocal tries
            tries += 1
            raise StoreError("away")

        Presence(store).look(["g"])
        worker = often(store, note=notes.append)
        await worker.join("g", lambda share: limit.share(*share))
        store.before = failing
        await until(lambda: tries > 3)
        assert limit.width.most == 4
        await worker.join("another", lambda share: None)
        await worker.aclose()
        return notes

    notes = asyncio.run(run())
    assert len(notes) == 1 and "away" in notes[0]


def test_nobody_who_asks_nothing_writes_anything() -> None:
    store = MemoryStore()
    asyncio.run(Shares(store).aclose())
    assert not store.objects


@pytest.mark.parametrize(("most", "of"), [(16, 3), (16, 16), (7, 2), (2, 5)])
def test_a_limit_is_dealt_out_whole_and_nobody_gets_nothing(most: int, of: int) -> None:
    async def run() -> list[int]:
        limits = [Limit(most) for _ in range(of)]
        for place, limit in enumerate(limits):
            limit.share(place, of)
        return [limit.width.most for limit in limits]

    found = asyncio.run(run())
    assert sum(found) == max(most, of)
    assert max(found) - min(found) <= 1


def test_rates_are_shared_and_whoever_waits_is_woken_by_a_greater_one() -> None:
    async def run() -> None:
        limit = Limit(8, requests_a_minute=1e-6, tokens_a_minute=6e9)
        assert limit.requests and limit.tokens
        limit.share(0, 2)
        assert (limit.requests._a_second, limit.tokens._a_second) == (0.5e-6 / 60, 5e7)
        await limit.enter()
        waiting = asyncio.create_task(limit.enter())
        await asyncio.sleep(0)
        limit._a_minute = (6e9, 6e9)  # a dead worker's part, so to say: without it the wait would be of years
        limit.share(0, 1)
        async with asyncio.timeout(60):
            await waiting

    asyncio.run(run())
