"""Stage outputs: immutable Parquet tables, and the marker that makes them visible, written last.

A marker's name holds the stage, the output's key (the fingerprint of what went in) and the fingerprint of what came
out. A run with nothing to do therefore lists one prefix for each image shard and reads nothing. If two workers compute
the same stage output, at most two markers stay; the one with the smallest name counts.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from taskgalaxy_ops.errors import DamageError, NotFoundError
from taskgalaxy_ops.hashing import fingerprint, sha256_hex
from taskgalaxy_ops.storage import keys, parquet
from taskgalaxy_ops.storage.base import Store

Record = TypeVar("Record")
RECORD_STAGES = frozenset({"ingest", "embed"})  # their markers cannot be computed again, so they may not be deleted
_NAME_HEX = 32  # hex digits of a fingerprint in a name: 128 bits
_SHORT_HEX = 12  # hex digits of a fingerprint that only people compare


@dataclass(frozen=True, slots=True)
class TableRef:
    """Where a table of a stage output lies, and what it must hold."""

    key: str
    rows: int
    rows_hash: str
    sha256: str  # of the object's bytes


@dataclass(frozen=True, slots=True)
class Stats:
    """The counts and costs of computing a stage output, for the funnel, the plan and the bill. Part of no key."""

    units_in: int = 0
    units_out: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)  # by reason
    seconds: float = 0.0
    asked: Mapping[str, int | float] = field(default_factory=dict)  # the journal's sums for the stage (usage.Tally)


@dataclass(frozen=True, slots=True)
class StageOutput:
    """A committed output of one stage for one image shard, as a marker's name shows it."""

    shard: str  # id of the image shard
    stage: str
    key: str  # fingerprint of what went in
    output: str  # fingerprint of what came out

    @property
    def marker(self) -> str:
        """The key of its marker in the store."""
        return keys.marker(self.shard, self.stage, self.key, self.output)


