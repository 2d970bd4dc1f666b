"""Writes records as Parquet and reads them. The schema follows from the record's fields: no second list of columns.

A table's identity is the SHA-256 of its canonical rows and not of its Parquet bytes, since another version of pyarrow
may write other bytes for the same rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.hashing import canonical_json, sha256_hex

Record = TypeVar("Record")
Vectors = npt.NDArray[np.float32]

_BATCH = 1024  # rows that are Python objects at the same time
_COLUMN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_SCHEMAS: dict[type[Any], pa.Schema] = {}


def schema(record: type[Any]) -> pa.Schema:
    """The Arrow schema of a record: str, int, float, bool and tuples of them; ``| None`` makes a column nullable."""
    if record not in _SCHEMAS:
        hints = typing.get_type_hints(record)
        _SCHEMAS[record] = pa.schema([_column(field.name, hints[field.name]) for field in dataclasses.fields(record)])
    return _SCHEMAS[record]


def _column(name: str, hint: Any) -> pa.Field:
    nullable = False
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        nullable = True
    if typing.get_origin(hint) is tuple:
        return pa.field(name, pa.list_(_COLUMN[typing.get_args(hint)[0]]), nullable)
    return pa.field(name, _COLUMN[hint], nullable)


def to_parquet(rows: Iterable[Any], record: type[Any]) -> bytes:
    """Rows of one record type, which may be a stream, as a Parquet file (zstd; no time stamps, no statistics)."""
    shape, out, rest = schema(record), io.BytesIO(), iter(rows)
    with pq.ParquetWriter(out, shape, compression="zstd", store_schema=False, write_statistics=False) as writer:
        while batch := list(islice(rest, _BATCH)):
            writer.write_table(_as_table(batch, shape))
    return out.getvalue()


def from_parquet(raw: bytes, record: type[Record]) -> list[Record]:
    """The rows of a Parquet file. Raises DamageError if it is damaged, or its columns are not the record's."""
    return list(stream_parquet(raw, record))


# Read in one thread: tables are small, and the threads that Arrow starts have been seen to abort a process at its end.
def stream_parquet(raw: bytes, record: type[Record]) -> Iterator[Record]:
    """The rows of a Parquet file, decoded 1,024 at a time. Raises DamageError as ``from_parquet``."""
    try:
        with pq.ParquetFile(io.BytesIO(raw), pre_buffer=False) as file:
            _check_columns(file.schema_arrow.names, record)
            for batch in file.iter_batches(_BATCH, use_threads=False):
                # Column by column, which is three times as quick as a dictionary a row.
                for values in zip(*map(_values, batch.columns), strict=True):
                    yield record(*values)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"a table of {record.__name__} cannot be read ({error}).") from error


def _values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return [tuple(value) for value in values] if pa.types.is_list(column.type) else values


def column_from_parquet(raw: bytes, name: str) -> list[Any]:
    """One column of a Parquet file, without decoding the others. Raises DamageError."""
    values: list[Any] = columns(raw, [name])[name].to_pylist()
    return values


class Counted:
    """Passes rows through, and counts and hashes them."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows
        self._digest = hashlib.sha256()
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        for row in self._rows:
            self._digest.update(canonical_json(row) + b"\n")
            self.count += 1
            yield row

    @property
    def rows_hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of the rows so far, one a line."""
        return self._digest.hexdigest()


def to_table(rows: Iterable[Any], record: type[Any]) -> pa.Table:
    """Rows of one record type as an Arrow table."""
    return _as_table(list(rows), schema(record))


def _as_table(rows: Sequence[Any], shape: pa.Schema) -> pa.Table:
    made = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in shape]
    return pa.Table.from_arrays(made, schema=shape)


def columns_from_parquet(raw: bytes, record: type[Any], names: Collection[str] = ()) -> pa.Table:
    """A Parquet file of records as an Arrow table, which is quicker than records; ``names``: only these columns.

    Raises DamageError.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(raw), pre_buffer=False)
        there = file.schema_arrow.names
        _check_columns(there, record)
        table = file.read([name for name in there if not names or name in names], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"a table of {record.__name__} cannot be read ({error}).") from error
    for column in list(schema(record))[len(there) :]:
        if not names or column.name in names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(list(names)) if names else table


def _check_columns(names: Sequence[str], record: type[Any]) -> None:
    """Whether a table's columns are a record's, but for the last ones if these have a default: they came later."""
    known = dataclasses.fields(record)
    later = known[len(names) :]
    if list(names) != [field.name for field in known[: len(names)]] or any(
        field.default is dataclasses.MISSING for field in later
    ):
        raise DamageError(f"a table has columns {list(names)}, not those of {record.__name__}.")


def columns(raw: bytes, names: Collection[str], *, missing_too: bool = False) -> pa.Table:
    """Some columns of a Parquet file, as Arrow has them; ``missing_too``: those of them that it has.

    Raises DamageError.
    """
    try:
        if missing_too:
            there = pq.read_schema(io.BytesIO(raw)).names
            names = [name for name in names if name in there]
        return pq.read_table(io.BytesIO(raw), columns=list(names), use_threads=False, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"a table cannot be read ({error}).") from error


def rows_hash(rows: Iterable[Any]) -> str:
    """SHA-256 (hex) of the rows' canonical JSON, one a line."""
    counted = Counted(rows)
    for _ in counted:
        pass
    return counted.rows_hash


def embeddings_to_parquet(ids: Sequence[str], vectors: Vectors) -> bytes:
    """Embeddings ``(n, d)`` float32 as Parquet: a column ``id`` and a fixed-size list ``vector``.

    Raises ValueError if there are not n ids.
    """
    n, d = vectors.shape
    if n != len(ids):
        raise ValueError(f"{len(ids)} ids for {n} vectors")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype("<f4", copy=False).reshape(-1)), d)
    # Arrow's schema is stored: without it a fixed-size list is read as a list, and a table without rows has no width.
    return _file(pa.table({"id": pa.array(ids, pa.string()), "vector": column}), store_schema=True)


def embeddings_from_parquet(raw: bytes) -> tuple[list[str], Vectors]:
    """The ids and vectors ``(n, d)`` float32 of a Parquet file. Raises DamageError."""
    try:
        table = pq.read_table(io.BytesIO(raw), use_threads=False, pre_buffer=False)
        column = table["vector"].combine_chunks()
        width = table.schema.field("vector").type.list_size
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return table["id"].to_pylist(), np.ascontiguousarray(flat, dtype=np.float32).reshape(-1, width)
    except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
        raise DamageError(f"a table of embeddings cannot be read ({error}).") from error


def embeddings_hash(ids: Sequence[str], vectors: Vectors) -> str:
    """SHA-256 (hex) of the ids' canonical JSON, a newline, and the vectors' little-endian float32 bytes."""
    return sha256_hex(canonical_json(list(ids)) + b"\n" + vectors.astype("<f4", copy=False).tobytes())


def _file(table: pa.Table, *, store_schema: bool = False) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=store_schema, write_statistics=False)
    return out.getvalue()
