"""Erasing images from what a home holds: for a take-down, and for a run that wrote while one happened."""

from __future__ import annotations

import io
from collections.abc import Collection

import pyarrow.parquet as pq

from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.shards import RECORD_STAGES, Shard
from taskgalaxy_ops.workspace import Galaxy

_COLUMNS = ("image", "id")  # where tables name an image


def erase_from_home(galaxy: Galaxy, home: str, gone: Collection[ImageId]) -> int:
    """Erase images from a home's journal, shards and embeddings, and as they were sent by URL.

    Gives how many shards are to be computed again.
    """
    Journal(galaxy.store, home).erase(gone)
    for image in gone:
        for listed in galaxy.store.list(keys.renderings(image)):
            galaxy.store.delete(listed.key)
    dropped = 0
    for shard in galaxy.shards.all(home):
        if shard.stage == "embed":
            galaxy.shards.redact_embeddings(shard, gone)
        elif shard.stage not in RECORD_STAGES and not held_by(galaxy, shard).isdisjoint(gone):
            galaxy.shards.drop(shard)
            dropped += 1
    return dropped


def held_by(galaxy: Galaxy, shard: Shard) -> set[ImageId]:
    """The images that a shard's tables name."""
    found: set[ImageId] = set()
    for ref in galaxy.shards.refs(shard).values():
        found |= ids_in(galaxy.store.get(ref.key))
    return found


def ids_in(raw: bytes, columns: Collection[str] = _COLUMNS) -> set[ImageId]:
    """The images that a Parquet file names in these columns, as far as it has them."""
    file = pq.ParquetFile(io.BytesIO(raw), pre_buffer=False)
    there = [name for name in columns if name in file.schema_arrow.names]
    read = file.read(there, use_threads=False).to_pydict() if there else {}
    return {image for column in read.values() for image in column}