@dataclass(frozen=True, slots=True)
class Key:
    """A stage output's key and what it is made of, by name. A marker keeps the parts to explain later what changed.

    A part's value is JSON-like, or ``sha256:`` and the first digits of a fingerprint, or None if it is not known yet;
    then the key is None, too.
    """

    key: str | None
    made_of: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is not written yet: its Parquet bytes, its number of rows and the hash of its canonical rows."""

    raw: bytes
    rows: int
    rows_hash: str


def table(records: Iterable[Any], record: type[Any]) -> Table:
    """A table of records, which may be a stream."""
    counted = parquet.Counted(records)
    raw = parquet.to_parquet(counted, record)
    return Table(raw, counted.count, counted.rows_hash)


def embedding_table(ids: Sequence[str], vectors: parquet.Vectors) -> Table:
    """A table of embeddings: n ids and vectors (n, d) float32."""
    return Table(parquet.embeddings_to_parquet(ids, vectors), len(ids), parquet.embeddings_hash(ids, vectors))


def stage_output_key(stage: str, code_version: int, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """The key of a stage output (32 hex digits).

    It is the fingerprint of the stage, its code version, the settings that the stage declares to read, and the
    fingerprints of its inputs.
    """
    return fingerprint("shard", {"stage": stage, "code": code_version, "settings": settings, "inputs": inputs})[
        :_NAME_HEX
    ]


def short(digest: str) -> str:
    """A fingerprint in the short form that ``Key.made_of`` shows."""
    return f"sha256:{digest[:_SHORT_HEX]}"


def output_of(tables: Mapping[str, Table]) -> str:
    """The fingerprint of a stage output's tables (32 hex digits). It depends on their rows, not on Parquet's bytes."""
    return fingerprint("output", {name: content.rows_hash for name, content in tables.items()})[:_NAME_HEX]


class StageOutputs:
    """Reads and writes the stage outputs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.written: dict[str, dict[str, Any]] = {}  # by key: the markers that this object committed

    def committed(self, shard: str) -> dict[tuple[str, str], StageOutput]:
        """The stage outputs of an image shard by (stage, key): one listing, no reads."""
        outputs: dict[tuple[str, str], StageOutput] = {}
        for stage_output in self.all(shard):
            outputs.setdefault(
                (stage_output.stage, stage_output.key), stage_output
            )  # in order of name: the smallest counts
        return outputs

    def all(self, shard: str) -> list[StageOutput]:
        """Every marker of an image shard, in order of name, also those that do not count beside a smaller one."""
        prefix = keys.markers(shard)
        names = [listed.key[len(prefix) :].split(".") for listed in self._store.list(prefix)]
        return [StageOutput(shard, stage, key, output) for stage, key, output, _ in names]

    def write(self, content: Table) -> TableRef:
        """Write one table under a name made of its rows' hash and a nonce."""
        key = keys.data(content.rows_hash[:_NAME_HEX], uuid.uuid4().hex[:12])
        self._store.put_if_absent(key, content.raw)
        return TableRef(key, content.rows, content.rows_hash, sha256_hex(content.raw))

    def commit(
        self,
        shard: str,
        stage: str,
        key: str,
        tables: Mapping[str, Table],
        stats: Stats,
        made_of: Mapping[str, Any] | None = None,
    ) -> StageOutput:
        """Write the tables, then the marker. A marker that is there already stays as it is.

        ``shard``: the image shard's id. ``made_of``: what the key is made of, by name (``Key``).
        """
        stage_output = StageOutput(shard, stage, key, output_of(tables))
        refs = {name: asdict(self.write(content)) for name, content in tables.items()}
        body = {
            "stage": stage,
            "home": shard,
            "key": key,
            "output": stage_output.output,
            "tables": refs,
            "stats": asdict(stats),
            "made_of": dict(made_of or {}),
        }
        if self._store.put_if_absent(stage_output.marker, json.dumps(body, sort_keys=True, indent=1).encode()):
            self.written[stage_output.marker] = body
        return stage_output

    def marker(self, stage_output: StageOutput) -> dict[str, Any]:
        """A marker's content. Raises NotFoundError if it was deleted, DamageError if it is damaged."""
        try:
            body = json.loads(self._store.get(stage_output.marker))
        except ValueError as error:
            raise DamageError(
                f"marker {stage_output.marker} is damaged. Delete it: the stage output is computed again."
            ) from error
        if not isinstance(body, dict):
            raise DamageError(
                f"marker {stage_output.marker} is no object. Delete it: the stage output is computed again."
            )
        return body

    def refs(self, stage_output: StageOutput) -> dict[str, TableRef]:
        """The tables of a stage output, by name. Raises as ``marker``."""
        return {name: TableRef(**ref) for name, ref in self.marker(stage_output)["tables"].items()}

    def drop(self, stage_output: StageOutput) -> None:
        """Delete a stage output: its marker, then its tables. The next run that needs it computes it again."""
        refs = self.refs(stage_output)
        self._store.delete(stage_output.marker)
        for ref in refs.values():
            self._store.delete(ref.key)

    def redact_embeddings(self, stage_output: StageOutput, gone: Collection[str]) -> None:
        """Rewrite a table of embeddings without these ids. Its marker keeps its name: nothing is encoded again."""
        ids, vectors = self.load_embeddings(stage_output)
        keep = [row for row, name in enumerate(ids) if name not in gone]
        if len(keep) < len(ids):
            content = embedding_table([ids[row] for row in keep], vectors[keep])
            self.point(stage_output, "embeddings", self.write(content))

    def point(self, stage_output: StageOutput, name: str, ref: TableRef) -> None:
        """Make a marker refer to a table from which rows were erased, and delete the table that it referred to before.

        The marker's name stays, and so does every key made of it; the field ``redacted`` says that the name is not the
        content's fingerprint any more.
        """
        body = self.marker(stage_output)
        before = body["tables"][name]["key"]
        if before != ref.key:
            body["tables"][name], body["redacted"] = asdict(ref), True
            self._store.replace(stage_output.marker, json.dumps(body, sort_keys=True, indent=1).encode())
            self._store.delete(before)

    def load(self, stage_output: StageOutput, name: str, record: type[Record]) -> list[Record]:
        """One table of a stage output, as records. Raises as ``marker`` and ``read``."""
        return self.read(self.refs(stage_output)[name], record)

    def read(self, ref: TableRef, record: type[Record]) -> list[Record]:
        """A table's records. Raises DamageError if the object is gone, or differs from what the marker says."""
        return list(self.stream(ref, record))

    def stream(self, ref: TableRef, record: type[Record]) -> Iterator[Record]:
        """A table's records, decoded 1,024 at a time. Raises DamageError as ``read``, perhaps after the last record."""
        count = 0
        for row in parquet.stream_parquet(self._raw(ref), record):
            count += 1
            yield row
        if count != ref.rows:
            raise DamageError(f"{ref.key} holds {count} rows, its marker says {ref.rows}.")

    def column(self, ref: TableRef, name: str) -> list[Any]:
        """One column of a table, without decoding the others. Raises DamageError."""
        values = parquet.column_from_parquet(self._raw(ref), name)
        if len(values) != ref.rows:
            raise DamageError(f"{ref.key} holds {len(values)} rows, its marker says {ref.rows}.")
        return values

    def columns(self, ref: TableRef, record: type[Any], names: Collection[str] = ()) -> pa.Table:
        """A table of records as an Arrow table; ``names``: only these columns. Raises DamageError."""
        raw = self._raw(ref)
        rows = parquet.columns_from_parquet(raw, record, names)
        if len(rows) != ref.rows:
            raise DamageError(f"{ref.key} holds {len(rows)} rows, its marker says {ref.rows}.")
        return rows

    def load_embeddings(self, stage_output: StageOutput) -> tuple[list[str], parquet.Vectors]:
        """The ids and vectors ``(n, d)`` float32 of an embedding stage's output. Raises DamageError."""
        return parquet.embeddings_from_parquet(self._raw(self.refs(stage_output)["embeddings"]))

    def read_embeddings(self, ref: TableRef) -> tuple[list[str], parquet.Vectors]:
        """The ids and vectors ``(n, d)`` float32 of a table of embeddings. Raises DamageError."""
        return parquet.embeddings_from_parquet(self._raw(ref))

    def _raw(self, ref: TableRef) -> bytes:
        try:
            raw = self._store.get(ref.key)
        except NotFoundError as error:
            raise DamageError(f"{ref.key} is named by a marker but is gone. Run `taskgalaxy verify`.") from error
        if sha256_hex(raw) != ref.sha256:
            raise DamageError(f"{ref.key} is not the object that was written (checksum). Run `taskgalaxy verify`.")
        return raw
