"""The embed stage of a run: encode the images of image shards that have no embeddings yet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, StageOutput, Stats, embedding_table
from taskgalaxy_ops.workspace import Workspace

_ENCODE_BATCH = 64  # decoded images in memory at a time


Committed = Mapping[tuple[str, str], StageOutput]  # by stage and key, as StageOutputs.committed lists them


def embed(
    workspace: Workspace,
    shards: Sequence[ImageShard],
    committed: Mapping[str, Committed],
    progress: Progress | None = None,
) -> dict[str, StageOutput]:
    """The embeddings of these image shards, by image shard's id; encodes those that have none. Raises EncoderError.

    committed: each image shard's stage outputs.
    """
    progress = progress or Silent()
    stage_keys = StageKeys(workspace)
    made_of = {shard.id: stage_keys.embed(shard) for shard in shards}
    outputs = {
        shard: there for shard, key in made_of.items() if (there := committed[shard].get(("embed", str(key.key))))
    }
    missing = [shard for shard in shards if shard.id not in outputs]
    progress.stage("embed", len(missing), "shards")
    for shard in missing:
        outputs[shard.id] = _embed_shard(workspace, shard, made_of[shard.id])
        progress.advance("embed")
    return {shard.id: outputs[shard.id] for shard in shards}


def _embed_shard(workspace: Workspace, shard: ImageShard, key: Key) -> StageOutput:
    began = time.monotonic()
    ids, vectors = encoded(workspace, shard)
    content = embedding_table(ids, vectors)
    stats = Stats(len(ids), len(ids), seconds=round(time.monotonic() - began, 3))
    return workspace.stage_outputs.commit(shard.id, "embed", str(key.key), {"embeddings": content}, stats, key.made_of)


def encoded(workspace: Workspace, shard: ImageShard) -> tuple[list[ImageId], Vectors]:
    """Ids and vectors ``(n, d)`` of an image shard's images; none where all were taken down. Raises EncoderError."""
    encoder = workspace.checked_encoder()
    # Images that were taken down: their files may be deleted before the shard's table of images is rewritten.
    denied = workspace.registry.denied()
    ids = [image for image in workspace.registry.image_ids(shard) if image not in denied]
    parts = []
    for at in range(0, len(ids), _ENCODE_BATCH):
        batch = ids[at : at + _ENCODE_BATCH]
        parts.append(encoder.encode_images([upright(workspace.store.get(keys.blob(image))) for image in batch]))
    return ids, np.concatenate(parts) if parts else np.empty((0, encoder.dim), np.float32)
