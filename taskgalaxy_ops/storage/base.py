"""What every object store promises: the protocol ``Store``.

Keys are ``/``-separated and made by keys.py alone; no key is a folder of another. Objects fit into memory, since image
shards are cut small enough; only some files of a release do not. Objects are immutable; only a few are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

Content = bytes | BinaryIO  # a file must be seekable; it is read from its start, never whole into memory

_PART = 8 << 20  # bytes of an object in memory at a time


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing."""

    key: str
    size: int  # bytes
    version: str = ""  # differs if the content may differ: an ETag, or the time of the last write
    written: float = 0.0  # seconds by the store's own clock; comparable only with other objects of the same store


class Store(Protocol):
    """An object store with conditional writes. Every method raises StoreError if the store stays out of reach."""

    @property
    def url(self) -> str:
        """Where the store lies, in the form that a person would write; it holds no secret."""

    def put_if_absent(self, key: str, data: Content) -> bool:
        """Write the whole object (at most 5 GB) if the key holds none; True if the key now holds exactly these bytes.

        A write that is tried again because its reply was lost thus succeeds. Two writers cannot both believe that they
        were first: log entries carry a nonce, and other objects are named by their content.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write the whole object over what was there. For the few objects that are not immutable (see keys.py)."""

    def copy(self, key: str, to: str) -> None:
        """Make ``to`` hold what ``key`` holds, without reading it. Raises NotFoundError.

        An object under ``to`` may be kept or overwritten, so copy only objects that are named by their content.
        """

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or ``length`` of them from ``start``. Raises NotFoundError."""

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        """Every object whose key starts with ``prefix`` and sorts behind ``after``, in order of key (UTF-8).

        ``ordered`` False: in the store's own order, as a stream. Sorting keeps half a kilobyte an object in memory.
        """

    def delete(self, key: str) -> None:
        """Delete the object. It is no error if there is none."""

    def age(self, key: str) -> float:
        """Seconds since the object was written; both times are the store's own clock's. Raises NotFoundError."""


def in_parts(store: Store, key: str) -> Iterator[bytes]:
    """The object's bytes, 8 MiB at a time. Raises NotFoundError."""
    start = 0
    while part := store.get(key, start=start, length=_PART):
        yield part
        start += len(part)


def holds(store: Store, key: str, data: Content) -> bool:
    """Whether the object's content is exactly ``data``. Raises NotFoundError."""
    if isinstance(data, bytes):
        return store.get(key) == data
    data.seek(0)
    return all(data.read(len(part)) == part for part in in_parts(store, key)) and not data.read(1)
