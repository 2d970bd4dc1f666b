"""The one door to the object store: what every implementation promises.

Keys are ``/``-separated, made by keys.py alone, and never one the folder of another. Objects are small enough for
memory (shards are cut so), but for some files of a release, and immutable, but for the few that are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

Content = bytes | BinaryIO  # a file that can be sought in; it is taken from its start, and never held whole

_PART = 8 << 20  # bytes of an object that are in memory at a time


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing."""

    key: str
    size: int  # bytes
    version: str = ""  # another one when the content may be another: an ETag, or the time of the last write
    written: float = 0.0  # seconds, by the store's own clock: to be compared with another object's alone


class Store(Protocol):
    """An object store with conditional writes. Every method raises StoreError when the store stays out of reach."""

    @property
    def url(self) -> str:
        """Where the store lies, as a person would write it; carries no secret."""

    def put_if_absent(self, key: str, data: Content) -> bool:
        """Write the object whole (at most 5 GB) if there is none; True if the key now holds exactly these bytes.

        So a write whose reply was lost, and is tried again, is a success: what a log appends carries a nonce,
        and other objects are named by their content.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write the object whole, over what was there. For the few pointers that people read."""

    def copy(self, key: str, to: str) -> None:
        """Make ``to`` hold what ``key`` holds, without reading it. Raises NotFoundError.

        What lies there is left or written over: for objects that are named by their content.
        """

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or ``length`` of them from ``start``. Raises NotFoundError."""

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        """Every object whose key starts with ``prefix`` and sorts behind ``after``, in order of key (UTF-8).

        ``ordered`` False: in any order, as they come; what is sorted is in memory, half a kilobyte an object.
        """

    def delete(self, key: str) -> None:
        """Remove the object; not an error where there is none."""

    def age(self, key: str) -> float:
        """Seconds since the object was written, both ends by the store's own clock. Raises NotFoundError."""


def in_parts(store: Store, key: str) -> Iterator[bytes]:
    """The object's bytes, some megabytes at a time. Raises NotFoundError."""
    start = 0
    while part := store.get(key, start=start, length=_PART):
        yield part
        start += len(part)


def holds(store: Store, key: str, data: Content) -> bool:
    """Whether the object is exactly this. Raises NotFoundError."""
    if isinstance(data, bytes):
        return store.get(key) == data
    data.seek(0)
    return all(data.read(len(part)) == part for part in in_parts(store, key)) and not data.read(1)
