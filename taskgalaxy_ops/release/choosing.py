"""The last step of a selection: what is left is chosen, numbered, and given its images' locations."""

from __future__ import annotations

import sqlite3
from functools import partial

from taskgalaxy_ops.release import groups
from taskgalaxy_ops.release.inputs import ReleaseInputs
from taskgalaxy_ops.release.sqlite_staging import location
from taskgalaxy_ops.settings import ReleaseSettings


def choose(rows: sqlite3.Connection, inputs: ReleaseInputs, settings: ReleaseSettings) -> None:
    """Make the tables ``pictures``, in order of image, and ``chosen``, in order of split and pair.

    Images are copied in order of id while they fit into ``copy_images_up_to`` bytes; all others are referred to.
    """
    rows.create_function("location", 3, partial(location, inputs, settings.images), deterministic=True)
    rows.execute(
        "CREATE TABLE pictures AS SELECT *, location(image, format, copied) AS location FROM (SELECT *, sum(held) OVER "
        "(ORDER BY image) <= ? AS copied FROM images WHERE image IN (SELECT image FROM pairs WHERE image IS NOT NULL "
        f"AND reason IS NULL UNION {groups.CHOSEN})) ORDER BY image",
        (settings.copy_images_up_to,),
    )
    rows.execute("CREATE UNIQUE INDEX picture_of ON pictures (image)")
    rows.execute(
        "CREATE TABLE chosen AS SELECT pair, p.rowid AS picture, task_type, variant, question, answer, reasoning, "
        "further_turns, further_images, votes, blind, split FROM pairs JOIN pictures p USING (image) "
        "WHERE reason IS NULL ORDER BY split, pair"
    )
