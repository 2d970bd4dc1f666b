"""The log of benchmarks: whose items a release is not to hold, as fingerprints and embeddings, never as copies.

An entry is ``{"kind": "add", "name", "location", "at", "items", "unread", "encoder", "tables": {name: ref}}``, or
``{"kind": "remove", "name"}``. The last entry of a name counts, so that the benchmarks that stand do not depend on the
order in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.storage.shards import TableRef

QUESTIONS, PICTURES, QUESTION_VECTORS, PICTURE_VECTORS = "questions", "pictures", "question_vectors", "picture_vectors"
COPY_VECTORS = "copy_vectors"  # only where SSCD's weights are given


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkEntry:
    """A benchmark that stands."""

    name: str
    location: str  # where its items were read
    at: float  # seconds since the epoch
    items: int
    unread: Mapping[str, int] = field(default_factory=dict)  # what was not taken, by why
    encoder: str  # id of the encoder whose embeddings it has
    tables: Mapping[str, TableRef]
    sscd: str = ""  # the SHA-256 of the weights of SSCD whose descriptors it has; "": it has none; came later
    number: int = 0  # of the entry; 0: it is not recorded

    @property
    def hash(self) -> str:
        """The fingerprint of what is compared, wherever it was read."""
        tables = {name: ref.rows_hash for name, ref in self.tables.items()}
        made = {"encoder": self.encoder, "tables": tables, "items": self.items}
        return fingerprint("benchmark", {**made, "sscd": self.sscd} if self.sscd else made)


class BenchmarkLog:
    """Reads and extends the log of a store."""

    def __init__(self, store: Store) -> None:
        self._log = Log(store, keys.BENCHMARKS_LOG)

    def read(self) -> dict[str, BenchmarkEntry]:
        """The benchmarks that stand, by name, in order of name."""
        return _standing(self._log.read())

    def add(self, benchmark: BenchmarkEntry) -> bool:
        """Append a benchmark, in place of one of its name. False: that one has the same items, so nothing is added."""
        body = {**asdict(benchmark), "kind": "add"}
        del body["number"]

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            known = _standing(entries).get(benchmark.name)
            return None if known and known.hash == benchmark.hash else body

        return self._log.append_if(decide) is not None

    def remove(self, name: str) -> bool:
        """Append that a benchmark is one no more. False: there is none of this name."""

        def decide(entries: list[LogEntry]) -> Mapping[str, Any] | None:
            return {"kind": "remove", "name": name} if name in _standing(entries) else None

        return self._log.append_if(decide) is not None


def _standing(entries: list[LogEntry]) -> dict[str, BenchmarkEntry]:
    found: dict[str, BenchmarkEntry] = {}
    for entry in entries:
        body = dict(entry.body)
        if body.pop("kind") == "remove":
            found.pop(body["name"], None)
            continue
        tables = {name: TableRef(**ref) for name, ref in body.pop("tables").items()}
        found[body["name"]] = BenchmarkEntry(**body, tables=tables, number=entry.number)
    return {name: found[name] for name in sorted(found)}
