"""The one door to the object store: what every implementation promises.

Keys are ``/``-separated, made by keys.py alone, and never one the folder of another. Objects are small enough for
memory (shards are cut so) and, but for the few that are replaced, immutable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing."""

    key: str
    size: int  # bytes
    version: str = ""  # another one when the content may be another: an ETag, or the time of the last write


class Store(Protocol):
    """An object store with conditional writes. Every method raises StoreError when the store stays out of reach."""

    @property
    def url(self) -> str:
        """Where the store lies, as a person would write it; carries no secret."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object whole if there is none; True if the key now holds exactly these bytes.

        So a write whose reply was lost, and is tried again, is a success: what a log appends carries a nonce,
        and other objects are named by their content.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write the object whole, over what was there. For the few pointers that people read."""

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
