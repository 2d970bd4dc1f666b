"""Erase images from an image shard's data: for a take-down, and for a run that wrote while one happened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from taskgalaxy_ops.records import ImageId, images_in
from taskgalaxy_ops.storage import keys, parquet
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.shards import RECORD_STAGES, StageOutput
from taskgalaxy_ops.workspace import Workspace

# Where tables name an image; of several in one row, by ``records.images_as_text`` or as a list.
_COLUMNS = ("image", "id", "further_images")


def erase_from_shard(workspace: Workspace, shard: str, gone: Collection[ImageId]) -> int:
    """Erase images from an image shard's journal, stage outputs and embeddings, and delete renderings sent by URL.

    Returns the number of stage outputs that are dropped, and computed again when they are needed.
    """
    Journal(workspace.store, shard).erase(gone)
    for image in gone:
        for listed in workspace.store.list(keys.renderings(image)):
            workspace.store.delete(listed.key)
    dropped = 0
    for stage_output in workspace.stage_outputs.all(shard):
        if stage_output.stage == "embed":
            workspace.stage_outputs.redact_embeddings(stage_output, gone)
        elif stage_output.stage not in RECORD_STAGES and not held_by(workspace, stage_output).isdisjoint(gone):
            workspace.stage_outputs.drop(stage_output)
            dropped += 1
    return dropped


def held_by(workspace: Workspace, stage_output: StageOutput) -> set[ImageId]:
    """The images that a stage output's tables name."""
    images: set[ImageId] = set()
    for ref in workspace.stage_outputs.refs(stage_output).values():
        images |= ids_in(workspace.store.get(ref.key))
    return images


def ids_in(raw: bytes, columns: Collection[str] = _COLUMNS) -> set[ImageId]:
    """The images that a Parquet file names in these columns; columns that it lacks are ignored. Raises DamageError."""
    found = parquet.columns(raw, columns, missing_too=True)
    return {image for column in found.columns for named in column.to_pylist() for image in _named(named)}


def _named(value: Any) -> Sequence[ImageId]:
    if isinstance(value, list):
        return value
    return images_in(value) if value is None or value.startswith("[") else (value,)
