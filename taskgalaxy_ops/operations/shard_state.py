"""How far each home is: which shards a run would find, by keys and listings alone. What plan and status start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops.generation import match_run
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages import STAGES
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.records import ImageId, Match
from taskgalaxy_ops.storage.parquet import embeddings_hash
from taskgalaxy_ops.storage.registry.state import Home
from taskgalaxy_ops.storage.shards import Key, Shard, output_of, table
from taskgalaxy_ops.taxonomy.store import Catalogue
from taskgalaxy_ops.workspace import Galaxy


@dataclass(slots=True)
class Standing:
    """One home: the shards that stand, and the keys that are wanted, by stage; None where neither is known yet."""

    home: Home
    committed: Mapping[tuple[str, str], Shard]  # all of it, of former settings too
    dead: Sequence[ImageId]  # images that no source claims, those that were taken down included
    keys: dict[str, Key] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)

    @property
    def live(self) -> int:
        """Images that count."""
        return self.home.cut - len(self.dead)

    def place(self, stage: str, key: Key) -> str | None:
        """Note the key that is wanted of a stage; the output of its shard if that stands."""
        self.keys[stage] = key
        shard = self.committed.get((stage, key.key)) if key.key else None
        if shard is None:
            return None
        self.shards[stage] = shard
        return shard.output

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return STAGES[-1] in self.shards

    def former(self, stage: str) -> list[Shard]:
        """Committed shards of a stage, whatever they were made of."""
        return [shard for (each, _), shard in self.committed.items() if each == stage]


@dataclass(frozen=True, slots=True)
class Stand:
    """Some homes of a galaxy, with the task types that they are matched with."""

    homes: Sequence[Standing]
    types: EmbeddingMatrix

    @property
    def by_home(self) -> Mapping[str, Mapping[tuple[str, str], Shard]]:
        """Each home's committed shards, as a run takes them."""
        return {one.home.home: one.committed for one in self.homes}

    @property
    def committed(self) -> list[Shard]:
        """Every shard of these homes' stages, of former settings too."""
        return [shard for one in self.homes for shard in one.committed.values() if shard.stage in STAGES]


def stand(galaxy: Galaxy, homes: Sequence[Home], taxonomy: int | None = None, *, unclaimed: bool = False) -> Stand:
    """Follow each home's stages as far as shards stand. Encodes task types that have no embedding yet, no image.

    unclaimed: also of homes that no live source claims an image of, which a run would not look at. galaxy: a snapshot,
    so that homes are listed together. Raises EncoderError, TaxonomyError.
    """
    keys = StageKeys(galaxy)
    types = Catalogue(galaxy).embeddings(taxonomy)
    types_hash = embeddings_hash(types.ids, types.vectors)
    dead = galaxy.registry.dead_hashes()
    edits = galaxy.edits().counts()
    found = []
    for home in homes if unclaimed else galaxy.registry.with_claims(homes):
        gone = galaxy.registry.dead(home) if home.home in dead else []
        one = Standing(home, galaxy.shards.committed(home.home), gone)
        output = one.place("embed", keys.embed(home))
        output = one.place("match", keys.match(output, types_hash, dead.get(home.home)))
        output = one.place("filter", keys.filter(output, edits.get((home.home, "filter"), 0)))
        output = one.place("write", keys.write(output, edits.get((home.home, "write"), 0)))
        one.place("vote", keys.vote(output, edits.get((home.home, "vote"), 0)))
        found.append(one)
    return Stand(found, types)


def matched(galaxy: Galaxy, there: Stand, homes: Sequence[Standing]) -> tuple[dict[str, Shard], dict[str, list[Match]]]:
    """The match shards of these homes, as far as they are embedded, by home; and the rows of those not committed."""
    shards: dict[str, Shard] = {}
    computed: dict[str, list[Match]] = {}
    for one in homes:
        home, key = one.home.home, one.keys["match"].key
        if "match" in one.shards:
            shards[home] = one.shards["match"]
        elif key is not None:
            computed[home] = match_run.match_home(galaxy, one.shards["embed"], there.types, one.dead)
            shards[home] = Shard(home, "match", key, output_of({"matches": table(computed[home], Match)}))
    return shards, computed
