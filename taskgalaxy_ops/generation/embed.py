"""The embed stage of a run: encode the images of image shards that have no embeddings yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from taskgalaxy_ops.errors import OriginError
from taskgalaxy_ops.generation.calibrate import ensure_calibrated
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.inference.canary import canary_picture
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix, Vectors
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput, Stats, embedding_table, short
from taskgalaxy_ops.workspace import Workspace

Committed = Mapping[tuple[str, str], StageOutput]  # by stage and key, as StageOutputs.committed lists them


Unread = dict[str, OriginError]  # by image shard's id, why it has no output: an original that cannot be read


def embed(
    workspace: Workspace,
    shards: Sequence[ImageShard],
    committed: Mapping[str, Committed],
    progress: Progress | None = None,
    unread: Unread | None = None,
) -> dict[str, StageOutput]:
    """The embeddings of these image shards, by image shard's id; encodes those that have none. Raises EncoderError.

    committed: each image shard's stage outputs. unread: gets the image shards that are left out because an original
    cannot be read; None: OriginError is raised once all others have their embeddings.
    """
    progress = progress or Silent()
    ensure_calibrated(workspace, shards)
    stage_keys, dead = StageKeys(workspace), workspace.registry.dead_hashes()
    made_of = {shard.id: stage_keys.embed(shard, dead.get(shard.id)) for shard in shards}
    there = {shard: committed[shard].get(("embed", str(key.key))) for shard, key in made_of.items()}
    outputs = {shard: output for shard, output in there.items() if output is not None}
    missing = [shard for shard in shards if shard.id not in outputs]
    failed: Unread = {}
    progress.stage("embed", len(missing), "shards")
    began = time.monotonic()
    for shard, images in _encoded(workspace, missing, committed):
        progress.advance("embed")
        if isinstance(images, OriginError):
            failed[shard.id] = images
            continue
        key, count = made_of[shard.id], len(images.ids)
        stats = Stats(count, count, seconds=round(time.monotonic() - began, 3))
        tables = {"embeddings": embedding_table(images.ids, images.vectors)}
        outputs[shard.id] = workspace.stage_outputs.commit(shard.id, "embed", str(key.key), tables, stats, key.made_of)
        began = time.monotonic()
    hand_over(failed, unread)
    return {shard.id: outputs[shard.id] for shard in shards if shard.id in outputs}


def hand_over(failed: Unread, unread: Unread | None) -> None:
    """Add what failed to what the caller gets of it; where it gets nothing (None), raise the first."""
    if unread is not None:
        unread.update(failed)
    elif failed:
        raise next(iter(failed.values()))


def encoded(workspace: Workspace, shard: ImageShard, committed: Committed) -> EmbeddingMatrix:
    """The embeddings of an image shard's images; none where all were taken down. Raises EncoderError, OriginError."""
    [(_, images)] = _encoded(workspace, [shard], {shard.id: committed})
    if isinstance(images, OriginError):
        raise images
    return images


def embeddings_of(
    workspace: Workspace, images: Sequence[tuple[ImageShard, Sequence[ImageId]]]
) -> tuple[list[ImageId], Vectors]:
    """Ids and vectors ``(n, d)`` of some live images of each image shard, in the order given. Writes nothing.

    What the store has is read; what it does not have is encoded for this alone. Raises EncoderError.
    """
    stage_keys, found = StageKeys(workspace), dict[ImageId, Vectors]()
    dead = workspace.registry.dead_hashes()
    for shard, ids in images:
        key = str(stage_keys.embed(shard, dead.get(shard.id)).key)
        output = workspace.stage_outputs.committed(shard.id).get(("embed", key))
        if output is not None:
            wanted = set(ids)
            kept = zip(*workspace.stage_outputs.load_embeddings(output), strict=True)
            found.update((image, vector) for image, vector in kept if image in wanted)
    ordered = [image for _, ids in images for image in ids]
    if missing := [image for image in ordered if image not in found]:
        for batch, vectors in encode_files(workspace.checked_encoder(), missing, partial(read_image, workspace)):
            found.update(zip(batch, vectors, strict=True))
    return ordered, np.stack([found[image] for image in ordered])


@dataclass(slots=True)
class _Begun:
    """An image shard whose images are being encoded: all of them, and the vectors that it has already."""

    shard: ImageShard
    ids: list[ImageId]
    vectors: dict[ImageId, Vectors]
    unread: OriginError | None = None

    @property
    def whole(self) -> bool:
        return len(self.vectors) == len(self.ids)


def _encoded(
    workspace: Workspace, shards: Sequence[ImageShard], committed: Mapping[str, Committed]
) -> Iterator[tuple[ImageShard, EmbeddingMatrix | OriginError]]:
    """The embeddings of image shards, in the order given, or why an image of one cannot be read.

    One stream encodes them all, so that the images of the next are read while one is encoded, and batches are full.
    """
    if not shards:
        return
    encoder = workspace.checked_encoder()
    begun: deque[_Begun] = deque()

    def images() -> Iterator[tuple[_Begun, ImageId]]:
        for shard in shards:
            ids = _encodable(workspace, shard)
            known = _known_vectors(workspace, committed[shard.id]) if shard.referred else {}
            begun.append(_Begun(shard, ids, {image: known[image] for image in ids if image in known}))
            yield from ((begun[-1], image) for image in ids if image not in known)

    def read(item: tuple[_Begun, ImageId]) -> bytes:
        of, image = item
        try:
            return read_image(workspace, image, of.shard.id)
        except OriginError as error:
            of.unread = of.unread or error
            return canary_picture()  # keeps the place of what cannot be read; its vector is not kept

    def ended() -> Iterator[tuple[ImageShard, EmbeddingMatrix | OriginError]]:
        while begun and begun[0].whole:
            done = begun.popleft()
            vectors = np.stack([done.vectors[image] for image in done.ids]) if done.ids else empty
            yield done.shard, done.unread or EmbeddingMatrix(tuple(done.ids), vectors)

    empty = np.empty((0, encoder.dim), np.float32)
    for batch, vectors in encode_files(encoder, images(), read):
        for (of, image), vector in zip(batch, vectors, strict=True):
            of.vectors[image] = vector
        yield from ended()
    yield from ended()


def _encodable(workspace: Workspace, shard: ImageShard) -> list[ImageId]:
    """An image shard's images that have a file to encode."""
    # Images that were taken down: their files may be deleted before the shard's table of images is rewritten.
    out = workspace.registry.denied()
    if shard.referred:  # the original of an image that no source claims may be gone
        out = out.union(workspace.registry.dead(shard))
    return [image for image in workspace.registry.image_ids(shard) if image not in out]


def _known_vectors(workspace: Workspace, committed: Committed) -> dict[ImageId, Vectors]:
    """What was encoded when other images of the shard were claimed: an image is encoded once."""
    found: dict[ImageId, Vectors] = {}
    encoder = short(workspace.encoder_id)
    for (stage, _), output in sorted(committed.items()):
        if stage == "embed" and workspace.stage_outputs.marker(output).get("made_of", {}).get("encoder") == encoder:
            found |= zip(*workspace.stage_outputs.load_embeddings(output), strict=True)
    return found
