"""The files of a source in order of name, wherever they lie (``kinds``: a folder, an S3 prefix, tars, tables …)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any

from taskgalaxy_ops.errors import NotFoundError, SourceError, StoreError, UnreadableError
from taskgalaxy_ops.hashing import canonical_json, sha256_hex
from taskgalaxy_ops.records import FileVersion, ImageId, Reason
from taskgalaxy_ops.settings import IngestSettings, SourceSettings
from taskgalaxy_ops.sources import context, left_out
from taskgalaxy_ops.sources.content import HEAD_BYTES, by_suffix, holds_image, suffix_of
from taskgalaxy_ops.sources.kinds import (
    NOTES_FILE,
    Found,
    FoundImage,
    LeftOut,
    Source,
    SourceEntry,
    Unreadable,
    found_source,
)

_TABLES = """
PRAGMA cache_size = -512;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE found (name TEXT, version TEXT, place BLOB, state INTEGER, own TEXT);
CREATE TABLE files (name TEXT, version TEXT, place BLOB, state INTEGER, own TEXT);
"""
# Of several files with one name the last stands: files are sorted, so that they stand side by side.
_OF_ONE_NAME = """
FROM files WHERE EXISTS (SELECT 1 FROM files AS next WHERE next.rowid = files.rowid + 1 AND next.name = files.name{})
"""
# States of a file.
_IMAGE, _TO_LOOK_INTO, _OTHER = 0, 1, 2  # _OTHER: no image inside, or over the limit

_OWN = ("image", *context.CLAIMS)  # what a source may say of a single file, beside its context

_LOOKERS = 16  # files that are looked into at a time
_LOOKED_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of a source, not yet read."""

    name: str  # path within the source, "/"-separated
    read: Callable[[], bytes]
    place: bytes = b""  # what its source opens it by
    version: str = ""  # from the listing; it changes when the content may have changed; "": not known
    origin: str | None = None
    licence: str | None = None
    attribution: str | None = None
    image: ImageId | None = None  # its id, where its source knows it from the listing: of a page of a document
    context: str | None = None  # canonical JSON of ``context.kept``
    broken: str = ""  # why it cannot be read, where its source knows that from the listing
    reason: str = Reason.UNREADABLE  # of that reject


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """What a listing needs of its source.

    made: makes a record of a file and of what is known of it alone. head: a file's first bytes. by_place: files are
    best read in order of place.
    """

    made: Callable[[Found, Mapping[str, Any]], SourceFile]
    head: Callable[[bytes], bytes]
    by_place: bool = False


