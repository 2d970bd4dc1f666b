"""The state of each image shard: the stage outputs that a run would find committed, from keys and listings alone.

Plan, status, explain and forecast start from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops.generation import match_run
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages import ASKING, NAMES
from taskgalaxy_ops.generation.target_run import StoreTargets, store_targets
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage import keys as store_keys
from taskgalaxy_ops.storage.edits import Begun
from taskgalaxy_ops.storage.parquet import embeddings_hash
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import Key, StageOutput, output_of, table
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class ShardState:
    """One image shard: by stage, the wanted keys, and the stage outputs that are committed under them."""

    shard: ImageShard
    committed: Mapping[tuple[str, str], StageOutput]  # all its stage outputs, also of former settings
    dead: Sequence[ImageId]  # images that no source claims, including those that were taken down
    keys: dict[str, Key] = field(default_factory=dict)
    stage_outputs: dict[str, StageOutput] = field(default_factory=dict)

    @property
    def live(self) -> int:
        """The number of images that a live source claims."""
        return self.shard.cut - len(self.dead)

    def place(self, stage: str, key: Key) -> str | None:
        """Set a stage's wanted key, and return the fingerprint of its output if that is committed, else None."""
        self.keys[stage] = key
        stage_output = self.committed.get((stage, key.key)) if key.key else None
        if stage_output is None:
            return None
        self.stage_outputs[stage] = stage_output
        return stage_output.output

    @property
    def settled(self) -> bool:
        """Whether all stages are committed, so that nothing is left to do."""
        return NAMES[-1] in self.stage_outputs

    def former(self, stage: str) -> list[StageOutput]:
        """All committed outputs of a stage, also of former settings."""
        return [stage_output for (each, _), stage_output in self.committed.items() if each == stage]


@dataclass(frozen=True, slots=True)
class StoreState:
    """Some image shards of a workspace, with the task types that they are matched with."""

    shards: Sequence[ShardState]
    types: EmbeddingMatrix
    begun: Begun = field(default_factory=dict)  # edits that are not done
    targets: StoreTargets | None = None  # of the whole store; None: the settings have none

    @property
    def by_shard(self) -> Mapping[str, Mapping[tuple[str, str], StageOutput]]:
        """By image shard's id, its committed stage outputs, in the form that a run takes."""
        return {state.shard.id: state.committed for state in self.shards}

    @property
    def committed(self) -> list[StageOutput]:
        """Every committed stage output of these image shards, also of former settings."""
        return [
            stage_output
            for state in self.shards
            for stage_output in state.committed.values()
            if stage_output.stage in NAMES
        ]


def store_state(
    workspace: Workspace,
    shards: Sequence[ImageShard],
    taxonomy: int | None = None,
    *,
    unclaimed: bool = False,
    types: EmbeddingMatrix | None = None,
) -> StoreState:
    """The state of image shards under the settings and a taxonomy version (None: the newest), or with these ``types``.

    workspace: a snapshot, so that stage outputs of all image shards are listed together. unclaimed: include image
    shards without an image that a live source claims, which a run skips. Encodes task types that have no embedding yet,
    and no image. Raises EncoderError, TaxonomyError.
    """
    keys = StageKeys(workspace)
    types = TaxonomyStore(workspace).embeddings(taxonomy, keep=False) if types is None else types
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = workspace.registry.dead_hashes()
    log = workspace.edits()
    edits, begun = log.counts(), log.begun()
    targets = store_targets(workspace, begun, types=types)
    states = []
    for shard in shards if unclaimed else workspace.registry.with_claims(shards):
        gone = workspace.registry.dead(shard) if shard.id in dead else []
        state = ShardState(shard, workspace.stage_outputs.committed(shard.id), gone)
        output = state.place("embed", keys.embed(shard, dead.get(shard.id)))
        output = state.place("match", keys.match(output, types_hash, dead.get(shard.id)))
        subset = targets.subset(shard.id) if targets else None
        for name in ASKING:
            output = state.place(name, keys.asking(name, output, edits.get((shard.id, name), 0), shard.id, subset))
        states.append(state)
    return StoreState(states, types, begun, targets)


def matched(
    workspace: Workspace, there: StoreState, shards: Sequence[ShardState]
) -> tuple[dict[str, StageOutput], dict[str, list[Match]]]:
    """By image shard's id, the match outputs of the embedded ones, and the rows of those that are not committed."""
    stage_outputs: dict[str, StageOutput] = {}
    computed: dict[str, list[Match]] = {}
    for state in shards:
        shard, key = state.shard.id, state.keys["match"].key
        if "match" in state.stage_outputs:
            stage_outputs[shard] = state.stage_outputs["match"]
        elif key is not None:
            computed[shard] = match_run.match_shard(workspace, state.stage_outputs["embed"], there.types, state.dead)
            stage_outputs[shard] = StageOutput(
                shard, "match", key, output_of({"matches": table(computed[shard], Match)})
            )
    return stage_outputs, computed


def wanted_matches(workspace: Workspace, there: StoreState, one: ShardState) -> list[Match] | None:
    """The matches of an image shard that the filter reads; None: it is not embedded yet."""
    shards, computed = matched(workspace, there, [one])
    shard = one.shard.id
    if shard not in shards:
        return None
    if there.targets is not None:
        return there.targets.rows(shard)
    return list(match_run.match_rows(workspace, shards, computed)[shard])


def has_journal(look: Workspace, shard: str) -> bool:
    """Whether models were asked about an image shard, or a batch about it was submitted. look: a snapshot: no read."""
    return next(iter(look.store.list(f"{store_keys.journal(shard)}/")), None) is not None
