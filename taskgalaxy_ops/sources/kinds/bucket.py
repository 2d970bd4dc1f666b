"""The objects below a prefix of an S3 bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, StoreError, UnreadableError
from taskgalaxy_ops.sources.kinds import NOTES_FILE, Found, Place, parsed_notes
from taskgalaxy_ops.storage import Listed, connect


class BucketSource:
    """An S3 prefix, read with the settings' endpoint and region."""

    def __init__(self, place: Place) -> None:
        self._store = connect(place.location, **place.s3_options)
        try:
            self._notes = parsed_notes(place.source, self._store.get(NOTES_FILE))
        except NotFoundError:
            self._notes = {}

    def list(self) -> Iterator[Found]:
        return ((each.key, version_of(each), each.key.encode()) for each in self.objects())

    def objects(self, prefix: str = "") -> Iterator[Listed]:
        """What lies below the source's prefix and begins with this one, in the bucket's own order."""
        for each in self._store.list(prefix, ordered=False):
            if each.size or not each.key.endswith("/"):  # consoles mark a folder by an empty object
                yield each

    def open(self, place: bytes) -> bytes:
        return self._read(place.decode())

    def head(self, place: bytes, length: int) -> bytes:
        return self.part(place, 0, length)

    def part(self, place: bytes, start: int, length: int) -> bytes:
        """At most ``length`` bytes of an object, from ``start`` on."""
        return self._read(place.decode(), start, length)

    def _read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or some of them. Raises StoreError if the bucket does not reply any more."""
        try:
            return self._store.get(key, start=start, length=length)
        except (NotFoundError, UnreadableError):
            raise
        except StoreError as error:
            # The service fails on this object. If it still lists, the others can be read.
            next(iter(self._store.list(key)), None)
            raise UnreadableError(str(error), f"the service fails on it: {error.__cause__ or error}") from error

    def describe(self) -> Mapping[str, Any]:
        return self._notes


def version_of(each: Listed) -> str:
    """An object's version as a source lists it; "" where the bucket says none."""
    return f"{each.size}-{each.version}" if each.version else ""
