"""A store as it stood at one moment, for those who only look: one listing in place of one an image shard."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from taskgalaxy_ops.storage.base import Content, Listed, Store

_HEX = "0123456789abcdef"
_PREFIX = "homes/"


def listed(store: Store, prefix: str, *others: str) -> list[Listed]:
    """All objects below a prefix whose names begin with a hash, or with one of the ``others``; in order of key.

    The parts are listed in parallel: a listing is a chain of pages.
    """
    beginnings = (*_HEX, *others)
    with ThreadPoolExecutor(len(beginnings)) as pool:
        parts = pool.map(lambda beginning: list(store.list(prefix + beginning)), beginnings)
        return sorted((each for part in parts for each in part), key=lambda each: each.key.encode())


class Snapshot:
    """A store whose listings below ``homes/`` all come from one, made in parallel when the first is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    @cached_property
    def _shards(self) -> tuple[list[bytes], list[Listed]]:
        """Keys as they sort, and their objects."""
        found = listed(self._store, _PREFIX, "taxonomy")
        return [each.key.encode() for each in found], found

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        if not prefix.startswith(_PREFIX):
            yield from self._store.list(prefix, after=after, ordered=ordered)
            return
        names, found = self._shards
        for each in found[bisect_left(names, prefix.encode()) :]:
            if not each.key.startswith(prefix):
                return
            if each.key.encode() > after.encode():
                yield each

    def put_if_absent(self, key: str, data: Content) -> bool:
        return self._store.put_if_absent(key, data)

    def replace(self, key: str, data: bytes) -> None:
        self._store.replace(key, data)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start=start, length=length)

    def copy(self, key: str, to: str) -> None:
        self._store.copy(key, to)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def age(self, key: str) -> float:
        return self._store.age(key)
