"""Entries of an earlier layout of the registry, brought to today's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from taskgalaxy_ops.records import Claim
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.image_index import ImageIndex
from taskgalaxy_ops.storage.log import LogEntry
from taskgalaxy_ops.storage.registry.tables import TableDraft
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.storage.shards import StageOutputs, TableRef


class RegistryUpgrade:
    """Entries of layout 1 in this layout.

    Claims by image shard, and image shards that know how many images they were cut with.
    """

    def __init__(self, store: Store, entries: Iterable[LogEntry]) -> None:
        self._stage_outputs = StageOutputs(store)
        self._draft = TableDraft(store)
        self._image_index = ImageIndex()
        self.replaced: set[str] = set()  # keys
        for body in (entry.body for entry in entries if entry.body["kind"] == "scan"):
            images = ((raw["home"], TableRef(**raw["images"])) for raw in body["homes"])
            self._image_index.extend((shard, self._stage_outputs.column(ref, "image")) for shard, ref in images)

    def entry(self, entry: LogEntry) -> LogEntry:
        body = entry.body
        if body["kind"] != "scan" or "key" not in body["claims"]:
            return entry
        ref = TableRef(**body["claims"])
        self.replaced.add(ref.key)
        with ScanStaging(body["source"]) as found:
            for claim in self._stage_outputs.stream(ref, Claim):
                found.claim(claim)
            claims = self._draft.claims(self._draft.parts(found, self._image_index.get))
        shards = [{**raw, "cut": raw["images"]["rows"]} for raw in body["homes"]]
        return LogEntry(entry.number, {**body, "claims": asdict(claims), "homes": shards})
