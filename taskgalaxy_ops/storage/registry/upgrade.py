"""Converts the registry's entries of layout 1 to the current layout."""

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
    """Rewrites scans of layout 1: cuts their claims by image shard, and adds how many images each shard was cut with.

    ``replaced``: the keys of the tables that the new entries do not name any more.
    """

    def __init__(self, store: Store, entries: Iterable[LogEntry]) -> None:
        self._stage_outputs = StageOutputs(store)
        self._draft = TableDraft(store)
        self._image_index = ImageIndex()
        self.replaced: set[str] = set()
        for body in (entry.body for entry in entries if entry.body["kind"] == "scan"):
            images = ((raw["home"], TableRef(**raw["images"])) for raw in body["homes"])
            self._image_index.extend((shard, self._stage_outputs.column(ref, "image")) for shard, ref in images)

    def entry(self, entry: LogEntry) -> LogEntry:
        """The entry in the current layout; the entry itself if it is in it."""
        body = entry.body
        if body["kind"] != "scan" or "key" not in body["claims"]:
            return entry
        ref = TableRef(**body["claims"])
        self.replaced.add(ref.key)
        with ScanStaging(body["source"]) as scan:
            for claim in self._stage_outputs.stream(ref, Claim):
                scan.claim(claim)
            claims = self._draft.claims(self._draft.parts(scan, self._image_index.get))
        shards = [{**raw, "cut": raw["images"]["rows"]} for raw in body["homes"]]
        return LogEntry(entry.number, {**body, "claims": asdict(claims), "homes": shards})
