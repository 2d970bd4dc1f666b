"""Edits: what a person changed of what was answered. How often is part of the keys of the shards concerned.

A log. ``{"kind": "forget", "edit", "home", "units": {stage: [...]}}`` comes first, then the image shard's journal is
told, then ``{"kind": "done", "edit"}`` follows; who finds one that is not done does it, before it counts. So a forget
that was killed half-way is never half there. ``{"kind": "replaced", "home", "stages": [...]}`` says that answers took
the place of abstentions there.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log, LogEntry

Counts = Mapping[tuple[str, str], int]


class Edits:
    """Reads and extends a store's edits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = Log(store, keys.EDITS_LOG)

    def counts(self) -> Counts:
        """How often each image shard's stage was edited. Finishes what was begun and not done."""
        entries = self._log.read()
        done = {entry.body["edit"] for entry in entries if entry.body["kind"] == "done"}
        for entry in entries:
            if entry.body["kind"] == "forget" and entry.body["edit"] not in done:
                self._apply(entry.body)
        found: dict[tuple[str, str], int] = {}
        for entry in entries:
            for stage in _stages(entry):
                at = (entry.body["home"], stage)
                found[at] = found.get(at, 0) + 1
        return found

    def forget(self, shard: str, units: Mapping[str, Collection[str]]) -> None:
        """Let these units of an image shard, by stage, be asked again."""
        listed = {stage: sorted(chosen) for stage, chosen in units.items() if chosen}
        if listed:
            body = {"kind": "forget", "edit": uuid.uuid4().hex, "home": shard, "units": listed}
            self._log.append(body)
            self._apply(body)

    def _apply(self, body: Mapping[str, Any]) -> None:
        units = [unit for chosen in body["units"].values() for unit in chosen]
        Journal(self._store, body["home"]).forget(units, body["edit"])
        self._log.append({"kind": "done", "edit": body["edit"]})

    def replaced(self, shard: str, stages: Iterable[str]) -> None:
        """Answers took the place of abstentions in these stages of an image shard."""
        if listed := sorted(set(stages)):
            self._log.append({"kind": "replaced", "home": shard, "stages": listed})


def _stages(entry: LogEntry) -> Iterable[str]:
    if entry.body["kind"] == "forget":
        return entry.body["units"]  # type: ignore[no-any-return]
    return entry.body.get("stages", ())  # type: ignore[no-any-return]
