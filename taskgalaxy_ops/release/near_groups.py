"""``release.near_duplicates``: images that look the same are left out but for one, or lie on one side of a split.

A group's split is drawn by the hash of one of its images, the one whose draw is least. So it depends on no order in
which images came, and a group that gains an image among n keeps its split but for one time in n + 1. Which samples
changed sides is said where a release is compared with an earlier one (``changes``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np

from taskgalaxy_ops.hashing import canonical_json, draw, fingerprint
from taskgalaxy_ops.records import ImageId, Reason
from taskgalaxy_ops.release import near_pictures
from taskgalaxy_ops.release.inputs import ReleaseInputs
from taskgalaxy_ops.release.near_pictures import Looks
from taskgalaxy_ops.release.sqlite_staging import SPLITS, split_of
from taskgalaxy_ops.settings import NearDuplicateSettings, ReleaseSettings

_NAME_HEX = 16


def part_near_duplicates(rows: sqlite3.Connection, inputs: ReleaseInputs, settings: ReleaseSettings) -> None:
    """Look for images that look the same among those of samples, and leave out samples or change their splits.

    Makes the table ``alike_groups`` of groups' names by image, of groups of two images at least. Does nothing where
    the settings look for none.
    """
    chosen = settings.near_duplicates
    if chosen is None or inputs.looks is None:
        return
    found = rows.execute(
        "SELECT image FROM pairs WHERE image IS NOT NULL AND reason IS NULL UNION "
        "SELECT f.image FROM further f JOIN pairs USING (pair) WHERE reason IS NULL ORDER BY 1"
    )
    images = [image for (image,) in found]
    looks = inputs.looks(images)._replace(hashes=_hashes(rows, images))
    if chosen.rule == "drop":
        _leave_out(rows, images, looks, chosen)
    else:
        _put_together(rows, images, looks, settings, chosen)


def _hashes(rows: sqlite3.Connection, images: Sequence[ImageId]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The perceptual hashes ``(n, 20)`` of images that are in order of id."""
    known = rows.execute("SELECT image, phash FROM images ORDER BY image")
    wanted = set(images)
    raw = b"".join(phash for image, phash in known if image in wanted)
    return np.frombuffer(raw, np.uint8).reshape(len(images), len(raw) // max(1, len(images)))


def marks(settings: ReleaseSettings) -> bool:
    """Whether rows name the group of images that look the same."""
    return settings.near_duplicates is not None and settings.near_duplicates.rule == "mark"


def group_names(rows: sqlite3.Connection, images: Sequence[ImageId]) -> list[str | None]:
    """The name of each image's group; None: no other image of the release's looks the same."""
    found = {
        image: rows.execute("SELECT name FROM alike_groups WHERE image = ?", (image,)).fetchone() for image in images
    }
    return [name and name[0] for name in (found[image] for image in images)]


def group_lines(rows: sqlite3.Connection) -> Iterator[bytes]:
    """``[image, name of its group]``, in order of image: by it, a release with marks is hashed."""
    return (canonical_json(list(row)) for row in rows.execute("SELECT image, name FROM alike_groups ORDER BY image"))


def told(rows: sqlite3.Connection, chosen: NearDuplicateSettings) -> str:
    """What became of images that look the same, for the card."""
    by_vectors = (
        f", or in {chosen.pdq_bits_alike} with embeddings whose cosine is {chosen.image_cosine} or more"
        if chosen.pdq_bits_alike
        else ""
    )
    by_thumbnails = (
        f", or if their thumbnails correlate by {chosen.thumbnail_correlation} or more"
        if chosen.thumbnail_correlation is not None
        else ""
    )
    same = (
        f"Images look the same where their PDQ differs in {chosen.pdq_bits} of 256 bits at most{by_vectors}"
        f"{by_thumbnails}. Mirrored copies and crops are not found. "
    )
    if chosen.rule == "drop":
        return f"{same}Of those that look the same, one was kept."
    images, groups = rows.execute(
        "SELECT count(*), count(DISTINCT name) FROM alike_groups JOIN pictures USING (image)"
    ).fetchone()
    named = " The column `near_duplicates` of the Parquet files names the group." if chosen.rule == "mark" else ""
    return f"{same}Those that do, {images:,} images in {groups:,} groups, share a split with their group.{named}"


def _leave_out(rows: sqlite3.Connection, images: list[ImageId], looks: Looks, chosen: NearDuplicateSettings) -> None:
    kept = near_pictures.stand_ins(looks, chosen)
    rows.execute("CREATE TABLE looks_like (image TEXT PRIMARY KEY, standing TEXT) WITHOUT ROWID")
    rows.executemany(
        "INSERT INTO looks_like VALUES (?, ?)", ((images[row], images[kept[row]]) for row in np.flatnonzero(kept >= 0))
    )
    rows.execute(
        "UPDATE pairs SET reason = ?, detail = 'looks like ' || standing FROM (SELECT p.pair AS left_out, "
        "min(l.standing) AS standing FROM (SELECT pair, image FROM pairs UNION ALL SELECT pair, image FROM further) p "
        "JOIN looks_like l USING (image) GROUP BY p.pair) WHERE pair = left_out AND reason IS NULL",
        (Reason.NEAR_DUPLICATE_IMAGE,),
    )


def _put_together(
    rows: sqlite3.Connection,
    images: list[ImageId],
    looks: Looks,
    settings: ReleaseSettings,
    chosen: NearDuplicateSettings,
) -> None:
    rows.execute("CREATE TABLE alike_groups (image TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID")
    for members in _members(near_pictures.groups(looks, chosen)):
        group = [images[row] for row in members]
        first = min(group, key=lambda image: (draw("near-duplicates", image), image))
        split = "train" if len(group) > chosen.largest_group else split_of(first, settings)
        rows.executemany("UPDATE images SET split = ? WHERE image = ?", ((SPLITS.index(split), each) for each in group))
        name = fingerprint("near-duplicates", first)[:_NAME_HEX]  # not the image's id, which a take-down erases
        rows.executemany("INSERT INTO alike_groups VALUES (?, ?)", ((each, name) for each in group))


def _members(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The rows of each group of two at least."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return (rows for rows in np.split(order, starts[1:]) if len(rows) > 1)
