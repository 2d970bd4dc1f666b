"""Entries of an earlier layout of the registry, brought to today's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from taskgalaxy_ops.records import Claim
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.image_index import Housed
from taskgalaxy_ops.storage.log import LogEntry
from taskgalaxy_ops.storage.registry.tables import TableDraft
from taskgalaxy_ops.storage.scan_staging import Scanned
from taskgalaxy_ops.storage.shards import Shards, TableRef


class RegistryUpgrade:
    """Entries of layout 1 in this layout: claims by home, and homes that know how many images they were cut with."""

    def __init__(self, store: Store, entries: Iterable[LogEntry]) -> None:
        self._shards = Shards(store)
        self._draft = TableDraft(store)
        self._housed = Housed()
        self.replaced: set[str] = set()  # keys
        for body in (entry.body for entry in entries if entry.body["kind"] == "scan"):
            images = ((raw["home"], TableRef(**raw["images"])) for raw in body["homes"])
            self._housed.extend((home, self._shards.column(ref, "image")) for home, ref in images)

    def entry(self, entry: LogEntry) -> LogEntry:
        body = entry.body
        if body["kind"] != "scan" or "key" not in body["claims"]:
            return entry
        ref = TableRef(**body["claims"])
        self.replaced.add(ref.key)
        with Scanned(body["source"]) as found:
            for claim in self._shards.stream(ref, Claim):
                found.claim(claim)
            claims = self._draft.claims(self._draft.parts(found, self._housed.get))
        homes = [{**raw, "cut": raw["images"]["rows"]} for raw in body["homes"]]
        return LogEntry(entry.number, {**body, "claims": asdict(claims), "homes": homes})
