"""The groups of an image shard of a store (the rule: groups.py)."""

from __future__ import annotations

from functools import partial

import numpy as np

from taskgalaxy_ops.generation.groups import Groups, groups, pages_of
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace


def store_groups(workspace: Workspace, shard: ImageShard, embedded: str) -> Groups:
    """The groups of an image shard's live images. Writes nothing.

    embedded: the key of its embeddings; where the store lacks them, the images are encoded for this alone. Raises
    EncoderError and OriginError then.
    """
    dead = set(workspace.registry.dead(shard))
    images = workspace.stage_outputs.columns(shard.images, Image)
    hashes = dict(zip(images["image"].to_pylist(), images["phash"].to_pylist(), strict=True))
    ids = sorted(hashes.keys() - dead)
    if len(ids) < 2:
        return {}
    output = workspace.stage_outputs.committed(shard.id).get(("embed", embedded))
    known = dict(zip(*workspace.stage_outputs.load_embeddings(output), strict=True)) if output else {}
    if missing := [image for image in ids if image not in known]:
        for batch, vectors in encode_files(workspace.checked_encoder(), missing, partial(read_image, workspace)):
            known.update(zip(batch, vectors, strict=True))
    pages = pages_of(workspace.registry.claims_of(shard.id))
    return groups(ids, np.stack([known[image] for image in ids]), hashes, pages)
