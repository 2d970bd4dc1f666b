"""The embed stage of a run: encode the images of image shards that have no embeddings yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from taskgalaxy_ops.generation.calibrate import ensure_calibrated
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput, Stats, embedding_table
from taskgalaxy_ops.workspace import Workspace

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
    ensure_calibrated(workspace, shards)
    stage_keys = StageKeys(workspace)
    made_of = {shard.id: stage_keys.embed(shard) for shard in shards}
    outputs = {
        shard: there for shard, key in made_of.items() if (there := committed[shard].get(("embed", str(key.key))))
    }
    missing = [shard for shard in shards if shard.id not in outputs]
    progress.stage("embed", len(missing), "shards")
    began = time.monotonic()
    for shard, ids, vectors in _encoded(workspace, missing):
        key, stats = made_of[shard.id], Stats(len(ids), len(ids), seconds=round(time.monotonic() - began, 3))
        tables = {"embeddings": embedding_table(ids, vectors)}
        outputs[shard.id] = workspace.stage_outputs.commit(shard.id, "embed", str(key.key), tables, stats, key.made_of)
        progress.advance("embed")
        began = time.monotonic()
    return {shard.id: outputs[shard.id] for shard in shards}


def encoded(workspace: Workspace, shard: ImageShard) -> tuple[list[ImageId], Vectors]:
    """Ids and vectors ``(n, d)`` of an image shard's images; none where all were taken down. Raises EncoderError."""
    [(_, ids, vectors)] = _encoded(workspace, [shard])
    return ids, vectors


def embeddings_of(
    workspace: Workspace, images: Sequence[tuple[ImageShard, Sequence[ImageId]]]
) -> tuple[list[ImageId], Vectors]:
    """Ids and vectors ``(n, d)`` of some live images of each image shard, in the order given. Writes nothing.

    What the store has is read; what it does not have is encoded for this alone. Raises EncoderError.
    """
    stage_keys, found = StageKeys(workspace), dict[ImageId, Vectors]()
    for shard, ids in images:
        output = workspace.stage_outputs.committed(shard.id).get(("embed", str(stage_keys.embed(shard).key)))
        if output is not None:
            wanted = set(ids)
            kept = zip(*workspace.stage_outputs.load_embeddings(output), strict=True)
            found.update((image, vector) for image, vector in kept if image in wanted)
    ordered = [image for _, ids in images for image in ids]
    if missing := [image for image in ordered if image not in found]:
        read = _reader(workspace)
        for batch, vectors in encode_files(workspace.checked_encoder(), missing, read):
            found.update(zip(batch, vectors, strict=True))
    return ordered, np.stack([found[image] for image in ordered])


def _reader(workspace: Workspace) -> Callable[[ImageId], bytes]:
    return lambda image: workspace.store.get(keys.blob(image))


def _encoded(workspace: Workspace, shards: Sequence[ImageShard]) -> Iterator[tuple[ImageShard, list[ImageId], Vectors]]:
    """Image shards with ids and vectors of their images, in the order given.

    One stream encodes them all, so that the images of the next are read while one is encoded, and batches are full.
    """
    if not shards:
        return
    encoder = workspace.checked_encoder()
    begun: deque[tuple[ImageShard, list[ImageId]]] = deque()

    def images() -> Iterator[ImageId]:
        for shard in shards:
            # Images that were taken down: their files may be deleted before the shard's table of images is rewritten.
            denied = workspace.registry.denied()
            ids = [image for image in workspace.registry.image_ids(shard) if image not in denied]
            begun.append((shard, ids))
            yield from ids

    waiting = np.empty((0, encoder.dim), np.float32)
    for _, vectors in encode_files(encoder, images(), _reader(workspace)):
        waiting = np.concatenate([waiting, vectors])
        while begun and len(begun[0][1]) <= len(waiting):
            shard, ids = begun.popleft()
            yield shard, ids, waiting[: len(ids)]
            waiting = waiting[len(ids) :]
    for shard, ids in begun:
        yield shard, ids, waiting