class Listing:
    """A source's files that are or may be images, in order of name (or of place), up to its limit.

    A file whose suffix says nothing may be one, until ``look`` has read its first bytes. SQLite sorts the files and
    keeps them on disk, so that memory does not grow with the source, in a temporary file that is deleted when the
    listing is closed or collected.
    """

    def __init__(
        self,
        wanted: Iterable[SourceEntry],
        chosen: Callable[[str], bool | str | None],
        limit: int | None,
        reader: _Reader,
        notes: str = "",
    ) -> None:
        """wanted: the files, in any order. chosen: by name, whether it is an image, None: to be looked into, or the
        kind under which it is left out. notes: the notes' sha256, or ""."""
        self._reader, self._limit, self._notes = reader, limit, notes
        self._left_out: Counter[str] = Counter()
        self.declared = False  # the source itself says of some files that they are images
        self._db = sqlite3.connect("")
        self._db.executescript(_TABLES)
        self._db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?)", self._sorted_out(wanted, chosen))
        # Files that are still to be looked into do not count towards the limit yet.
        last = None
        if limit is not None:
            query = "SELECT name, place FROM found WHERE state = ? ORDER BY name, place LIMIT 1 OFFSET ?"
            last = self._db.execute(query, (_IMAGE, limit - 1)).fetchone()
        within, bounds = ("WHERE (name, place) <= (?, ?)", last) if last else ("", ())
        self._db.execute(f"INSERT INTO files SELECT * FROM found {within} ORDER BY name, place, own", bounds)
        ((found, kept),) = self._db.execute("SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM files)")
        self._left_out[left_out.OVER_LIMIT] += found - kept
        self._db.execute("DELETE FROM found")
        ((replaced,),) = self._db.execute("SELECT count(*) " + _OF_ONE_NAME.format(" AND next.place != files.place"))
        self._left_out[left_out.REPLACED] += replaced
        self._db.execute("DELETE " + _OF_ONE_NAME.format(""))

    def _sorted_out(
        self, wanted: Iterable[SourceEntry], chosen: Callable[[str], bool | str | None]
    ) -> Iterator[tuple[str, str, bytes, int, str | None]]:
        for each in wanted:
            if isinstance(each, LeftOut):
                self._left_out[each.kind] += each.count
                continue
            if isinstance(each, Unreadable):
                # Only another reason is stored: scans of before compare with what older versions stored.
                other = {} if each.reason == Reason.UNREADABLE else {"reason": each.reason}
                yield each.name, each.version, b"", _IMAGE, json.dumps({"why": each.why, **other})
                continue
            found, own = (each, None) if isinstance(each, tuple) else _said(each)
            if isinstance(each, FoundImage) and each.certain:
                self.declared = True
                yield (*found, _IMAGE, own)
                continue
            choice = chosen(found[0])
            if isinstance(choice, str):
                self._left_out[choice] += 1
            elif choice is not False:
                yield (*found, _IMAGE if choice else _TO_LOOK_INTO, own)

    def __enter__(self) -> Listing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM files WHERE state != ?", (_OTHER,)).fetchone()[0])

    def __iter__(self) -> Iterator[SourceFile]:
        order = "place, rowid" if self._reader.by_place else "rowid"
        query = f"SELECT name, version, place, own FROM files WHERE state != ? ORDER BY {order}"
        for *found, own in self._db.execute(query, (_OTHER,)):
            yield self._reader.made((found[0], found[1], found[2]), json.loads(own) if own else {})

    @property
    def left_out(self) -> dict[str, int]:
        """What is left out so far, by kind (``sources.left_out``)."""
        return left_out.folded(self._left_out)

    def versions(self) -> Iterator[FileVersion]:
        """Name and version of each file, looked into or not, with which the next scan compares its own listing.

        The notes come last, because claims depend on them too.
        """
        listed = self._db.execute("SELECT name, version FROM files ORDER BY rowid")
        notes = [FileVersion(NOTES_FILE, version)] if (version := self._notes_version()) else []
        return chain((FileVersion(name, version) for name, version in listed), notes)

    def _notes_version(self) -> str:
        """The hash of the notes, and of what the source says of single files; "" if there is neither."""
        said = hashlib.sha256()
        count = 0
        for row in self._db.execute("SELECT name, own FROM files WHERE own IS NOT NULL ORDER BY rowid"):
            said.update(canonical_json(row) + b"\n")
            count += 1
        return sha256_hex(canonical_json([self._notes, said.hexdigest()])) if count else self._notes

    def keep(self, picked: Callable[[str], bool]) -> None:
        """Drop the files for whose name ``picked`` is false."""
        self._db.create_function("picked", 1, picked)
        self._db.execute("DELETE FROM files WHERE NOT picked(name)")

    def look(self, was_image: Callable[[str, str], bool | None] = lambda name, version: None) -> None:
        """Read the first bytes of the files whose suffix says nothing, and leave out those that hold no image.

        was_image: what was found before of a file, by name and version; None: nothing. A file that cannot be read
        stays, and becomes a reject with its reason. Raises StoreError or SourceError if none can be read any more.
        """
        last = 0
        with ThreadPoolExecutor(_LOOKERS) as pool:
            while rows := self._db.execute(
                "SELECT rowid, name, version, place FROM files WHERE state = ? AND rowid > ? ORDER BY rowid LIMIT ?",
                (_TO_LOOK_INTO, last, _LOOKED_AT_ONCE),
            ).fetchall():
                last = rows[-1][0]
                known = {row[0]: was_image(row[1], row[2]) for row in rows}
                unknown = [row for row in rows if known[row[0]] is None]
                held = pool.map(self._may_be_image, [row[3] for row in unknown])
                known |= {row[0]: image for row, image in zip(unknown, held, strict=True)}
                others = [row for row, image in known.items() if not image]
                self._left_out[left_out.NO_IMAGE] += len(others)
                self._leave_out(others)
        self._db.execute("UPDATE files SET state = ? WHERE state = ?", (_IMAGE, _TO_LOOK_INTO))
        if self._limit is not None:
            over = "SELECT rowid FROM files WHERE state = ? ORDER BY rowid LIMIT -1 OFFSET ?"
            beyond = [row[0] for row in self._db.execute(over, (_IMAGE, self._limit))]
            self._left_out[left_out.OVER_LIMIT] += len(beyond)
            self._leave_out(beyond)

    def _leave_out(self, rows: Iterable[int]) -> None:
        self._db.executemany("UPDATE files SET state = ? WHERE rowid = ?", ((_OTHER, row) for row in rows))

    def _may_be_image(self, place: bytes) -> bool:
        try:
            return holds_image(self._reader.head(place))
        except (NotFoundError, UnreadableError):
            return True
        except (SourceError, StoreError):
            raise
        except Exception:  # noqa: BLE001 - whatever a kind of source raises for a file concerns this file alone
            return True


