"""The groups of a store's image shards (the rule: groups.py), kept in caches: keys of stage outputs hang on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.generation.groups import VERSION, Groups, groups, pages_of
from taskgalaxy_ops.hashing import canonical_json, fingerprint
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.marker_index import keep
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace


class StoreGroups:
    """Makes the groups of image shards as the registry has them when it is first asked for some."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @cached_property
    def _live(self) -> Mapping[str, Sequence[str]]:
        return _live_by_shard(self._workspace)

    def of(self, shard: ImageShard, embedded: str) -> Groups:
        """The groups of an image shard's live images. Writes nothing but a cache.

        embedded: the key of its embeddings; where the store lacks them, the images are encoded for this alone. Raises
        EncoderError and OriginError.
        """
        store, live = self._workspace.store, self._live.get(shard.id, ())
        made_of = {"rule": VERSION, "embedded": embedded, "images": shard.images.rows_hash, "live": live}
        key = keys.cache(f"groups-{fingerprint('groups', made_of)[:32]}.json")
        try:
            return {image: tuple(others) for image, others in json.loads(store.get(key)).items()}
        except (NotFoundError, ValueError):
            found = _groups(self._workspace, shard, embedded)
            if _live_by_shard(self._workspace).get(shard.id, ()) == live:  # else it may be of a later state
                keep(store, key, canonical_json(found))
            return found


def _live_by_shard(workspace: Workspace) -> dict[str, list[str]]:
    """By image shard, what decides which of its images are live: the hashes of its claims, and ids taken down."""
    found: dict[str, list[str]] = {}
    for part in workspace.registry.claim_parts():
        found.setdefault(part.home, []).append(part.rows_hash)
    gone = workspace.registry.taken_down()
    return {shard: sorted([*hashes, *gone.get(shard, ())]) for shard, hashes in found.items()}


def _groups(workspace: Workspace, shard: ImageShard, embedded: str) -> Groups:
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
