"""The rows of a mixture's parts in a temporary SQLite file, in which they are drawn; memory does not grow with them.

A row is drawn by its hash alone: those of a part with the least draws are taken. So a part with more weight keeps what
it gave, rows that come or go move no other, and neither files' order nor names matter.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.release.formats.layouts import Said

_CACHE_KIB = 16 << 10
_PAGE = 1000  # references in memory

# draw: of the row; failed: why an image of it cannot be had, found when it was copied. refs: the images of drawn rows,
# where they come from; file: where they lie in the mixture. drawn: place: the order in which they are written.
_SCHEMA = """
CREATE TABLE rows (row INTEGER PRIMARY KEY, part INTEGER, draw REAL, hash TEXT, key TEXT, said TEXT, images TEXT,
    licences TEXT, failed TEXT);
CREATE TABLE refs (ref TEXT PRIMARY KEY, file TEXT, problem TEXT) WITHOUT ROWID;
CREATE TABLE drawn (place REAL, row INTEGER);
"""


class Staged(NamedTuple):
    """A row that can be used. images: references to where their bytes are (``pictures``)."""

    hash: str  # of the row: it is drawn by it
    key: str  # its id in the mixture
    said: Said
    images: tuple[str, ...]
    licences: tuple[str, ...]


class Drawn(NamedTuple):
    """A row of the mixture, as it is written."""

    part: int
    key: str
    said: Said
    images: tuple[str, ...]  # paths in the mixture's folder


class Staging:
    """The rows of all parts. A context manager: on leaving, the file is gone."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            f"PRAGMA cache_size = -{_CACHE_KIB}; PRAGMA temp_store = FILE; PRAGMA journal_mode = OFF; "
            "PRAGMA synchronous = OFF;" + _SCHEMA
        )
        self._db.create_function("draw", 2, lambda row, cycle: _draw(row, cycle), deterministic=True)
        self._db.execute("BEGIN")

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, part: int, rows: Iterable[Staged]) -> None:
        """Add rows of a part."""
        self._db.executemany(
            "INSERT INTO rows (part, draw, hash, key, said, images, licences) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    part,
                    _draw(row.hash, 0),
                    row.hash,
                    row.key,
                    json.dumps(row.said),
                    json.dumps(row.images),
                    json.dumps(row.licences),
                )
                for row in rows
            ),
        )

    def index(self) -> None:
        """Call once all rows are there, before anything is asked of them."""
        self._db.execute("CREATE INDEX by_draw ON rows (part, draw, hash)")

    def drop_repeats(self, part: int) -> int:
        """Leave out the rows of a part that repeat an earlier one; returns how many."""
        return self._db.execute(
            "DELETE FROM rows WHERE row IN (SELECT row FROM (SELECT row, row_number() OVER (PARTITION BY part, draw, "
            "hash ORDER BY row) AS number FROM rows WHERE part = ?) WHERE number > 1)",
            (part,),
        ).rowcount

    def usable(self, part: int) -> int:
        """The rows of a part that can be used, as far as is known."""
        query = "SELECT count(*) FROM rows WHERE part = ? AND failed IS NULL"
        return int(self._db.execute(query, (part,)).fetchone()[0])

    def failed(self, part: int) -> Counter[str]:
        """Why rows of a part were left out when their images were copied."""
        query = "SELECT failed, count(*) FROM rows WHERE part = ? AND failed IS NOT NULL GROUP BY failed"
        return Counter(dict(self._db.execute(query, (part,))))

    def draw(self, numbers: Sequence[int]) -> None:
        """Draw so many rows of each part, anew; of a part that has fewer, again from its first."""
        self._db.execute("DELETE FROM drawn")
        for part, number in enumerate(numbers):
            cycle, rows = 0, self.usable(part)
            while number > 0 and rows:
                self._db.execute(
                    "INSERT INTO drawn SELECT draw(hash, ?), row FROM (SELECT hash, row FROM rows WHERE part = ? AND "
                    "failed IS NULL ORDER BY draw, hash LIMIT ?)",
                    (cycle, part, number),
                )
                cycle, number = cycle + 1, number - rows
        self._db.execute(
            "INSERT OR IGNORE INTO refs (ref) SELECT each.value FROM drawn JOIN rows USING (row), "
            "json_each(rows.images) AS each"
        )

    def lacking(self, kind: str) -> tuple[int, Iterator[str]]:
        """The references of a kind (how they begin) to images of drawn rows that were not looked for: how many, and
        they, in order."""
        rest = "FROM refs WHERE ref > ? AND ref < ? AND file IS NULL AND problem IS NULL"
        first, end = f"{kind}:", f"{kind};"

        def pages() -> Iterator[str]:
            last = first
            while page := self._db.execute(f"SELECT ref {rest} ORDER BY ref LIMIT {_PAGE}", (last, end)).fetchall():
                yield from (ref for (ref,) in page)
                last = page[-1][0]

        return int(self._db.execute(f"SELECT count(*) {rest}", (first, end)).fetchone()[0]), pages()

    def found(self, ref: str, file: str | None, problem: str | None) -> None:
        """Keep where an image lies in the mixture, or why it cannot be had."""
        self._db.execute("UPDATE refs SET file = ?, problem = ? WHERE ref = ?", (file, problem, ref))

    def fail(self) -> int:
        """Leave out drawn rows of which an image cannot be had; returns how many."""
        problems = (
            "FROM json_each(rows.images) AS each JOIN refs ON ref = each.value WHERE problem IS NOT NULL "
            "ORDER BY each.key LIMIT 1"
        )
        return self._db.execute(
            f"UPDATE rows SET failed = (SELECT problem {problems}) WHERE failed IS NULL "
            f"AND row IN (SELECT row FROM drawn) AND EXISTS (SELECT 1 {problems})"
        ).rowcount

    def rows(self) -> Iterator[Drawn]:
        """The drawn rows in the order in which they are written: by hash, so that parts are mixed throughout."""
        files = "SELECT json_group_array(file) FROM (SELECT refs.file FROM json_each(rows.images) AS each JOIN refs ON "
        files += "ref = each.value ORDER BY each.key)"
        cursor = self._db.cursor().execute(
            f"SELECT part, key, said, ({files}) FROM drawn JOIN rows USING (row) ORDER BY place, hash"
        )
        for part, key, said, images in cursor:
            yield Drawn(part, key, [(who, text) for who, text in json.loads(said)], tuple(json.loads(images)))

    def images(self) -> set[str]:
        """The files of the images of drawn rows."""
        query = "SELECT DISTINCT file FROM drawn JOIN rows USING (row), json_each(rows.images) AS each JOIN refs "
        return {file for (file,) in self._db.execute(query + "ON ref = each.value")}

    def licences(self, part: int) -> Counter[str]:
        """How many drawn rows of a part are under each licence; a row may be under several."""
        query = "SELECT each.value, count(*) FROM drawn JOIN rows USING (row), json_each(rows.licences) AS each "
        return Counter(dict(self._db.execute(query + "WHERE part = ? GROUP BY 1", (part,))))

    def distinct(self, part: int) -> int:
        """How many rows of a part are drawn, each counted once."""
        query = "SELECT count(DISTINCT row) FROM drawn JOIN rows USING (row) WHERE part = ?"
        return int(self._db.execute(query, (part,)).fetchone()[0])


def _draw(row: str, cycle: int) -> float:
    return draw("mixture", row, cycle)
