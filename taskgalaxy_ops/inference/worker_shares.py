"""How worker processes share a model's limit: each leaves a sign of life in the store, and takes its part.

A worker that asks writes one object a limit, and writes it again every 15 seconds; one that has not for 45, by the
store's own clock, is dead. Nobody divides: each counts who is there, so that shares follow as workers come and go.
A store that fails changes no share and ends no run.

They also tell each other which form of structured output a model was found to take, so that it is found out once.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store

RENEW_SECONDS = 15.0
DEAD_SECONDS = 3 * RENEW_SECONDS
_FORM_SECONDS = 86_400.0  # that a model's form is believed: its server may be another by then
_SOON = (1.0, 2.0, 4.0, 8.0)  # seconds between the first looks: workers that start together find each other at once


class Share(NamedTuple):
    """One of ``of`` workers, in an order that all of them see; ``place`` from 0."""

    place: int
    of: int


class Presence:
    """This worker's signs of life, and what it sees of others'. ``group``: the hash of what makes a limit one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._worker = uuid.uuid4().hex

    def look(self, groups: Collection[str]) -> dict[str, Share]:
        """Be there for these limits, and see who else is; those of the dead are swept. Raises StoreError.

        A put each and one listing. All times are the store's: the youngest of our own objects tells how late it is.
        """
        for group in groups:
            self._store.replace(keys.worker(group, self._worker), b"here")
        seen: dict[str, list[str]] = defaultdict(list)
        listed = list(self._store.list(keys.WORKERS))
        now = max((each.written for each in listed if each.key.endswith(self._worker)), default=0.0)
        for each in listed:
            if now - each.written > DEAD_SECONDS:
                self._store.delete(each.key)  # one that only slept writes it again
            else:
                _, group, worker = each.key.split("/")
                seen[group].append(worker)
        # Where another swept ours meanwhile, the next look will do.
        return {
            group: Share(seen[group].index(self._worker), len(seen[group]))
            for group in groups
            if self._worker in seen[group]
        }

    def leave(self, groups: Collection[str]) -> None:
        """Be gone. Raises StoreError."""
        for group in groups:
            self._store.delete(keys.worker(group, self._worker))


@dataclass(slots=True)
class _Group:
    told: Callable[[Share], None]
    looked: asyncio.Event = field(default_factory=asyncio.Event)


class Shares:
    """Keeps this worker present in the background, and tells each of its limits its share. For one event loop.

    ``note`` hears, once, of a store that fails. ``soon`` and ``later``: seconds between the first looks, and between
    all others.
    """

    def __init__(
        self,
        store: Store,
        note: Callable[[str], None] = lambda text: None,
        *,
        soon: Sequence[float] = _SOON,
        later: float = RENEW_SECONDS,
    ) -> None:
        self._store = store
        self._presence = Presence(store)
        self._note = note
        self._soon, self._later = soon, later
        self._groups: dict[str, _Group] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._over = False

    async def join(self, group: str, told: Callable[[Share], None]) -> None:
        """Share this limit from now on; comes back once ``told`` has heard how many are there, or the store failed."""
        if group not in self._groups:
            self._groups[group] = _Group(told)
            self._woken.set()
            self._keeping = self._keeping or asyncio.create_task(self._keep())
        await self._groups[group].looked.wait()

    async def form(self, group: str) -> str:
        """The form of structured output that some worker found this model to take within a day; "" if none did."""

        def read() -> str:
            try:
                young = self._store.age(keys.form(group)) < _FORM_SECONDS
                return self._store.get(keys.form(group)).decode("ascii", "replace") if young else ""
            except (NotFoundError, StoreError):
                return ""

        return await asyncio.to_thread(read)

    async def tell_form(self, group: str, form: str) -> None:
        """Tell the others what this model was found to take; one that does not hear finds out by itself."""
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._store.replace, keys.form(group), form.encode())

    async def aclose(self) -> None:
        """Leave all limits to the others."""
        if self._keeping is None:
            return
        self._over = True
        self._woken.set()
        await self._keeping
        with contextlib.suppress(StoreError):  # who is not renewed is soon taken for dead
            await asyncio.to_thread(self._presence.leave, list(self._groups))

    async def _keep(self) -> None:
        looks = 0
        while not self._over:
            if self._woken.is_set():  # somebody joined
                looks = 0
                self._woken.clear()
            await self._look(dict(self._groups))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), (*self._soon, self._later)[min(looks, len(self._soon))])
            looks += 1

    async def _look(self, groups: dict[str, _Group]) -> None:
        try:
            shares = await asyncio.to_thread(self._presence.look, list(groups))
            for group, share in shares.items():
                groups[group].told(share)
        except StoreError as error:
            self._note(f"limits are shared as before, since this worker cannot see which others ask models: {error}")
            self._note = lambda text: None
        finally:
            for each in groups.values():
                each.looked.set()
