"""The match stage of a run: compute the match outputs that are not committed yet (the rule: stages/match.py)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from taskgalaxy_ops.generation.calibrate import ensure_calibrated
from taskgalaxy_ops.generation.embed import Committed, Unread, embed, encoded, hand_over
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.generation.starving import handicaps
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage.parquet import embeddings_hash
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput, Stats, embedding_table, output_of, table
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def match_shards(
    workspace: Workspace,
    shards: Sequence[ImageShard],
    committed: Mapping[str, Committed],
    progress: Progress | None = None,
    taxonomy: int | None = None,
    unread: Unread | None = None,
) -> dict[str, StageOutput]:
    """By image shard's id, the matches with the leaves of a taxonomy version (None: the newest).

    committed: each image shard's stage outputs. unread: gets why image shards have no matches, by id: originals that
    cannot be read; None: OriginError is raised once all others have theirs.
    """
    progress = progress or Silent()
    failed: Unread = {}
    taxonomy_store = TaxonomyStore(workspace)
    ensure_calibrated(workspace, shards)  # the embeddings of task types, too, belong to the encoder that this makes
    with ThreadPoolExecutor(1, "task types") as aside:  # some 0.5 s for 20,000 of them
        known = aside.submit(taxonomy_store.known, taxonomy)
        embedded = embed(workspace, shards, committed, progress, failed)
    shards = [shard for shard in shards if shard.id in embedded]
    types = taxonomy_store.complete(known.result())
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = workspace.registry.dead_hashes()
    stage_keys = StageKeys(workspace)
    made_of = {
        shard.id: stage_keys.match(embedded[shard.id].output, types_hash, dead.get(shard.id)) for shard in shards
    }
    outputs = {
        shard: there for shard, key in made_of.items() if (there := committed[shard].get(("match", str(key.key))))
    }
    missing = [shard for shard in shards if shard.id not in outputs]
    progress.stage("match", len(missing), "shards")
    for shard in missing:
        began, key = time.monotonic(), made_of[shard.id]
        gone = workspace.registry.dead(shard) if shard.id in dead else []
        rows = match_shard(workspace, embedded[shard.id], types, gone)
        stats = Stats(shard.images.rows, len(rows), seconds=round(time.monotonic() - began, 3))
        tables = {"matches": table(rows, Match)}
        outputs[shard.id] = workspace.stage_outputs.commit(shard.id, "match", str(key.key), tables, stats, key.made_of)
        progress.advance("match")
    hand_over(failed, unread)
    return {shard.id: outputs[shard.id] for shard in shards}


def computed_matches(
    look: Workspace,
    shards: Sequence[ImageShard],
    committed: Mapping[str, Committed],
    types: EmbeddingMatrix,
    progress: Progress | None = None,
    *,
    encode: bool = True,
) -> tuple[dict[str, StageOutput], dict[str, list[Match]]]:
    """The match shards that a run would leave, by image shard, and the rows of those that are not committed.

    types: the task types' embeddings. Writes nothing: what has no embedding yet is encoded for this alone, or left out
    where ``encode`` is False.
    """
    progress = progress or Silent()
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = look.registry.dead_hashes()
    stage_keys = StageKeys(look)
    progress.stage("match", len(shards), "shards")
    found: dict[str, StageOutput] = {}
    computed: dict[str, list[Match]] = {}
    for shard in shards:
        embedded = committed[shard.id].get(("embed", str(stage_keys.embed(shard, dead.get(shard.id)).key)))
        if embedded is None and not encode:
            progress.advance("match")
            continue
        if embedded is None:
            images = encoded(look, shard, committed[shard.id])
            output = output_of({"embeddings": embedding_table(images.ids, images.vectors)})
        else:
            output = embedded.output
        key = str(stage_keys.match(output, types_hash, dead.get(shard.id)).key)
        stage_output = committed[shard.id].get(("match", key))
        if stage_output is None:
            if embedded is not None:
                images = _loaded(look, embedded)
            gone = look.registry.dead(shard) if shard.id in dead else []
            computed[shard.id] = nearest(look, images, types, gone)
            tables = {"matches": table(computed[shard.id], Match)}
            stage_output = StageOutput(shard.id, "match", key, output_of(tables))
        found[shard.id] = stage_output
        progress.advance("match")
    return found, computed


def match_rows(
    look: Workspace, outputs: Mapping[str, StageOutput], computed: Mapping[str, Sequence[Match]]
) -> dict[str, Sequence[Match]]:
    """By image shard, the rows of its match output. computed: those that are not committed."""
    return {
        shard: computed[shard] if shard in computed else look.stage_outputs.load(output, "matches", Match)
        for shard, output in outputs.items()
    }


def match_shard(
    workspace: Workspace, embedded: StageOutput, types: EmbeddingMatrix, dead: Collection[ImageId]
) -> list[Match]:
    """The matches of an image shard's images. embedded: its embeddings. dead: images that are left out."""
    return nearest(workspace, _loaded(workspace, embedded), types, dead)


def _loaded(workspace: Workspace, embedded: StageOutput) -> EmbeddingMatrix:
    ids, vectors = workspace.stage_outputs.load_embeddings(embedded)
    return EmbeddingMatrix(tuple(ids), vectors)


def nearest(
    workspace: Workspace, images: EmbeddingMatrix, types: EmbeddingMatrix, dead: Collection[ImageId] = ()
) -> list[Match]:
    """The matches of images under the settings. dead: images that are left out."""
    gone = set(dead)
    keep = [row for row, image in enumerate(images.ids) if image not in gone]
    images = EmbeddingMatrix(tuple(images.ids[row] for row in keep), images.vectors[keep])
    chosen = workspace.settings.match
    return list(
        match(
            images,
            types,
            k=chosen.k,
            least=chosen.min_similarity,
            per_branch=chosen.per_branch,
            handicaps=handicaps(workspace),
        )
    )
