"""The results of a source's scan, file by file, in SQLite on disk, so that memory does not grow with the source."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import astuple, fields
from heapq import merge
from itertools import groupby
from types import TracebackType

from taskgalaxy_ops.records import Claim, FilePages, FileReject, FileVersion, Image, ImageId, Reason

_TABLES = """
PRAGMA cache_size = -512;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE claims (image TEXT PRIMARY KEY, file TEXT, origin TEXT, licence TEXT, attribution TEXT, place TEXT,
    context TEXT) WITHOUT ROWID;
CREATE TABLE images (image TEXT PRIMARY KEY, width, height, format TEXT, size, phash TEXT, levels TEXT,
    content TEXT) WITHOUT ROWID;
CREATE TABLE rejects (file TEXT, reason TEXT, detail TEXT);
CREATE TABLE before (file TEXT PRIMARY KEY, version TEXT, image TEXT, referred INTEGER DEFAULT 0, rejected INTEGER,
    pages INTEGER) WITHOUT ROWID;
CREATE TABLE pages (file TEXT PRIMARY KEY, pages INTEGER) WITHOUT ROWID;
"""
_IMAGE = ", ".join(field.name for field in fields(Image))


class ScanStaging:
    """A scan's claims, new images and rejects. A context manager: on leaving, its unnamed file is gone.

    by_reference: no copy of the images is stored; their claims say the place at which the source has them.
    """

    def __init__(self, source: str, *, by_reference: bool = False) -> None:
        self.source = source
        self.by_reference = by_reference
        self.claims = 0  # files that hold an image, also one that was taken down
        self.images = 0  # of these, the images that were decoded because no image shard has them
        self.rejects = 0
        # A temporary file of SQLite's own, written once its cache is full. SQLite serializes what threads ask; one of
        # them writes.
        self._db = sqlite3.connect("", check_same_thread=False)
        self._db.executescript(_TABLES)

    def __enter__(self) -> ScanStaging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def remember(
        self,
        files: Iterable[FileVersion],
        claims: Iterable[Claim],
        rejects: Iterable[FileReject] = (),
        pages: Iterable[FilePages] = (),
    ) -> None:
        """Store what the source's last scan listed and found, so that ``unchanged`` and ``was_image`` can compare."""
        listed = ((row.file, row.version) for row in files if row.version)
        self._db.executemany("INSERT OR REPLACE INTO before (file, version) VALUES (?, ?)", listed)
        claimed = ((claim.image, claim.place is not None, claim.file) for claim in claims)
        self._db.executemany("UPDATE before SET image = ?, referred = ? WHERE file = ?", claimed)
        rejected = ((reject.file,) for reject in rejects)
        self._db.executemany("UPDATE before SET rejected = 1 WHERE file = ?", rejected)
        self._db.executemany("UPDATE before SET pages = ? WHERE file = ?", ((each.pages, each.file) for each in pages))

    def unchanged(self, file: str, version: str) -> ImageId | None:
        """The image that the file held at the last scan, if its version is still the same; else None.

        None, too, where that scan stored no copy and this one does.
        """
        query = "SELECT image FROM before WHERE file = ? AND version = ? AND referred <= ?"
        row = self._db.execute(query, (file, version, self.by_reference)).fetchone()
        return row[0] if row else None

    def was_image(self, file: str, version: str) -> bool | None:
        """Whether the file, in this version, was an image at the last scan; None: it was rejected, or not listed."""
        query = "SELECT image, rejected FROM before WHERE file = ? AND version = ?"
        image, rejected = self._db.execute(query, (file, version)).fetchone() or (None, True)
        return True if image is not None else None if rejected else False

    def note_pages(self, file: str, pages: int | None = None) -> None:
        """Note that a file has several pages or frames; None: as many as the last scan found."""
        if pages is None:
            row = self._db.execute("SELECT pages FROM before WHERE file = ?", (file,)).fetchone()
            pages = row[0] if row else None
        if pages is not None and pages > 1:
            self._db.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (file, pages))

    def pages(self) -> Iterator[FilePages]:
        """The files with several pages or frames, in order of file."""
        return (FilePages(*row) for row in self._db.execute("SELECT file, pages FROM pages ORDER BY file"))

    def claim(self, claim: Claim, image: Image | None = None) -> None:
        """Add a file with an image that no other file of this scan holds. ``image``: its record, if it is new."""
        self._db.execute(
            "INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)",
            (claim.image, claim.file, claim.origin, claim.licence, claim.attribution, claim.place, claim.context),
        )
        self.claims += 1
        if image is not None:
            self._db.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(image))
            self.images += 1

    def reject(self, reject: FileReject) -> None:
        """Add a file that is not taken as an image."""
        row = (reject.file, str(reject.reason), reject.detail)
        self._db.execute("INSERT INTO rejects VALUES (?, ?, ?)", row)
        self.rejects += 1

    def file_of(self, image: ImageId) -> str | None:
        """The file of this scan that holds the image; None if there is none. Other threads than the scan's may ask."""
        row = self._db.execute("SELECT file FROM claims WHERE image = ?", (image,)).fetchone()
        return row[0] if row else None

    def claimed_files(self) -> Iterator[str]:
        """The files that hold an image."""
        return (row[0] for row in self._db.execute("SELECT file FROM claims"))

    def among(self, images: Collection[ImageId]) -> list[tuple[str, ImageId]]:
        """The files that hold one of these images, each with its image, in order of file."""
        return sorted((file, image) for image in images if (file := self.file_of(image)) is not None)

    def new_images(self) -> Iterator[Image]:
        """The images that were decoded, in order of id."""
        rows = self._db.execute(f"SELECT {_IMAGE} FROM images ORDER BY image")
        return (Image(*row) for row in rows)

    def claims_by_shard(self, shard_of: Callable[[ImageId], str | None]) -> Iterator[tuple[str, Iterator[Claim]]]:
        """The claims by image shard, in order of shard id; each shard's claims in order of image.

        ``shard_of``: the id of an image's shard. Claims of images without one (None) are left out.
        """
        self._db.create_function("shard_of", 1, shard_of, deterministic=True)
        query = (
            "SELECT shard_of(image) AS shard, image, file, origin, licence, attribution, place, context FROM claims "
            "ORDER BY shard, image"
        )
        for shard, group in groupby(self._db.execute(query), key=lambda row: row[0]):
            if shard is not None:
                yield shard, (Claim(self.source, *row[1:]) for row in group)

    def file_rejects(self, denied: Collection[ImageId] = ()) -> Iterator[FileReject]:
        """The rejects in order of file, together with the files whose image is in ``denied``."""
        rows = self._db.execute("SELECT file, reason, detail FROM rejects ORDER BY file, rowid")
        rejected = (FileReject(self.source, *row) for row in rows)
        taken = (FileReject(self.source, file, Reason.TAKEN_DOWN, "") for file, _ in self.among(denied))
        return merge(rejected, taken, key=lambda reject: reject.file)
