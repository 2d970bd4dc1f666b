"""What a published release holds, read where it lies: a few columns of its Parquet files, by ranges."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store


class _Remote(io.RawIOBase):
    """An object of a store as a file that is read by ranges."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._store.get(self._key, start=self._at, length=min(len(buffer), self._size - self._at))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _parts(store: Store, version: int) -> Iterator[pq.ParquetFile]:
    """A release's Parquet files."""
    for listed in store.list(f"{keys.release(version)}data/"):
        try:
            file = pq.ParquetFile(pa.PythonFile(_Remote(store, listed.key, listed.size), mode="r"), pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise DamageError(f"{listed.key} cannot be read ({error}). Run `taskgalaxy verify`.") from error
        yield file


def holds(store: Store, version: int, pair: str) -> bool:
    """Whether a release holds a sample. Its rows lie in order of id within each split, so few of them are read."""
    return any(_holds(file, pair) for file in _parts(store, version))


def _holds(file: pq.ParquetFile, pair: str) -> bool:
    low, high = 0, file.num_row_groups
    while low < high:
        middle = (low + high) // 2
        ids = file.read_row_group(middle, columns=["id"], use_threads=False)["id"].to_pylist()
        if ids[0] <= pair <= ids[-1]:
            return pair in ids
        low, high = (low, middle) if pair < ids[0] else (middle + 1, high)
    return False


def samples_of(store: Store, version: int, task_type: str) -> int:
    """How many samples of a task type a release holds: reads one column."""
    found = 0
    for file in _parts(store, version):
        for batch in file.iter_batches(columns=["task_type"], use_threads=False):
            found += pc.sum(pc.equal(batch.column(0), task_type)).as_py() or 0
    return found
