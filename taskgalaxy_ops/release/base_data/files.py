"""Files of rows, read a few at a time: JSON (a list, or an object a line) and Parquet.

Of a Parquet file's pictures only their number is read with its rows; the bytes are read for the rows that are taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskgalaxy_ops.sources.json_rows import json_rows

COLUMNS = ("id", "idx", "conversations", "messages", "system", "image", "images", "video", "videos")
_PICTURES = ("image", "images")
_ROWS = 512  # of text, in memory
_PICTURED = 16  # rows with their pictures, in memory


def rows_of(file: Path) -> Iterator[Any]:
    """A file's rows, by its suffix; a picture that one of Parquet holds is ``{"path"}``. Raises OSError, ValueError."""
    if file.suffix.lower() == ".parquet":
        yield from _of_parquet(file)
        return
    with file.open("rb") as opened:
        yield from (row for _, row in json_rows(opened))


def _of_parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_ROWS, columns=without_bytes(opened, COLUMNS), use_threads=False):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def without_bytes(file: pq.ParquetFile, columns: Collection[str]) -> list[str]:
    """What is to be read of these columns of a Parquet file: all but the bytes of pictures."""
    leaves = (file.schema.column(number).path for number in range(len(file.schema)))
    return [leaf for leaf in leaves if leaf.split(".")[0] in columns and not leaf.endswith(".bytes")]


def held_pictures(file: Path, rows: Sequence[int]) -> Iterator[tuple[int, list[bytes | None]]]:
    """The pictures that rows of a Parquet file hold. rows: their numbers, from 1, rising.

    A picture that is not there is None. Raises ValueError where the file cannot be read.
    """
    left = iter(rows)
    row = next(left, None)
    try:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            columns = [name for name in _PICTURES if name in opened.schema_arrow.names]
            before = 1  # the number of the next row
            for group in range(opened.num_row_groups):
                count = opened.metadata.row_group(group).num_rows
                if row is None or row >= before + count:
                    before += count
                    continue
                for batch in opened.iter_batches(_PICTURED, row_groups=[group], columns=columns, use_threads=False):
                    while row is not None and row < before + len(batch):
                        yield row, _pictures(batch.slice(row - before, 1).to_pylist()[0])
                        row = next(left, None)
                    before += len(batch)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _pictures(row: dict[str, Any]) -> list[bytes | None]:
    held = [value for name in _PICTURES for value in as_list(row.get(name))]
    return [each.get("bytes") if isinstance(each, dict) else each if isinstance(each, bytes) else None for each in held]


def as_list(value: Any) -> list[Any]:
    """A value of which there may be none, one, or a list of several."""
    return [] if value is None else value if isinstance(value, list) else [value]
