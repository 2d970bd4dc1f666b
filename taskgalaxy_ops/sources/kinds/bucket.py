"""The objects below a prefix of an S3 bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.sources.kinds import NOTES_FILE, Found, Place, parsed_notes
from taskgalaxy_ops.storage import connect


class BucketSource:
    """An S3 prefix, read with the settings' endpoint and region."""

    def __init__(self, place: Place) -> None:
        self._store = connect(place.location, **place.s3_options)
        try:
            self._notes = parsed_notes(place.source, self._store.get(NOTES_FILE))
        except NotFoundError:
            self._notes = {}

    def list(self) -> Iterator[Found]:
        return (
            (each.key, f"{each.size}-{each.version}" if each.version else "", each.key.encode())
            for each in self._store.list("", ordered=False)
        )

    def open(self, place: bytes) -> bytes:
        return self._store.get(place.decode())

    def describe(self) -> Mapping[str, Any]:
        return self._notes
