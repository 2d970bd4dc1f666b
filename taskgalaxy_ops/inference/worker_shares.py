"""Worker processes share a model's rate limit: each writes a sign of life to the store, and uses its share.

A worker that sends requests writes one object for each limit, again every 15 seconds. A worker whose object is 45
seconds old, by the store's own clock, counts as dead. No process assigns shares: each worker counts the living ones, so
that shares change as workers come and go. If the store fails, shares stay as they are and the run goes on.

Workers also share which form of structured output a model accepts, so that only one of them has to find out.
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
_FORM_SECONDS = 86_400.0  # after which a model's form is not trusted, since its server may have changed
_SOON = (1.0, 2.0, 4.0, 8.0)  # seconds between the first looks, so that workers that start together soon see each other


class Share(NamedTuple):
    """A worker's share: it is number ``place`` (from 0) of ``of`` workers, in an order that all of them see."""

    place: int
    of: int


class Presence:
    """This worker's signs of life, and the others'. A group is the hash of what models under one limit share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._worker = uuid.uuid4().hex

    def look(self, groups: Collection[str]) -> dict[str, Share]:
        """Write signs of life for these groups; returns this worker's share of item. Deletes dead workers' objects.

        Takes one put for item group and one listing. All times are the store's: the youngest of our own objects tells
        the current time. Raises StoreError.
        """
        for group in groups:
            self._store.replace(keys.worker(group, self._worker), b"here")
        seen: dict[str, list[str]] = defaultdict(list)
        listed = list(self._store.list(keys.WORKERS))
        now = max((item.written for item in listed if item.key.endswith(self._worker)), default=0.0)
        for item in listed:
            if now - item.written > DEAD_SECONDS:
                self._store.delete(item.key)  # a worker that only slept writes it again
            else:
                _, group, worker = item.key.split("/")
                seen[group].append(worker)
        # If another worker deleted our object meanwhile, the next look gives the share.
        return {
            group: Share(seen[group].index(self._worker), len(seen[group]))
            for group in groups
            if self._worker in seen[group]
        }

    def leave(self, groups: Collection[str]) -> None:
        """Delete this worker's signs of life for these groups. Raises StoreError."""
        for group in groups:
            self._store.delete(keys.worker(group, self._worker))


@dataclass(slots=True)
class _Group:
    on_share: Callable[[Share], None]
    looked: asyncio.Event = field(default_factory=asyncio.Event)


class Shares:
    """Keeps this worker's signs of life fresh in the background, and reports its shares. For one event loop.

    ``note`` is called once if the store fails. ``soon`` and ``later``: seconds between the first looks, and between
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
        self.store = store
        self._presence = Presence(store)
        self._note = note
        self._soon, self._later = soon, later
        self._groups: dict[str, _Group] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._over = False

    async def join(self, group: str, told: Callable[[Share], None]) -> None:
        """Share a group's limit from now on; ``told`` is called with each share.

        Returns after the first call of ``told``, or after the store failed.
        """
        if group not in self._groups:
            self._groups[group] = _Group(told)
            self._woken.set()
            self._keeping = self._keeping or asyncio.create_task(self._keep())
        await self._groups[group].looked.wait()

    async def form(self, group: str) -> str:
        """The form of structured output that a worker found the model to accept in the last day; "" if none did."""

        def read() -> str:
            try:
                young = self.store.age(keys.form(group)) < _FORM_SECONDS
                return self.store.get(keys.form(group)).decode("ascii", "replace") if young else ""
            except (NotFoundError, StoreError):
                return ""

        return await asyncio.to_thread(read)

    async def tell_form(self, group: str, form: str) -> None:
        """Share the form that the model accepts. If the store fails, the other workers find it out themselves."""
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self.store.replace, keys.form(group), form.encode())

    async def aclose(self) -> None:
        """Stop sharing: the other workers use this worker's shares."""
        if self._keeping is None:
            return
        self._over = True
        self._woken.set()
        await self._keeping
        with contextlib.suppress(StoreError):  # without renewal this worker soon counts as dead
            await asyncio.to_thread(self._presence.leave, list(self._groups))

    async def _keep(self) -> None:
        looks = 0
        while not self._over:
            if self._woken.is_set():  # a group was added
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
                groups[group].on_share(share)
        except StoreError as error:
            self._note(f"limits are shared as before, since this worker cannot see which others ask models: {error}")
            self._note = lambda text: None
        finally:
            for joined in groups.values():
                joined.looked.set()
