"""A store in memory, and a scheduler that interleaves actors on it, one store operation at a time.

For tests that search for a bad order of events. The promises of a store are tested on the real stores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.storage import Listed
from taskgalaxy_ops.storage.base import Content


class KilledError(BaseException):
    """Ends an actor like a killed worker. It is no Exception, so that the code under test cannot catch it."""


class MemoryStore:
    """A dict that keeps the promises of a store.

    ``before`` and ``after`` are called around each operation, with its name and key; a test may raise there.
    ``clock``: the store's time in seconds, which a test sets.
    """

    url = "memory://"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.clock = 0.0
        self.before: Callable[[str, str], None] = lambda operation, key: None
        self.after: Callable[[str, str], None] = lambda operation, key: None

    def put_if_absent(self, key: str, data: Content) -> bool:
        self.before("put", key)
        if not isinstance(data, bytes):
            data.seek(0)
            data = data.read()
        if key not in self.objects:
            self.objects[key], self.written[key] = data, self.clock
        same = self.objects[key] == data
        self.after("put", key)
        return same

    def replace(self, key: str, data: bytes) -> None:
        self.before("replace", key)
        self.objects[key], self.written[key] = data, self.clock
        self.after("replace", key)

    def copy(self, key: str, to: str) -> None:
        self.before("copy", to)
        self.objects[to], self.written[to] = self.get(key), self.clock
        self.after("copy", to)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.before("get", key)
        if key not in self.objects:
            raise NotFoundError(f"store {self.url}: no object {key}.")
        data = self.objects[key][start : None if length is None else start + length]
        self.after("get", key)
        return data

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        self.before("list", prefix)
        objects = [
            Listed(key, len(self.objects[key]), written=self.written.get(key, 0.0))
            for key in sorted(self.objects)
            if key.startswith(prefix)
        ]
        self.after("list", prefix)
        return iter([listed for listed in objects if listed.key > after])

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.objects.pop(key, None)
        self.after("delete", key)

    def age(self, key: str) -> float:
        self.before("age", key)
        if key not in self.written or key not in self.objects:
            raise NotFoundError(f"store {self.url}: no object {key}.")
        return self.clock - self.written[key]


class _Actor(threading.Thread):
    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        # Held, unless the one side has let the other go on: a semaphore would take Python code at each of many steps.
        self.go, self.parked = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.parked.acquire()
        self.ended = False
        self.doomed = False
        self.error: BaseException | None = None

    def park(self) -> None:
        self.parked.release()
        self.go.acquire()
        if self.doomed:
            raise KilledError

    def step(self) -> None:
        self.go.release()
        self.parked.acquire()

    def run(self) -> None:
        self.go.acquire()
        try:
            self._work()
        except KilledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self.error = error
        finally:
            self.ended = True
            self.parked.release()


class Schedule:
    """Runs actors on a store one operation at a time, in the order that ``choose(n)`` (0 to n-1) says."""

    def __init__(self, store: MemoryStore, choose: Callable[[int], int]) -> None:
        self._choose = choose
        store.before = store.after = lambda operation, key: self.pause()

    def pause(self) -> None:
        """Let the scheduler choose the next actor, if the caller is one."""
        actor = threading.current_thread()
        if isinstance(actor, _Actor):
            actor.park()

    def run(self, works: Sequence[Callable[[], None]], kill: Callable[[int], bool] = lambda actor: False) -> set[int]:
        """Run all actors to their end; returns the numbers of the actors that were killed.

        ``kill(actor)`` is asked before each step of an actor whether to kill it. Raises the first actor's error.
        """
        actors = [_Actor(work) for work in works]
        killed = set()
        for actor in actors:
            actor.start()
        try:
            while live := [number for number, actor in enumerate(actors) if not actor.ended]:
                number = live[self._choose(len(live))]
                if kill(number):
                    actors[number].doomed = True
                    killed.add(number)
                actors[number].step()
        finally:  # if the test was interrupted: end all threads
            for actor in actors:
                actor.doomed = True
                while not actor.ended:
                    actor.step()
        for actor in actors:
            actor.join()
            if actor.error is not None:
                raise actor.error
        return killed
