"""Edits: what a person changed of what was answered. How often is part of the keys of the shards concerned.

A log. ``{"kind": "forget", "edit", "home", "units": {stage: [...]}}`` comes first, then the image shard's journal is
told, then ``{"kind": "done", "edit"}`` follows. A forget that was killed half-way counts from its first entry on: a run
finishes it before it counts, and who only looks takes its units as forgotten (``begun``). So it is never half there.
``{"kind": "replaced", "home", "stages": [...]}`` says that answers took the place of abstentions there.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log, LogEntry

Counts = Mapping[tuple[str, str], int]  # by image shard and stage
Begun = Mapping[str, Mapping[str, Sequence[str]]]  # by image shard: the units of each edit


class Edits:
    """Reads and extends a store's edits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = Log(store, keys.EDITS_LOG)

    def finish(self) -> Counts:
        """Do what was begun and not done; how often each image shard's stage was edited, now that all of it is done."""
        entries = self._log.read()
        for entry in _begun(entries):
            self._apply(entry.body)
        return _counted(entries)

    def counts(self) -> Counts:
        """How often each image shard's stage was edited, by what was begun and is not done, too. Writes nothing."""
        return _counted(self._log.read())

    def begun(self) -> Begun:
        """What was begun and is not done, so that an image shard's journal may not know of it yet. Writes nothing."""
        found: dict[str, dict[str, list[str]]] = {}
        for entry in _begun(self._log.read()):
            found.setdefault(entry.body["home"], {})[entry.body["edit"]] = _units(entry.body)
        return found

    def forget(self, shard: str, units: Mapping[str, Collection[str]]) -> None:
        """Let these units of an image shard, by stage, be asked again."""
        listed = {stage: sorted(chosen) for stage, chosen in units.items() if chosen}
        if listed:
            body = {"kind": "forget", "edit": uuid.uuid4().hex, "home": shard, "units": listed}
            self._log.append(body)
            self._apply(body)

    def _apply(self, body: Mapping[str, Any]) -> None:
        Journal(self._store, body["home"]).forget(_units(body), body["edit"])
        self._log.append({"kind": "done", "edit": body["edit"]})

    def replaced(self, shard: str, stages: Iterable[str]) -> None:
        """Answers took the place of abstentions in these stages of an image shard."""
        if listed := sorted(set(stages)):
            self._log.append({"kind": "replaced", "home": shard, "stages": listed})


def _begun(entries: Sequence[LogEntry]) -> list[LogEntry]:
    """The forgets that are not done."""
    done = {entry.body["edit"] for entry in entries if entry.body["kind"] == "done"}
    return [entry for entry in entries if entry.body["kind"] == "forget" and entry.body["edit"] not in done]


def _counted(entries: Iterable[LogEntry]) -> Counts:
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        for stage in _stages(entry):
            at = (entry.body["home"], stage)
            found[at] = found.get(at, 0) + 1
    return found


def _units(body: Mapping[str, Any]) -> list[str]:
    return [unit for chosen in body["units"].values() for unit in chosen]


def _stages(entry: LogEntry) -> Iterable[str]:
    if entry.body["kind"] == "forget":
        return entry.body["units"]  # type: ignore[no-any-return]
    return entry.body.get("stages", ())  # type: ignore[no-any-return]
