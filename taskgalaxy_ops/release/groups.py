"""Samples about several images, in a release's database: what rejects them, and what their rows hold beside.

Tables as in sqlite_staging.py: ``further`` has the images of such a sample after its first.
"""

from __future__ import annotations

import sqlite3

from taskgalaxy_ops.records import Reason

# Of a chosen row ``c``: place and ``rows.SampleImage`` of each image after the first, as JSON; null: there is none.
IMAGES = (
    "CASE WHEN c.further_images IS NOT NULL THEN (SELECT json_group_array(json_array(f.place, f.image, q.location, "
    "q.held * q.copied, q.rowid, q.claims)) FROM further f JOIN pictures q USING (image) WHERE f.pair = c.pair) END"
)
# Of a chosen row ``c``: about the bytes of these images.
BYTES = (
    "CASE WHEN c.further_images IS NULL THEN 0 ELSE (SELECT sum(q.held * q.copied) FROM further f "
    "JOIN pictures q USING (image) WHERE f.pair = c.pair) END"
)
# The images of chosen samples after their first.
CHOSEN = "SELECT f.image FROM further f JOIN pairs USING (pair) WHERE reason IS NULL"


def leave_out_leaked(rows: sqlite3.Connection, told: str) -> None:
    """Reject samples one of whose further images is in a benchmark: see the table ``leaks``.

    told: a finding in words, an expression of the table's columns."""
    rows.execute(
        f"UPDATE pairs SET reason = ?, detail = (SELECT {told} FROM leaks JOIN further f ON f.image = id "
        "WHERE what = ? AND f.pair = pairs.pair ORDER BY score DESC, benchmark LIMIT 1) "
        "WHERE reason IS NULL AND pair IN (SELECT f.pair FROM further f JOIN leaks ON id = f.image WHERE what = ?)",
        (Reason.BENCHMARK_IMAGE,) * 3,
    )


def leave_out_alike(rows: sqlite3.Connection) -> None:
    """Reject samples one of whose further images is left out as a near-duplicate: see the table ``alike``."""
    rows.execute(
        "UPDATE pairs SET reason = ?, detail = (SELECT 'of ' || standing FROM further JOIN alike USING (image) "
        "WHERE further.pair = pairs.pair ORDER BY place LIMIT 1) "
        "WHERE coalesce(reason, ?) = ? AND pair IN (SELECT pair FROM further JOIN alike USING (image))",
        (Reason.NEAR_DUPLICATE_IMAGE, Reason.DUPLICATE_PAIR, Reason.DUPLICATE_PAIR),
    )


def leave_out_of_two_splits(rows: sqlite3.Connection) -> None:
    """Reject samples about images of two splits: in either, what the other holds would be seen."""
    if not rows.execute("SELECT EXISTS (SELECT 1 FROM further)").fetchone()[0]:
        return
    rows.execute(
        "UPDATE pairs SET reason = ?, detail = 'in either, it would show what the other holds' "
        "WHERE reason IS NULL AND pair IN (SELECT f.pair FROM further f JOIN images other ON other.image = f.image "
        "JOIN pairs p ON p.pair = f.pair JOIN images first ON first.image = p.image WHERE first.split <> other.split)",
        (Reason.TWO_SPLITS,),
    )
