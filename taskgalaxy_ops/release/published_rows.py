"""Read a published release in its store by ranges of its Parquet files, and the accepted pairs that it left out."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taskgalaxy_ops.errors import DamageError, NotFoundError
from taskgalaxy_ops.records import ImageId, PairId, Reject, TaskTypePath
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Listed, Store
from taskgalaxy_ops.storage.marker_index import keep
from taskgalaxy_ops.storage.parquet import from_parquet, to_parquet


class _Remote(io.RawIOBase):
    """An object of a store as a file object that reads ranges."""

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


class ReleaseRows:
    """A release's Parquet files, opened once. Raises DamageError where one cannot be read."""

    def __init__(self, store: Store, version: int) -> None:
        prefix = f"{keys.release(version)}data/"
        found = list(store.list(prefix))
        self._files = [opened(store, listed) for listed in found]
        self._splits = [listed.key.removeprefix(prefix).partition("-")[0] for listed in found]
        self._ids: dict[tuple[int, int], list[str]] = {}  # by file and row group

    def holds(self, pair: str) -> bool:
        """Whether it holds a sample. Reads few rows, because each file is sorted by id."""
        return any(self._holds(number, file.num_row_groups, pair) for number, file in enumerate(self._files))

    def _holds(self, number: int, groups: int, pair: str) -> bool:
        low, high = 0, groups
        while low < high:
            middle = (low + high) // 2
            ids = self._ids_of(number, middle)
            if ids[0] <= pair <= ids[-1]:
                return pair in ids
            low, high = (low, middle) if pair < ids[0] else (middle + 1, high)
        return False

    def _ids_of(self, number: int, group: int) -> list[str]:
        if (number, group) not in self._ids:
            table = self._files[number].read_row_group(group, columns=["id"], use_threads=False)
            self._ids[number, group] = table["id"].to_pylist()
        return self._ids[number, group]

    def samples(self) -> Iterator[tuple[PairId, ImageId, TaskTypePath, str]]:
        """Id, image, task type and variant of each sample; reads no other column. Raises DamageError."""
        for *sample, _ in self.samples_in_splits():
            yield tuple(sample)  # type: ignore[misc]

    def samples_in_splits(self) -> Iterator[tuple[PairId, ImageId, TaskTypePath, str, str]]:
        """The same with each sample's split. Raises DamageError."""
        names = ("id", "image_id", "task_type", "variant")
        try:
            for file, split in zip(self._files, self._splits, strict=True):
                for batch in file.iter_batches(columns=list(names), use_threads=False):
                    columns = (batch.column(name).to_pylist() for name in names)
                    yield from zip(*columns, [split] * len(batch), strict=True)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DamageError(f"a release cannot be read ({error}). Run `taskgalaxy verify`.") from error

    def words_of(self, pairs: Collection[PairId]) -> dict[PairId, tuple[str, str]]:
        """Question and answer of some of its samples; those that it does not hold are left out. Raises DamageError."""
        wanted, found = pa.array(sorted(pairs), pa.string()), dict[PairId, tuple[str, str]]()
        try:
            for file in self._files if pairs else ():
                for batch in file.iter_batches(columns=["id", "question", "answer"], use_threads=False):
                    rows = batch.filter(pc.is_in(batch.column("id"), wanted))
                    words = zip(rows.column("question").to_pylist(), rows.column("answer").to_pylist(), strict=True)
                    found.update(zip(rows.column("id").to_pylist(), words, strict=True))
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DamageError(f"a release cannot be read ({error}). Run `taskgalaxy verify`.") from error
        return found

    def groups(self) -> Iterator[tuple[PairId, list[ImageId]]]:
        """Of each sample about several images the id, and the images after its first; reads no other column."""
        names = ["id", "further_image_ids"]
        for file in self._files:
            if names[1] in file.schema_arrow.names:
                for batch in file.iter_batches(columns=names, use_threads=False):
                    found = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
                    yield from ((sample, further) for sample, further in found if further)

    def samples_of(self, task_types: Collection[TaskTypePath]) -> int:
        """The number of its samples of task types; reads one column."""
        wanted = pa.array(sorted(task_types), pa.string())
        return sum(
            pc.sum(pc.is_in(batch.column(0), wanted)).as_py() or 0
            for file in self._files
            for batch in file.iter_batches(columns=["task_type"], use_threads=False)
        )


def opened(store: Store, listed: Listed) -> pq.ParquetFile:
    """A Parquet file of a store, read by ranges. Raises DamageError where it cannot be read."""
    try:
        return pq.ParquetFile(pa.PythonFile(_Remote(store, listed.key, listed.size), mode="r"), pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{listed.key} cannot be read ({error}). Run `taskgalaxy verify`.") from error


def stored_picture(location: str) -> str | None:
    """The store's key of a picture that a release refers to, wherever the store lay when the release was made."""
    at = max(location.rfind(f"/{keys.RENDERED}"), location.rfind(f"/{keys.BLOBS}"))
    return location[at + 1 :] if at >= 0 else None


def keep_left_out(store: Store, version: int, rejects: Iterable[Reject]) -> None:
    """Store the accepted pairs that a release left out, with reasons: in the cache, not in the release."""
    keep(store, _left_out(version), to_parquet(rejects, Reject))


def left_out(store: Store, version: int) -> list[Reject] | None:
    """The accepted pairs that a release left out; None if this was not stored, or was deleted."""
    try:
        return from_parquet(store.get(_left_out(version)), Reject)
    except (NotFoundError, DamageError):
        return None


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What decides which samples a release has, so that a later look knows by it alone that none would be lost."""

    outputs: Mapping[str, str | None]  # of the vote, by image shard; None: something was pending
    rules: Mapping[str, Any]  # the release's settings that select


def keep_made_of(store: Store, version: int, made_of: MadeOf) -> None:
    """Store what a release was made of: in the cache, not in the release."""
    keep(store, _made_of(version), json.dumps(asdict(made_of), sort_keys=True).encode())


def made_of(store: Store, version: int) -> MadeOf | None:
    """What a release was made of; None if this was not stored, or was deleted."""
    try:
        return MadeOf(**json.loads(store.get(_made_of(version))))
    except (NotFoundError, ValueError, TypeError):
        return None


def _made_of(version: int) -> str:
    return keys.cache(f"made-of-{version:06d}.json")


def _left_out(version: int) -> str:
    return keys.cache(f"left-out-{version:06d}.parquet")
