"""The tables that a scan or a take-down writes before the registry's entry names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict

from taskgalaxy_ops.records import Claim, ImageId
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.registry.state import ClaimPart, Claims
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.storage.shards import StageOutputs, Table, TableRef, table


class TableDraft:
    """The tables of an entry that is not appended yet. A table that exists already is not written again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stage_outputs = StageOutputs(store)
        self._written: dict[tuple[str, str], TableRef] = {}  # by kind and hash of rows

    def put(self, kind: str, content: Table, there: TableRef | None = None) -> TableRef:
        """Write a table. ``there``: an existing one of the kind, which is used instead if its rows are equal."""
        if there is not None and there.rows_hash == content.rows_hash:
            return there
        if (kind, content.rows_hash) not in self._written:
            self._written[kind, content.rows_hash] = self._stage_outputs.write(content)
        return self._written[kind, content.rows_hash]

    def parts(
        self, found: ScanStaging, shard_of: Callable[[ImageId], str | None], there: Iterable[ClaimPart] = ()
    ) -> list[ClaimPart]:
        """A table of claims for each image shard. ``there``: the last scan's parts, reused if their rows are equal."""
        last = {part.home: part.table for part in there}
        return [
            ClaimPart(shard, **asdict(self.put("claims", table(claims, Claim), last.get(shard))))
            for shard, claims in found.claims_by_shard(shard_of)
        ]

    def claims(self, parts: Sequence[ClaimPart], there: Claims | None = None) -> Claims:
        """The table of these parts, and the number of claims in them."""
        ref = self.put("parts", table(parts, ClaimPart), there.parts if there else None)
        return Claims(sum(part.rows for part in parts), ref)

    def drop_all_but(self, named: Collection[str]) -> None:
        """Delete the tables that were written for entries that were not appended; no entry names them."""
        for ref in self._written.values():
            if ref.key not in named:
                self._store.delete(ref.key)
