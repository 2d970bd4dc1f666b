"""The embed stage of a run: encodes the image shards that have no embeddings yet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.registry.state import Home
from taskgalaxy_ops.storage.shards import Key, Shard, Stats, embedding_table
from taskgalaxy_ops.workspace import Galaxy

_ENCODE_BATCH = 64  # decoded images in memory at a time


Committed = Mapping[tuple[str, str], Shard]  # by stage and key, as Shards.committed lists them


def embed(
    galaxy: Galaxy, homes: Sequence[Home], committed: Mapping[str, Committed], progress: Progress | None = None
) -> dict[str, Shard]:
    """Embedding shards of these homes, by home; encodes what has none. Raises EncoderError.

    committed: the shards that each home has.
    """
    progress = progress or Silent()
    progress.stage("embed", len(homes), "shards")
    found: dict[str, Shard] = {}
    stage_keys = StageKeys(galaxy)
    for home in homes:
        key = stage_keys.embed(home)
        shard = committed[home.home].get(("embed", str(key.key)))
        if shard is None:
            shard = _embed_home(galaxy, home, key)
        found[home.home] = shard
        progress.advance("embed")
    return found


def _embed_home(galaxy: Galaxy, home: Home, key: Key) -> Shard:
    encoder, began = galaxy.checked_encoder(), time.monotonic()
    denied = galaxy.registry.denied()  # their files are gone, perhaps before the table of images is written again
    ids = [image for image in galaxy.registry.image_ids(home) if image not in denied]
    parts = []
    for at in range(0, len(ids), _ENCODE_BATCH):
        batch = ids[at : at + _ENCODE_BATCH]
        parts.append(encoder.encode_images([upright(galaxy.store.get(keys.blob(image))) for image in batch]))
    content = embedding_table(ids, np.concatenate(parts))
    stats = Stats(len(ids), len(ids), seconds=round(time.monotonic() - began, 3))
    return galaxy.shards.commit(home.home, "embed", str(key.key), {"embeddings": content}, stats, key.made_of)
