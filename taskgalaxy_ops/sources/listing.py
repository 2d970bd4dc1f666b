"""The files of a source: of a folder, an S3 prefix, or a source that ships (``builtin:photos``)."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError
from taskgalaxy_ops.hashing import canonical_json, sha256_hex
from taskgalaxy_ops.records import FileVersion
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.storage import connect

# A source may have this file, with licence and attribution of its images, and for single files also their origin.
NOTES_FILE = "source.json"
_NOTED = ("origin", "licence", "attribution")

_TABLES = """
PRAGMA cache_size = -512;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE found (name TEXT, version TEXT, place BLOB);
CREATE TABLE files (name TEXT, version TEXT, place BLOB);
"""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, not yet read."""

    name: str  # path within the source, "/"-separated
    read: Callable[[], bytes]
    version: str = ""  # from the listing; it changes when the content may have changed; "": not known
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None


_Listed = tuple[str, str, bytes]  # name, version, place
_Place = tuple[Iterable[_Listed], Callable[[bytes], bytes], Mapping[str, Any]]  # files, how to read one, notes


class Listing:
    """A source's files of the wanted suffixes, in order of name, up to its limit.

    SQLite sorts and keeps them on disk, so that memory does not grow with the source, in a temporary file that is
    deleted when the listing is closed or collected.
    """

    def __init__(
        self, wanted: Iterable[_Listed], limit: int | None, made: Callable[[_Listed], SourceFile], notes: str = ""
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
    if location.startswith("builtin:"):
        listed, read, notes = _folder(name, built(location.removeprefix("builtin:"), settings.limit))
    elif location.startswith("s3://"):
        listed, read, notes = _bucket(name, location, s3_options)
    else:
        listed, read, notes = _folder(name, Path(location.removeprefix("file://")))
    suffixes = tuple(suffix.lower() for suffix in settings.suffixes)

    def made(row: _Listed) -> SourceFile:
        key, version, place = row
        own = notes.get("files", {}).get(key, {})
        return SourceFile(
            key,
            partial(read, place),
            version,
            own.get("origin"),
            own.get("licence") or settings.licence or notes.get("licence"),
            own.get("attribution") or settings.attribution or notes.get("attribution"),
        )

    wanted = (each for each in listed if each[0].lower().endswith(suffixes))
    files = Listing(wanted, settings.limit, made, sha256_hex(canonical_json(notes)) if notes else "")
    if not len(files):
        raise SourceError(
            f"source {name!r}: {location} lists no image.\n"
            f"  Looked for {' '.join(settings.suffixes)} (set `sources.{name}.suffixes` for others)."
        )
    return files


def built(name: str, limit: int | None) -> Path:
    """The folder of a source that ships; it is made on first use, below ``TASKGALAXY_CACHE`` (``~/.cache/taskgalaxy``).

    Raises SourceError for an unknown name or a missing package.
    """
    from taskgalaxy_ops.sources.builtin import build

    cache = Path(os.environ.get("TASKGALAXY_CACHE") or Path.home() / ".cache" / "taskgalaxy")
    return build(name, cache / (f"{name}-{limit}" if limit else name), limit)


def _folder(name: str, folder: Path) -> _Place:
    if not folder.is_dir():
        raise SourceError(f"source {name!r}: {folder} is no folder. Set `sources.{name}.location` to one with images.")
    notes = folder / NOTES_FILE
    return _walk(folder), _read, _notes(name, notes.read_bytes()) if notes.is_file() else {}


def _walk(folder: Path) -> Iterator[_Listed]:
    """The files below a folder, in any order; links to folders are not followed."""
    root = os.path.join(os.fsencode(folder), b"")  # noqa: PTH118 - bytes: names need not be UTF-8
    folders = [root]
    while folders:
        with suppress(PermissionError, FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif _is_file(entry):
                    yield _name(entry.path.removeprefix(root)), _version(entry), entry.path


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def _read(place: bytes) -> bytes:
    return Path(os.fsdecode(place)).read_bytes()


def _version(entry: os.DirEntry[bytes]) -> str:
    try:
        stat = entry.stat()
    except OSError:  # removed since it was listed; reading it will fail with a reason
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _name(path: bytes) -> str:
    """A path within the source. Bytes that are no UTF-8 are escaped, because tables cannot store them."""
    return path.decode("utf-8", "backslashreplace")


def _bucket(name: str, location: str, s3_options: Mapping[str, Any]) -> _Place:
    store = connect(location, **s3_options)
    try:
        notes = _notes(name, store.get(NOTES_FILE))
    except NotFoundError:
        notes = {}
    listed = (
        (each.key, f"{each.size}-{each.version}" if each.version else "", each.key.encode())
        for each in store.list("", ordered=False)
    )
    return listed, lambda key: store.get(key.decode()), notes


def _notes(name: str, raw: bytes) -> Mapping[str, Any]:
    try:
        notes = json.loads(raw)
        if not isinstance(notes, dict) or not isinstance(notes.get("files", {}), dict):
            raise ValueError("it must be an object with `licence`, `attribution` and `files`")
        for place, entry in {"": notes, **notes.get("files", {})}.items():
            texts = [entry.get(key) for key in _NOTED] if isinstance(entry, dict) else [0]
            if not all(text is None or isinstance(text, str) for text in texts):
                raise ValueError(f"{place or 'the whole'} must be an object, {', '.join(_NOTED)} in it texts")
        return notes
    except ValueError as error:
        raise SourceError(f"source {name!r}: {NOTES_FILE} cannot be read ({error}). Mend it or remove it.") from error
