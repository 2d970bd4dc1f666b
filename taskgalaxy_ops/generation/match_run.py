"""The match stage of a run: computes the match shards whose keys do not exist yet (the rule: stages/match.py)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from taskgalaxy_ops.generation.embed import Committed, embed
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage.parquet import embeddings_hash
from taskgalaxy_ops.storage.registry.state import Home
from taskgalaxy_ops.storage.shards import Shard, Stats, table
from taskgalaxy_ops.taxonomy.store import Catalogue
from taskgalaxy_ops.workspace import Galaxy


def match_homes(
    galaxy: Galaxy,
    homes: Sequence[Home],
    committed: Mapping[str, Committed],
    progress: Progress | None = None,
    taxonomy: int | None = None,
) -> dict[str, Shard]:
    """Match shards of these homes against the leaves of a taxonomy version, by default the newest, by home.

    committed: the shards that each home has.
    """
    progress = progress or Silent()
    embedded = embed(galaxy, homes, committed, progress)
    types = Catalogue(galaxy).embeddings(taxonomy)
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = galaxy.registry.dead_hashes()
    stage_keys = StageKeys(galaxy)
    progress.stage("match", len(homes), "shards")
    found: dict[str, Shard] = {}
    for home in homes:
        began = time.monotonic()
        key = stage_keys.match(embedded[home.home].output, types_hash, dead.get(home.home))
        shard = committed[home.home].get(("match", str(key.key)))
        if shard is None:
            gone = galaxy.registry.dead(home) if home.home in dead else []
            rows = match_home(galaxy, embedded[home.home], types, gone)
            stats = Stats(home.images.rows, len(rows), seconds=round(time.monotonic() - began, 3))
            tables = {"matches": table(rows, Match)}
            shard = galaxy.shards.commit(home.home, "match", str(key.key), tables, stats, key.made_of)
        found[home.home] = shard
        progress.advance("match")
    return found


def match_home(galaxy: Galaxy, embedded: Shard, types: EmbeddingMatrix, dead: Collection[ImageId]) -> list[Match]:
    """The matches of a home's images, but for the ``dead`` ones."""
    ids, vectors = galaxy.shards.load_embeddings(embedded)
    gone = set(dead)
    keep = [row for row, image in enumerate(ids) if image not in gone]
    images = EmbeddingMatrix(tuple(ids[row] for row in keep), vectors[keep])
    return list(match(images, types, k=galaxy.settings.match.k))
