"""Simulate hundreds of writers on one store: the real Log, Lease, Ledger and Journal, on a virtual store and clock.

A discrete-event simulation: each writer is a thread, one of which runs at a time; an operation on the store takes as
long as S3's do, by the virtual clock, and takes effect half-way. Some writers are killed, and others continue their
image shards. The invariants are checked at the end: AssertionError where one does not hold.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any
from unittest import mock

from taskgalaxy_ops.errors import LeaseLostError, NotFoundError, StoreError
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.storage import Listed, leases, log
from taskgalaxy_ops.storage.base import Content
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import Caps, JournaledCalls, Ledger

# Seconds that S3 takes for a small object, near the median that its users report. Each operation's is drawn from 0.5 to
# 1.5 times this.
LATENCY = {"put": 0.030, "get": 0.015, "list": 0.030, "delete": 0.020, "head": 0.015}
_PAGE = 1000


class KilledError(BaseException):
    """Raised in the threads of a writer whose process is dead, so that they end."""


class _Actor(threading.Thread):
    def __init__(self, world: World, work: Callable[[], None], process: int) -> None:
        super().__init__(daemon=True)
        self.world, self.work, self.process = world, work, process
        self.go = threading.Semaphore(0)
        self.turn = 0  # number of its latest wake-up; earlier ones are ignored
        self.error: BaseException | None = None
        self.ended = False
        self.joining: list[_Actor] = []

    def run(self) -> None:
        self.go.acquire()
        try:
            if self.process not in self.world.dead:
                self.work()
        except KilledError:
            pass
        except BaseException as error:  # noqa: BLE001 - World.run raises it
            self.error = error
        self.ended = True
        for other in self.joining:
            self.world.wake(other, 0.0)
        self.world.parked.release()


class World:
    """The virtual clock, and the queue of actors."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.dead: set[int] = set()  # processes
        self.frozen: dict[int, float] = {}  # by process that sleeps, like a suspended machine: the time of its waking
        self.parked = threading.Semaphore(0)
        self._events: list[tuple[float, int, _Actor, int]] = []
        self._order = itertools.count()
        self._actors: list[_Actor] = []

    def spawn(self, work: Callable[[], None], process: int, after: float = 0.0) -> _Actor:
        """Start ``work`` in a process, ``after`` seconds from now."""
        actor = _Actor(self, work, process)
        self._actors.append(actor)
        actor.start()
        self.wake(actor, after)
        return actor

    def wake(self, actor: _Actor, after: float) -> None:
        """Let an actor continue ``after`` seconds from now; this replaces an earlier wake-up."""
        actor.turn += 1
        heapq.heappush(self._events, (self.now + after, next(self._order), actor, actor.turn))

    def actor(self) -> _Actor:
        """The actor whose thread is calling."""
        current = threading.current_thread()
        assert isinstance(current, _Actor)
        return current

    def park(self, seconds: float | None) -> None:
        """Suspend the calling actor for some seconds; None: until another actor wakes it."""
        actor = self.actor()
        if seconds is not None:
            self.wake(actor, seconds)
        self.parked.release()
        actor.go.acquire()
        if actor.process in self.dead:
            raise KilledError

    def run(self) -> None:
        """Run until no actor has anything left to do. Raises what an actor raised."""
        while self._events:
            at, _, actor, turn = heapq.heappop(self._events)
            if actor.ended or turn != actor.turn:
                continue
            if (until := self.frozen.get(actor.process, 0.0)) > at:
                heapq.heappush(self._events, (until, next(self._order), actor, turn))
                continue
            self.now = at
            actor.go.release()
            self.parked.acquire()
            if actor.error is not None:
                raise actor.error

    @contextlib.contextmanager
    def ruling(self) -> Iterator[None]:
        """Let the library's modules use this clock while the block runs."""
        now = SimpleNamespace(sleep=self.park)
        threads = SimpleNamespace(Event=lambda: _Event(self), Thread=lambda **about: _Thread(self, **about))
        with (
            mock.patch.object(log, "time", now),
            mock.patch.object(log, "random", self.random),
            mock.patch.object(log, "ThreadPoolExecutor", lambda workers: _Pool(self, workers)),
            mock.patch.object(leases, "time", now),
            mock.patch.object(leases, "threading", threads),
            mock.patch.object(leases, "_now", lambda: self.now),
        ):
            yield


class _Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False
        self._waiting: list[_Actor] = []

    def wait(self, timeout: float) -> bool:
        if not self._set:
            self._waiting.append(self._world.actor())
            self._world.park(timeout)
            self._waiting.remove(self._world.actor())
        return self._set

    def set(self) -> None:
        self._set = True
        for actor in self._waiting:
            self._world.wake(actor, 0.0)


class _Thread:
    def __init__(self, world: World, target: Callable[[], None], **_: Any) -> None:
        self._world, self._target = world, target

    def start(self) -> None:
        self._actor = self._world.spawn(self._target, self._world.actor().process)

    def join(self) -> None:
        while not self._actor.ended:
            self._actor.joining.append(self._world.actor())
            self._world.park(None)


