"""Leases: one holder an image shard; who was late finds out before it sends anything."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace

import pytest
from fakes import MemoryStore

from taskgalaxy_ops.errors import LeaseLostError, StoreError
from taskgalaxy_ops.storage import leases
from taskgalaxy_ops.storage.leases import Lease


class _Pace:
    """Stands in for the renewing thread's event: it renews when the test says so."""

    def __init__(self) -> None:
        self._orders: queue.Queue[bool] = queue.Queue()
        self._idle = threading.Semaphore(0)

    def wait(self, timeout: float) -> bool:
        self._idle.release()
        return self._orders.get()

    def set(self) -> None:
        self._orders.put(True)

    def renew(self) -> None:
        """One renewal, begun and ended."""
        self._idle.acquire()
        self._orders.put(False)

    def settle(self) -> None:
        self._idle.acquire()
        self._idle.release()


class _World:
    """A store and a clock that the test moves; both ends keep the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = MemoryStore()
        monkeypatch.setattr(leases, "_now", lambda: self.store.clock)
        monkeypatch.setattr(leases, "threading", SimpleNamespace(Event=_Pace, Thread=threading.Thread))

    def lease(self, seconds: float = 60.0) -> Lease:
        return Lease(self.store, "h", seconds=seconds)

    def pass_seconds(self, seconds: float) -> None:
        self.store.clock += seconds


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> _World:
    return _World(monkeypatch)


def _renew(lease: Lease) -> None:
    """Let it renew once, and wait until it has."""
    lease._stop.renew()
    lease._stop.settle()


def _renew_and_end(lease: Lease) -> None:
    """One renewal after which it gives up, since the image shard is lost."""
    lease._stop.renew()
    lease._thread.join(30)
    assert not lease._thread.is_alive()


def test_a_held_image_shard_is_refused(world: _World) -> None:
    with world.lease() as lease:
        lease.check()
        with pytest.raises(LeaseLostError, match="another worker holds it"):
            world.lease()


def test_a_released_image_shard_is_free_at_once(world: _World) -> None:
    for _ in range(3):
        with world.lease() as lease:
            lease.check()
    assert len(world.store.objects) <= 2


def test_a_dead_holders_image_shard_is_free_once_its_time_is_over(world: _World) -> None:
    dead = world.lease()
    world.pass_seconds(61)
    with pytest.raises(LeaseLostError, match="ran out"):
        dead.check()
    with pytest.raises(LeaseLostError):  # by the store's clock it may still be held: its seconds are whole ones
        world.lease()
    world.pass_seconds(2)
    with world.lease() as lease:
        lease.check()
        with pytest.raises(LeaseLostError):
            dead.check()


def test_a_renewed_lease_is_held_on(world: _World) -> None:
    with world.lease() as lease:
        for _ in range(5):
            world.pass_seconds(30)
            _renew(lease)
            lease.check()
            with pytest.raises(LeaseLostError):
                world.lease()
        assert len(world.store.objects) == 1


def test_a_zombie_finds_its_image_shard_taken(world: _World) -> None:
    zombie = world.lease()
    world.pass_seconds(100)
    with world.lease() as lease:
        _renew_and_end(zombie)
        with pytest.raises(LeaseLostError):
            zombie.check()
        lease.check()


def test_a_zombie_cannot_take_a_number_that_was_swept(world: _World) -> None:
    zombie = world.lease()
    world.pass_seconds(100)
    with world.lease() as lease:
        for _ in range(3):
            _renew(lease)
        _renew_and_end(zombie)  # its next number is free again
        with pytest.raises(LeaseLostError):
            zombie.check()
        _renew(lease)
        lease.check()
        assert len(world.store.objects) == 1


def test_a_taker_that_was_overtaken_does_not_hold(world: _World) -> None:
    store = world.store
    world.lease()
    world.pass_seconds(100)
    winners: list[Lease] = []

    def overtake(operation: str, key: str) -> None:
        if operation == "put":
            store.before = lambda operation, key: None
            winners.append(world.lease())
            _renew(winners[0])
            _renew(winners[0])

    store.before = overtake
    with pytest.raises(LeaseLostError):
        world.lease()
    winners[0].check()


def test_a_renewal_whose_reply_was_lost_counts_from_its_first_sending(world: _World) -> None:
    store = world.store
    lease = world.lease(seconds=60)

    def lose(operation: str, key: str) -> None:
        if operation == "put":
            raise StoreError("no reply")

    world.pass_seconds(20)
    store.after = lose
    _renew(lease)  # written at 20, but it is not told so
    store.after = lambda operation, key: None
    world.pass_seconds(30)
    _renew(lease)  # told at 50 of what was written at 20
    world.pass_seconds(31)
    with pytest.raises(LeaseLostError):  # 81: another may take the image shard from 82 on
        lease.check()
    world.pass_seconds(2)
    with world.lease() as taken:
        taken.check()


def test_an_outage_shorter_than_the_lease_is_ridden_out(world: _World) -> None:
    def fail(operation: str, key: str) -> None:
        raise StoreError("out of reach")

    with world.lease(seconds=60) as lease:
        world.pass_seconds(20)
        world.store.before = fail
        _renew(lease)
        world.store.before = lambda operation, key: None
        world.pass_seconds(20)
        _renew(lease)
        world.pass_seconds(20)
        _renew(lease)
        world.pass_seconds(35)
        lease.check()


def test_image_shards_do_not_meet(world: _World) -> None:
    with Lease(world.store, "one") as one, Lease(world.store, "two") as two:
        one.check()
        two.check()
