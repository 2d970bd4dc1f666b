"""The files of a source in order of name, wherever they lie (``kinds``: a folder, an S3 prefix, one that ships)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any

from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.hashing import canonical_json, sha256_hex
from taskgalaxy_ops.records import FileVersion
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.kinds import NOTES_FILE, Found, found_source

_TABLES = """
PRAGMA cache_size = -512;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE found (name TEXT, version TEXT, place BLOB);
CREATE TABLE files (name TEXT, version TEXT, place BLOB);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of a source, not yet read."""

    name: str  # path within the source, "/"-separated
    read: Callable[[], bytes]
    version: str = ""  # from the listing; it changes when the content may have changed; "": not known
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None


class Listing:
    """A source's files of the wanted suffixes, in order of name, up to its limit.

    SQLite sorts and keeps them on disk, so that memory does not grow with the source, in a temporary file that is
    deleted when the listing is closed or collected.
    """

    def __init__(
        self, wanted: Iterable[Found], limit: int | None, made: Callable[[Found], SourceFile], notes: str = ""
    ) -> None:
        """wanted: the files, in any order. made: makes a record of a row. notes: the notes' sha256, or ""."""
        self._made, self._notes = made, notes
        self._db = sqlite3.connect("")
        self._db.executescript(_TABLES)
        self._db.executemany("INSERT INTO found VALUES (?, ?, ?)", wanted)
        ordered = "INSERT INTO files SELECT name, version, place FROM found ORDER BY name, place LIMIT ?"
        self._db.execute(ordered, (-1 if limit is None else limit,))
        self._db.execute("DELETE FROM found")

    def __enter__(self) -> Listing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM files").fetchone()[0])

    def __iter__(self) -> Iterator[SourceFile]:
        return map(self._made, self._db.execute("SELECT name, version, place FROM files ORDER BY rowid"))

    def versions(self) -> Iterator[FileVersion]:
        """Name and version of each file, with which the next scan compares its own listing.

        The notes come last, because claims depend on them too.
        """
        listed = self._db.execute("SELECT name, version FROM files ORDER BY rowid")
        notes = [FileVersion(NOTES_FILE, self._notes)] if self._notes else []
        return chain((FileVersion(name, version) for name, version in listed), notes)

    def keep(self, picked: Callable[[str], bool]) -> None:
        """Drop the files for whose name ``picked`` is false."""
        self._db.create_function("picked", 1, picked)
        self._db.execute("DELETE FROM files WHERE NOT picked(name)")


def source_files(name: str, settings: SourceSettings, s3_options: Mapping[str, Any]) -> Listing:
    """List a source's files. Raises SourceError if its location cannot be read, or lists no image."""
    location = settings.location
    source = found_source(name, location, settings.limit, s3_options)
    notes = source.describe()
    suffixes = tuple(suffix.lower() for suffix in settings.suffixes)

    def made(row: Found) -> SourceFile:
        key, version, place = row
        own = notes.get("files", {}).get(key, {})
        return SourceFile(
            name=key,
            read=partial(source.open, place),
            version=version,
            origin=own.get("origin"),
            licence=own.get("licence") or settings.licence or notes.get("licence"),
            attribution=own.get("attribution") or settings.attribution or notes.get("attribution"),
        )

    wanted = (each for each in source.list() if each[0].lower().endswith(suffixes))
    files = Listing(wanted, settings.limit, made, sha256_hex(canonical_json(notes)) if notes else "")
    if not len(files):
        raise SourceError(
            f"source {name!r}: {location} lists no image.\n"
            f"  Looked for {' '.join(settings.suffixes)} (set `sources.{name}.suffixes` for others)."
        )
    return files
