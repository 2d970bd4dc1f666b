"""The rows of a published release, staged again, so that every format can be made of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.records import ImageId, images_as_text, turns_as_text
from taskgalaxy_ops.release.published_rows import opened
from taskgalaxy_ops.release.sqlite_staging import SPLITS
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.base import Store

# Columns that every release has, then those that some have. Of images the paths alone, since their bytes are large.
_COLUMNS = ("id", "image.path", "image_id", "task_type", "variant", "question", "answer", "reasoning", "votes")
_CLAIMS = {"sources": "source", "origins": "origin", "licences": "licence", "attributions": "attribution"}
_LATER = ("further_turns", "context", "further_images.list.element.path", "further_image_ids")


@dataclass(frozen=True, slots=True)
class Staged:
    """What was staged beside the rows. context: the fields of the rows' context."""

    samples: int
    context: tuple[str, ...]


def restage(rows: sqlite3.Connection, store: Store, version: int) -> Staged:
    """Insert a release's samples and images into an empty database, as if they were to be released.

    Beside the tables of ``sqlite_staging``, ``placed`` has each image's location in the release. Raises DamageError
    where a file cannot be read.
    """
    rows.execute("CREATE TABLE placed (image TEXT PRIMARY KEY, location TEXT) WITHOUT ROWID")
    rows.execute("CREATE UNIQUE INDEX image_once ON images (image)")
    samples = 0
    context: tuple[str, ...] = ()
    for split, batch in _batches(store, version):
        if "context" in batch.schema.names:
            context = tuple(field.name for field in batch.schema.field("context").type)
        for row in batch.to_pylist():
            _insert(rows, row, SPLITS.index(split))
            samples += 1
    return Staged(samples, context)


def _batches(store: Store, version: int) -> Iterator[tuple[str, pa.RecordBatch]]:
    try:
        for listed in store.list(f"{keys.release(version)}data/"):
            file = opened(store, listed)
            there = {file.schema.column(number).path for number in range(len(file.schema))}
            names = [name for name in (*_COLUMNS, *_CLAIMS, *_LATER) if any(_begins(path, name) for path in there)]
            split = listed.key.rpartition("/")[2].rsplit("-", 3)[0]
            for batch in file.iter_batches(columns=names, use_threads=False):
                yield split, batch
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamageError(f"a release cannot be read ({error}). Run `taskgalaxy verify`.") from error


def _begins(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _insert(rows: sqlite3.Connection, row: Mapping[str, Any], split: int) -> None:
    further = row.get("further_image_ids") or ()
    turns = [(turn["question"], turn["answer"]) for turn in row.get("further_turns") or ()]
    votes = [{name: value for name, value in vote.items() if value is not None} for vote in row["votes"]]
    rows.execute(
        "INSERT INTO pairs (pair, votes, image, task_type, variant, question, answer, reasoning, further_turns, "
        "further_images) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row["id"],
            _json(votes) if votes else None,
            *(row[name] for name in ("image_id", "task_type", "variant", "question", "answer", "reasoning")),
            turns_as_text(turns),
            images_as_text(further),
        ),
    )
    rows.executemany("INSERT INTO further VALUES (?, ?, ?)", ((row["id"], *each) for each in enumerate(further, 1)))
    stated = {name: value for name, value in (row.get("context") or {}).items() if value is not None}
    # Of a sample about several images the claims on all of them are in one list: those on each are not told apart.
    claims = "[]" if further else _json(_claims(row))
    _insert_image(rows, row["image_id"], row["image"]["path"], split, claims, _json(stated) if stated else None)
    for image, at in zip(further, row.get("further_images") or (), strict=True):
        _insert_image(rows, image, at["path"], split, "[]", None)


def _insert_image(
    rows: sqlite3.Connection, image: ImageId, location: str, split: int, claims: str, context: str | None
) -> None:
    rows.execute(
        "INSERT INTO images (image, format, claims, context, split, wanted, held) VALUES (?, 'bin', ?, ?, ?, 1, 0) "
        "ON CONFLICT (image) DO UPDATE SET claims = max(claims, excluded.claims), "
        "context = coalesce(context, excluded.context)",
        (image, claims, context, split),
    )
    rows.execute("INSERT OR IGNORE INTO placed VALUES (?, ?)", (image, location))


def _claims(row: Mapping[str, Any]) -> list[dict[str, str]]:
    said: Sequence[tuple[str | None, ...]] = list(zip(*(row[column] for column in _CLAIMS), strict=True))
    return [
        {name: value for name, value in zip(_CLAIMS.values(), values, strict=True) if value is not None}
        for values in said
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
