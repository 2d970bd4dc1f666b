"""Rewrites the registry's tables without the images that were taken down."""

from __future__ import annotations

from dataclasses import asdict, replace

from taskgalaxy_ops.records import Claim, FileReject, Image
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import LogEntry
from taskgalaxy_ops.storage.registry.state import (
    ClaimPart,
    ImageShard,
    RegistryState,
    merged_by_file,
    read_image_shard,
    read_scan,
    taken_down_reject,
)
from taskgalaxy_ops.storage.registry.tables import TableDraft
from taskgalaxy_ops.storage.shards import StageOutputs, table


class Redaction:
    """Rewrites scans so that their tables hold no image that was taken down.

    ``replaced``: the keys of the tables that the new entries do not name any more.
    """

    def __init__(self, store: Store, state: RegistryState) -> None:
        self._stage_outputs = StageOutputs(store)
        self._draft = TableDraft(store)
        self._state = state
        self._clean: dict[str, tuple[ClaimPart, list[FileReject]]] = {}  # by key of a part: scans share parts
        self.replaced: set[str] = set()

    def entry(self, entry: LogEntry) -> LogEntry:
        """The entry with rewritten tables; the entry itself if it is no scan."""
        if entry.body["kind"] != "scan":
            return entry
        scan, rejected = read_scan(entry.body), list[FileReject]()
        parts = []
        for part in self._stage_outputs.read(scan.claims.parts, ClaimPart):
            clean, taken = self._part(part)
            parts.append(clean)
            rejected += taken
        body = dict(entry.body)
        if rejected:
            self.replaced |= {scan.claims.parts.key, scan.rejects.key}
            body["claims"] = asdict(self._draft.claims(parts))
            rejects = merged_by_file(self._stage_outputs.stream(scan.rejects, FileReject), rejected)
            body["rejects"] = asdict(self._draft.put("rejects", table(rejects, FileReject)))
        body["homes"] = [self._shard(read_image_shard(raw)).to_json() for raw in body["homes"]]
        return LogEntry(entry.number, body)

    def _part(self, part: ClaimPart) -> tuple[ClaimPart, list[FileReject]]:
        """The part without claims of denied images, and rejects in their place.

        A part that loses all its rows stays, so that lanes have the same image shards as before.
        """
        if part.home not in self._state.taken_down:
            return part, []
        if part.key not in self._clean:
            claims = self._stage_outputs.read(part.table, Claim)
            kept = [claim for claim in claims if claim.image not in self._state.denied]
            taken = [taken_down_reject(claim) for claim in claims if claim.image in self._state.denied]
            clean = part
            if taken:
                self.replaced.add(part.key)
                clean = ClaimPart(part.home, **asdict(self._draft.put("claims", table(kept, Claim))))
            self._clean[part.key] = (clean, taken)
        return self._clean[part.key]

    def _shard(self, shard: ImageShard) -> ImageShard:
        gone = self._state.taken_down.get(shard.id, [])
        if not gone or set(gone).isdisjoint(self._stage_outputs.column(shard.images, "image")):
            return shard
        self.replaced.add(shard.images.key)
        kept = (image for image in self._stage_outputs.stream(shard.images, Image) if image.image not in gone)
        return replace(shard, images=self._draft.put("images", table(kept, Image)))