def source_files(
    name: str,
    settings: SourceSettings,
    s3_options: Mapping[str, Any],
    decoding: IngestSettings | None = None,
    before: Callable[[], Iterable[FileVersion]] = tuple,
) -> Listing:
    """List a source's files; none is read, but for what its kind has to know of those that hold several images.

    decoding, before: bounds for that, and what the last scan listed. Raises SourceError if its location cannot be read,
    or lists no image.
    """
    source = found_source(name, settings, s3_options, decoding, before)
    notes = source.describe()

    def made(row: Found, said: Mapping[str, Any]) -> SourceFile:
        key, version, place = row
        noted = notes.get("files", {}).get(key, {})
        own = {**noted, **said}
        reason = said.get("reason", Reason.UNREADABLE)
        return SourceFile(
            name=key,
            read=partial(_refused, said["why"], reason) if "why" in said else partial(source.open, place),
            place=place,
            broken=said.get("why", ""),
            reason=reason,
            image=said.get("image"),
            version=version,
            origin=own.get("origin"),
            licence=own.get("licence") or settings.licence or notes.get("licence"),
            attribution=own.get("attribution") or settings.attribution or notes.get("attribution"),
            context=_context_json(said.get("context") or context.kept(noted.get("context"))),
        )

    files = Listing(
        source.list(),
        partial(_choice, settings),
        settings.limit,
        _Reader(made=made, head=partial(_head, source), by_place=getattr(source, "by_place", False)),
        sha256_hex(canonical_json(notes)) if notes else "",
    )
    if not len(files):
        raise no_image(name, settings, files)
    return files


def no_image(name: str, settings: SourceSettings, files: Listing) -> SourceError:
    """The error of a source that lists no image: what was looked for, and what there is instead."""
    more = " and other images" if settings.by_content else ""
    passed_by = f"\n  {told}." if (told := left_out.told(files.left_out)) else ""
    return SourceError(
        f"source {name!r}: {settings.location} lists no image.\n"
        f"  Looked for {' '.join(settings.suffixes)}{more} (set `sources.{name}.suffixes` for others).{passed_by}"
    )


def _choice(settings: SourceSettings, name: str) -> bool | str | None:
    """Whether a file is an image by its name; None: it must be looked into; False: it is the notes; or why it is
    left out."""
    if not settings.hidden and any(part.startswith(".") for part in name.split("/")):
        return left_out.HIDDEN
    suffix = suffix_of(name)
    if not settings.by_content:
        if name.lower().endswith(tuple(suffix.lower() for suffix in settings.suffixes)):
            return True
        return False if name == NOTES_FILE else left_out.suffix_kind(suffix)
    image = by_suffix(suffix)
    if image is False and name == NOTES_FILE:
        return False
    return left_out.suffix_kind(suffix) if image is False else image


def _said(found: FoundImage) -> tuple[Found, str | None]:
    """An image as a file, and as JSON what its source says of it alone."""
    own: dict[str, Any] = {key: text for key in _OWN if (text := getattr(found, key))}
    if said := context.kept(found.context):
        own["context"] = said
    return (found.name, found.version, found.place), json.dumps(own) if own else None


def _context_json(said: Mapping[str, str]) -> str | None:
    return canonical_json(said).decode() if said else None


def _refused(why: str, reason: str) -> bytes:
    raise UnreadableError(why, reason=reason)


def _head(source: Source, place: bytes) -> bytes:
    own = getattr(source, "head", None)
    head: bytes = own(place, HEAD_BYTES) if own is not None else source.open(place)[:HEAD_BYTES]
    return head
