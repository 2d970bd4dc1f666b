"""Which models serve nothing at the moment, and since when: kept in the store, for whoever asks about its state.

A worker that waits for a model writes this down, again as long as it waits; the first worker that the model serves
deletes it. If the store fails, nothing is written: a run does not depend on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.inference.request_forms import Identity, group, identity
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A model that serves nothing. since: when that began; seen: when it was tried last; both Unix seconds."""

    model: str
    base_url: str
    since: float
    seen: float
    why: str


class ModelHealth:
    """Writes down outages while this process sees them. For one event loop; ``store``: None if nothing is written."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._out: dict[Identity, float] = {}  # since when, of models of which the store holds an outage
        self._recalled: set[Identity] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    async def aclose(self) -> None:
        """Wait until everything is written."""
        await asyncio.gather(*self._writing)

    async def recall(self, model: Model) -> None:
        """Read whether the store holds an outage of the model, once: it ends when the model serves this process."""
        if self._store is None or model.weights is not None or identity(model) in self._recalled:
            return
        self._recalled.add(identity(model))
        if found := await asyncio.to_thread(_read, self._store, identity(model)):
            self._out.setdefault(identity(model), found.since)

    def away(self, model: Model, why: str, since: float) -> None:
        """Write down that the model serves nothing since ``since`` (Unix seconds), or since a worker saw it before."""
        since = self._out[identity(model)] = min(since, self._out.get(identity(model), since))
        outage = Outage(model=model.name, base_url=model.base_url, since=since, seen=time.time(), why=why)
        self._write(model, json.dumps(asdict(outage), sort_keys=True).encode())

    def serves(self, model: Model) -> None:
        """The model served a request: an outage is over."""
        if identity(model) in self._out:
            del self._out[identity(model)]
            self._write(model, None)

    def _write(self, model: Model, raw: bytes | None) -> None:
        if self._store is not None:
            self._writing.add(asyncio.create_task(self._written(self._store, keys.health(group(identity(model))), raw)))

    async def _written(self, store: Store, key: str, raw: bytes | None) -> None:
        async with self._one_at_a_time:  # else what was found earlier might be written last
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(store.delete, key) if raw is None else await asyncio.to_thread(
                    store.replace, key, raw
                )


def outages(store: Store, models: Sequence[Model]) -> list[Outage]:
    """The outages of these models that have not ended, as far as a worker has seen them."""
    wanted = {identity(model): None for model in models if model.weights is None}
    return [found for one in wanted if (found := _read(store, one))]


def _read(store: Store, one: Identity) -> Outage | None:
    try:
        return Outage(**json.loads(store.get(keys.health(group(one)))))
    except (NotFoundError, StoreError, ValueError, TypeError):  # without the store there is nothing to tell
        return None
