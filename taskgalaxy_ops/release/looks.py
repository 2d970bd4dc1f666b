"""What is known of how images look, their PDQ, thumbnails and embeddings; and of what questions mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.generation.embed import embeddings_of
from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.release.near_pictures import Looks
from taskgalaxy_ops.release.pdq_table import image_hashes
from taskgalaxy_ops.sources.pdq import BITS, unpacked
from taskgalaxy_ops.sources.thumbnail import LENGTH, shapes_of
from taskgalaxy_ops.workspace import Workspace


def looks_for(workspace: Workspace, progress: Progress | None = None) -> Callable[[Sequence[ImageId]], Looks] | None:
    """What ``release.near_duplicates`` compares of images; None: it is not set."""
    chosen = workspace.settings.release.near_duplicates
    if chosen is None:
        return None
    return partial(
        looks_of,
        workspace,
        vectors=chosen.pdq_bits_alike > 0,
        thumbnails=chosen.thumbnail_correlation is not None,
        progress=progress,
    )


def question_encoder(workspace: Workspace) -> Callable[[Sequence[str]], Vectors] | None:
    """What ``release.repeats.alike`` compares questions by, the store's encoder of texts; None: it is not set."""
    chosen = workspace.settings.release.repeats
    if chosen is None or chosen.alike is None:
        return None
    return lambda texts: workspace.checked_encoder().encode_texts(texts)


def looks_of(
    workspace: Workspace,
    images: Sequence[ImageId],
    *,
    vectors: bool,
    thumbnails: bool,
    progress: Progress | None = None,
) -> Looks:
    """How images of the store look; what the store lacks is made. Raises EncoderError.

    vectors, thumbnails: these, too. Memory: 40 bytes an image, 768 with thumbnails, and its embedding if asked for.
    """
    index = workspace.registry.known()
    place: dict[str, list[int]] = {}  # by image shard, the numbers of its images
    for number, image in enumerate(images):
        if (home := index.get(image)) is not None:
            place.setdefault(home, []).append(number)
    shards = [shard for shard in workspace.registry.shards() if shard.id in place]
    pdq, quality = np.zeros((len(images), BITS // 8), np.uint8), np.zeros(len(images), np.int64)
    shapes = np.zeros((len(images), LENGTH), np.int8) if thumbnails else None
    found: NDArray[np.float32] | None = None
    for shard, hashes in image_hashes(workspace, shards, progress):
        known = [number for number in place[shard.id] if images[number] in hashes]
        pdq[known] = unpacked([hashes[images[number]].pdq for number in known])
        quality[known] = [hashes[images[number]].quality for number in known]
        if shapes is not None:
            shapes[known] = shapes_of(hashes[images[number]].thumbnail for number in known)
        if vectors and known:  # without a hash, an image is not compared
            _, embedded = embeddings_of(workspace, [(shard, [images[number] for number in known])])
            found = np.zeros((len(images), embedded.shape[1]), np.float32) if found is None else found
            found[known] = embedded
    return Looks(pdq, quality, found, shapes)