class _Pool:
    """A thread pool: requests of its threads take a share of the time each; computing takes none."""

    def __init__(self, world: World, workers: int) -> None:
        self._world, self._workers = world, workers

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        actor = self._world.actor()
        actor.share = self._workers  # type: ignore[attr-defined]
        try:
            return [function(item) for item in items]
        finally:
            actor.share = 1  # type: ignore[attr-defined]

    def submit(self, function: Callable[..., Any], *arguments: Any) -> SimpleNamespace:
        done = function(*arguments)
        return SimpleNamespace(result=lambda: done)


class VirtualStore:
    """A store in memory, whose operations take time by the world's clock and are counted."""

    url = "virtual://"

    def __init__(self, world: World, latency: dict[str, float] | None = None) -> None:
        self._world = world
        self._latency = latency or LATENCY
        self._names: list[str] = []  # sorted
        self._objects: dict[str, tuple[bytes, float]] = {}
        self.requests: Counter[str] = Counter()

    @contextlib.contextmanager
    def _takes(self, operation: str, times: int = 1) -> Iterator[None]:
        self.requests[operation] += times
        share = getattr(threading.current_thread(), "share", 1)
        seconds = times * self._latency[operation] * self._world.random.uniform(0.5, 1.5) / share
        self._world.park(seconds / 2)
        yield
        self._world.park(seconds / 2)

    def put_if_absent(self, key: str, data: Content) -> bool:
        assert isinstance(data, bytes)  # logs write bytes only
        with self._takes("put"):
            if free := key not in self._objects:
                bisect.insort(self._names, key)
                self._objects[key] = data, self._world.now
        return free

    def replace(self, key: str, data: bytes) -> None:
        raise NotImplementedError

    def copy(self, key: str, to: str) -> None:
        raise NotImplementedError

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        with self._takes("get"):
            entry = self._objects.get(key)
        if entry is None:
            raise NotFoundError(f"no object {key}")
        return entry[0][start : None if length is None else start + length]

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:  # noqa: ARG002
        names: list[str] = []
        with self._takes("list"):
            place = max(bisect.bisect_left(self._names, prefix), bisect.bisect_right(self._names, after))
            for name in self._names[place:]:
                if not name.startswith(prefix):
                    break
                names.append(name)
        for _ in range(_PAGE, len(names), _PAGE):
            with self._takes("list"):
                pass
        return iter([Listed(name, 0) for name in names])

    def delete(self, key: str) -> None:
        with self._takes("delete"):
            if self._objects.pop(key, None):
                del self._names[bisect.bisect_left(self._names, key)]

    def age(self, key: str) -> float:
        with self._takes("head"):
            entry = self._objects.get(key)
            age = self._world.now - entry[1] if entry else None
        if age is None:
            raise NotFoundError(f"no object {key}")
        return age


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a simulation."""

    writers: int = 256
    seconds: float = 120.0  # after which no new image shard is begun
    calls_a_second: int = 8  # of one writer: what its models give
    calls_a_shard: int = 160
    block_calls: int = 32
    killed: int = 16  # writers that are killed at a random time
    frozen: int = 16  # writers that sleep for three lease times, and wake as zombies
    lease_seconds: float = 15.0
    compact_seconds: float | None = None  # seconds between compactions of the ledger; None: it is not compacted
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """The outcome of a simulation."""

    calls: int = 0  # model calls with a reply
    in_time: int = 0  # of these, before ``Plan.seconds``
    shards: int = 0  # finished
    seconds: float = 0.0
    ledger_seconds: float = 0.0  # that writers spent in the ledger, summed
    ledger_longest: float = 0.0
    ledger_uses: int = 0
    given_up: int = 0  # times that a writer gave up, because others took too many numbers of a log before it
    requests: dict[str, int] = field(default_factory=dict)


def simulate(plan: Plan) -> Outcome:
    """Run a simulation and check its invariants: see ``_Simulation.check``."""
    simulation = _Simulation(plan)
    with simulation.world.ruling():
        return simulation.run()


class _Simulation:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = World(plan.seed)
        self.store = VirtualStore(self.world)
        self.outcome = Outcome()
        self._caps = Caps(None, plan.writers * plan.calls_a_second * int(plan.seconds) * 4)
        self._left: list[str] = []  # image shards that a writer began and did not finish
        self._at: dict[int, str] = {}  # writer: the image shard that it works on
        self._numbers = itertools.count()
        self._sent: dict[str, list[tuple[float, int]]] = {}  # image shard: when, and which writer
        self._kept: dict[str, set[str]] = {}  # image shard: replies whose flush returned

    def run(self) -> Outcome:
        plan, world = self.plan, self.world
        for writer in range(plan.writers):
            world.spawn(partial(self._write, writer), writer)
        victims = world.random.sample(range(plan.writers), plan.killed + plan.frozen)
        for number, victim in enumerate(victims):
            strike = self._kill if number < plan.killed else self._freeze
            world.spawn(partial(strike, victim), -1, world.random.uniform(0, plan.seconds))
        if plan.compact_seconds:
            world.spawn(self._compact, -2)
        world.run()
        self.outcome.seconds = world.now
        self.outcome.requests = dict(self.store.requests)
        world.spawn(self.check, -3)
        world.run()
        return self.outcome

    def _kill(self, victim: int) -> None:
        self.world.dead.add(victim)
        self._leave(victim)

    def _freeze(self, victim: int) -> None:
        self.world.frozen[victim] = self.world.now + 3 * self.plan.lease_seconds
        self._leave(victim)

    def _leave(self, victim: int) -> None:
        if (shard := self._at.get(victim)) is not None:
            self._left.append(shard)  # another writer will take it

    def _compact(self) -> None:
        while self.world.now < self.plan.seconds:
            self.world.park(self.plan.compact_seconds)
            Ledger(self.store, self._caps).compact()

    def _write(self, writer: int) -> None:
        ledger = Ledger(self.store, self._caps)
        held = False
        while self.world.now < self.plan.seconds:
            fresh = held or not self._left  # after an image shard that another writer held, begin a new one
            self._at[writer] = shard = f"{next(self._numbers):06d}" if fresh else self._left.pop(0)
            held = False
            try:
                self._shard(writer, shard, ledger)
            except LeaseLostError:
                self._left.append(shard)  # its dead holder's lease runs on for a while
                held = True
            except StoreError:
                self._left.append(shard)
                self.outcome.given_up += 1
            del self._at[writer]

    def _shard(self, writer: int, shard: str, ledger: Ledger) -> None:
        plan = self.plan
        lease = Lease(self.store, shard, seconds=plan.lease_seconds)
        try:
            journal = Journal(self.store, shard)
            if len(journal.answers) < plan.calls_a_shard:
                shown: Counter[str] = Counter(reply["block"] for reply in journal.replies())
                self._ledger(
                    ledger.settle_orphans, shard, {block: JournaledCalls(n, calls=n) for block, n in shown.items()}
                )
                self._calls(writer, shard, lease, journal, ledger)
        finally:
            if writer not in self.world.dead:  # a dead process releases nothing
                lease.__exit__(None, None, None)

    def _calls(self, writer: int, shard: str, lease: Lease, journal: Journal, ledger: Ledger) -> None:
        plan = self.plan
        needed = [unit for n in range(plan.calls_a_shard) if (unit := f"{shard} {n}") not in journal.answers]
        while needed:
            block = self._ledger(ledger.take, shard, calls=min(plan.block_calls, len(needed)), ceiling=1)
            left, due = block.calls, self.world.now
            while left:
                lease.check()
                now, needed = needed[: min(left, plan.calls_a_second)], needed[min(left, plan.calls_a_second) :]
                left -= len(now)
                self._sent.setdefault(shard, []).append((self.world.now, writer))
                due += len(now) / plan.calls_a_second  # the models are asked further while a part is written
                self.world.park(max(0.0, due - self.world.now))
                self.outcome.calls += len(now)
                self.outcome.in_time += len(now) if self.world.now <= plan.seconds else 0
                replies = [_reply(unit, writer, block.block, journal.seen) for unit in now]
                for reply in replies:
                    journal.add(reply)
                journal.flush()
                self._kept.setdefault(shard, set()).update(reply.reply for reply in replies)
            self._ledger(ledger.settle, block, calls=block.calls, cost=block.calls)
        self.outcome.shards += 1

    def _ledger(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        began = self.world.now
        try:
            return work(*arguments, **named)
        finally:
            took = self.world.now - began
            self.outcome.ledger_uses += 1
            self.outcome.ledger_seconds += took
            self.outcome.ledger_longest = max(self.outcome.ledger_longest, took)

    def check(self) -> None:
        """Check the invariants.

        No reply whose flush returned is lost; one writer at a time sends for an image shard; the budget is not
        overspent.
        """
        for shard, kept in self._kept.items():
            stored = {reply["reply"] for reply in Journal(self.store, shard).replies()}
            assert kept <= stored, f"home {shard} lost {len(kept - stored)} replies"
        for shard, sent in self._sent.items():
            owners = [writer for writer, _ in itertools.groupby(writer for _, writer in sent)]
            assert len(owners) == len(set(owners)), f"home {shard}: writers took turns {owners}"
        spent = Ledger(self.store, self._caps).spent()
        assert self.outcome.calls <= spent.calls <= (self._caps.max_calls or 0), f"{self.outcome.calls} sent, {spent}"


def _reply(unit: str, writer: int, block: str, seen: int) -> Reply:
    return Reply(
        reply=f"{unit} {writer}",
        stage="filter",
        model="teacher",
        units=(unit,),
        answers={unit: Answer({"fits": True})},
        raw={"choices": []},
        usage={},
        cost=1,
        list_cost=1,
        ceiling=1,
        block=block,
        attempts=1,
        seen=seen,
        at=0.0,
        seconds=0.0,
    )
