"""How far each image shard is.

Which shards a run would find, by keys and listings alone. What plan and status start from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops.generation import match_run
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages import ASKING, NAMES
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage.edits import Begun
from taskgalaxy_ops.storage.parquet import embeddings_hash
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, StageOutput, output_of, table
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class ShardState:
    """One image shard.

    The shards that stand, and the keys that are wanted, by stage; None where neither is known yet.
    """

    shard: ImageShard
    committed: Mapping[tuple[str, str], StageOutput]  # all of it, of former settings too
    dead: Sequence[ImageId]  # images that no source claims, those that were taken down included
    keys: dict[str, Key] = field(default_factory=dict)
    stage_outputs: dict[str, StageOutput] = field(default_factory=dict)

    @property
    def live(self) -> int:
        """Images that count."""
        return self.shard.cut - len(self.dead)

    def place(self, stage: str, key: Key) -> str | None:
        """Note the key that is wanted of a stage; the output of its shard if that stands."""
        self.keys[stage] = key
        stage_output = self.committed.get((stage, key.key)) if key.key else None
        if stage_output is None:
            return None
        self.stage_outputs[stage] = stage_output
        return stage_output.output

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return NAMES[-1] in self.stage_outputs

    def former(self, stage: str) -> list[StageOutput]:
        """Committed shards of a stage, whatever they were made of."""
        return [stage_output for (each, _), stage_output in self.committed.items() if each == stage]


@dataclass(frozen=True, slots=True)
class StoreState:
    """Some image shards of a workspace, with the task types that they are matched with."""

    shards: Sequence[ShardState]
    types: EmbeddingMatrix
    begun: Begun = field(default_factory=dict)  # edits that are not done

    @property
    def by_shard(self) -> Mapping[str, Mapping[tuple[str, str], StageOutput]]:
        """Each image shard's committed shards, as a run takes them."""
        return {one.shard.id: one.committed for one in self.shards}

    @property
    def committed(self) -> list[StageOutput]:
        """Every shard of these image shards' stages, of former settings too."""
        return [
            stage_output
            for one in self.shards
            for stage_output in one.committed.values()
            if stage_output.stage in NAMES
        ]


def store_state(
    workspace: Workspace, shards: Sequence[ImageShard], taxonomy: int | None = None, *, unclaimed: bool = False
) -> StoreState:
    """Follow each image shard's stages as far as shards stand. Encodes task types that have no embedding yet, no image.

    unclaimed: also of image shards that no live source claims an image of, which a run would not look at. workspace: a
    snapshot, so that image shards are listed together. Raises EncoderError, TaxonomyError.
    """
    keys = StageKeys(workspace)
    types = TaxonomyStore(workspace).embeddings(taxonomy, keep=False)
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = workspace.registry.dead_hashes()
    log = workspace.edits()
    edits = log.counts()
    found = []
    for shard in shards if unclaimed else workspace.registry.with_claims(shards):
        gone = workspace.registry.dead(shard) if shard.id in dead else []
        one = ShardState(shard, workspace.stage_outputs.committed(shard.id), gone)
        output = one.place("embed", keys.embed(shard))
        output = one.place("match", keys.match(output, types_hash, dead.get(shard.id)))
        for name in ASKING:
            output = one.place(name, keys.asking(name, output, edits.get((shard.id, name), 0)))
        found.append(one)
    return StoreState(found, types, log.begun())


def matched(
    workspace: Workspace, there: StoreState, shards: Sequence[ShardState]
) -> tuple[dict[str, StageOutput], dict[str, list[Match]]]:
    """The match shards of these image shards, as far as they are embedded, by image shard.

    And the rows of those not committed.
    """
    stage_outputs: dict[str, StageOutput] = {}
    computed: dict[str, list[Match]] = {}
    for one in shards:
        shard, key = one.shard.id, one.keys["match"].key
        if "match" in one.stage_outputs:
            stage_outputs[shard] = one.stage_outputs["match"]
        elif key is not None:
            computed[shard] = match_run.match_shard(workspace, one.stage_outputs["embed"], there.types, one.dead)
            stage_outputs[shard] = StageOutput(
                shard, "match", key, output_of({"matches": table(computed[shard], Match)})
            )
    return stage_outputs, computed
