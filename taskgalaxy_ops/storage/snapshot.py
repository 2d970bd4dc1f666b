"""A store as it stood at one moment, for those who only look: one listing in place of one an image shard.

Nothing is written through it but caches, which are made from what was read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from taskgalaxy_ops.errors import ReadOnlyError
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Content, Listed, Store

_HEX = "0123456789abcdef"


def listed(store: Store, prefix: str, *others: str) -> list[Listed]:
    """All objects below a prefix whose names begin with a hash, or with one of the ``others``; in order of key.

    The parts are listed in parallel: a listing is a chain of pages.
    """
    beginnings = (*_HEX, *others)
    with ThreadPoolExecutor(len(beginnings)) as pool:
        parts = pool.map(lambda beginning: list(store.list(prefix + beginning)), beginnings)
        return sorted((each for part in parts for each in part), key=lambda each: each.key.encode())


def is_cache(key: str) -> bool:
    """Whether an object is made from others alone, so that whoever looks may write it, and anybody delete it."""
    shard = key.removeprefix(keys.IMAGE_SHARDS).partition("/")[0]
    return key.startswith(keys.CACHES) or key == keys.tally(shard)


class Snapshot:
    """A store whose listings below ``homes/`` all come from one, made in parallel when the first is asked for.

    Its writing methods raise ReadOnlyError for all but caches (``is_cache``).
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    @cached_property
    def _shards(self) -> tuple[list[bytes], list[Listed]]:
        """Keys as they sort, and their objects."""
        found = listed(self._store, keys.IMAGE_SHARDS, keys.TAXONOMY_SHARD)
        return [each.key.encode() for each in found], found

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        if not prefix.startswith(keys.IMAGE_SHARDS):
            yield from self._store.list(prefix, after=after, ordered=ordered)
            return
        names, found = self._shards
        for each in found[bisect_left(names, prefix.encode()) :]:
            if not each.key.startswith(prefix):
                return
            if each.key.encode() > after.encode():
                yield each

    def put_if_absent(self, key: str, data: Content) -> bool:
        self._only_cache(key)
        return self._store.put_if_absent(key, data)

    def replace(self, key: str, data: bytes) -> None:
        self._only_cache(key)
        self._store.replace(key, data)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start=start, length=length)

    def copy(self, key: str, to: str) -> None:
        self._only_cache(to)
        self._store.copy(key, to)

    def delete(self, key: str) -> None:
        self._only_cache(key)
        self._store.delete(key)

    def age(self, key: str) -> float:
        return self._store.age(key)

    def _only_cache(self, key: str) -> None:
        if not is_cache(key):
            raise ReadOnlyError(
                f"store {self.url}: {key} was to be written by what only looks. Run a command that writes."
            )
