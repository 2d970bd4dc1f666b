"""The targets of a store's task types: what the journals say came of each candidate, and what is asked and held next.

The rule is in targets.py. It looks at the live images of all sources, so a run of some sources knows what the others'
images gave. Of images that have no embedding yet nothing is known, and they are no candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.generation.form_shares import questions_of
from taskgalaxy_ops.generation.lanes import shards_of
from taskgalaxy_ops.generation.match_run import computed_matches, match_rows
from taskgalaxy_ops.generation.shard_run import ShardResult
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING, STAGE
from taskgalaxy_ops.generation.stages.asking import Templates, pure
from taskgalaxy_ops.generation.targets import (
    Candidate,
    Candidates,
    TargetCounts,
    TargetRules,
    Walk,
    Walked,
    counts,
    tries_of,
)
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.records import Answer, ImageId, Match, TaskTypePath
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage.edits import Begun
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.taxonomy import weaknesses
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


@dataclass(slots=True)
class StoreTargets:
    """How far each task type goes, and which matches of an image shard that takes."""

    walk: Walk
    matches: Mapping[str, Sequence[Match]]  # all of them, by image shard
    collecting: Collection[str] = ()  # image shards with batches under way
    walked: Mapping[TaskTypePath, Walked] = field(init=False)
    _shards: dict[ImageId, str] = field(init=False)
    _taken: set[Candidate] = field(init=False)
    _ahead: list[Counter[str]] | None = field(init=False)  # likely and at most, by image shard; None: not counted yet

    def __post_init__(self) -> None:
        self._shards = {match.image: shard for shard, rows in self.matches.items() for match in rows}
        self._walk()

    def _walk(self) -> None:
        self.walked = self.walk.walked()
        self._taken = self.walk.taken(self.walked)
        self._ahead = None

    def rows(self, shard: str) -> list[Match]:
        """The matches of an image shard that its task types take."""
        return self._among(shard, self._taken)

    def beyond(self, shard: str) -> set[Candidate]:
        """The candidates of an image shard that its task types do not take."""
        return {(match.image, match.task_type) for match in self.matches.get(shard, ())} - self._taken

    def _among(self, shard: str, chosen: Collection[Candidate]) -> list[Match]:
        return [match for match in self.matches.get(shard, ()) if (match.image, match.task_type) in chosen]

    def subset(self, shard: str) -> str | None:
        """What tells these matches of an image shard from others; None: they are all that it has."""
        return self.subset_of(shard, self.rows(shard))

    def subset_of(self, shard: str, rows: Sequence[Match]) -> str | None:
        """The same of any of its matches."""
        if len(rows) == len(self.matches.get(shard, ())):
            return None
        return fingerprint("subset", sorted((match.image, match.task_type) for match in rows))

    def wave(self, shards: Collection[str], passed: Collection[Candidate]) -> dict[str, list[Match]]:
        """By image shard, of ``shards`` alone, the matches to ask about next; see `Walk.wave`."""
        others = {
            (match.image, match.task_type) for shard in self.matches.keys() - shards for match in self.matches[shard]
        }
        chosen = self.walk.wave(self.walked, {*passed, *others})
        concerned = {self._shards[image] for image, _ in chosen}
        return {shard: self._among(shard, chosen) for shard in sorted(concerned)}

    def learn(self, workspace: Workspace, results: Iterable[ShardResult]) -> None:
        """Take in what came of the matches that were asked about. workspace: for rows that are committed."""
        for result in results:
            rows: dict[str, Mapping[str, Any]] = {
                name: {
                    table: workspace.stage_outputs.load(made.stage_output, table, record)
                    for table, record in STAGE[name].tables.items()
                }
                if made.stage_output
                else made.rows
                for name, made in result.stages.items()
            }
            self.walk.tried.update(tries_of(rows, self.walk.forms))
        self._walk()

    def counts(self, types: Collection[TaskTypePath]) -> TargetCounts:
        """How ``types``, the task types of the taxonomy as they are asked, stand."""
        return counts(self.walked, types, self.walk.targets)

    def ahead(self, shard: str) -> tuple[int, int]:
        """The number of an image shard's matches beyond those that are taken, likely and at most; see `Walk.ahead`."""
        if self._ahead is None:
            self._ahead = [Counter(self._shards[image] for image, _ in found) for found in self.walk.ahead(self.walked)]
        likely, most = (numbers[shard] for numbers in self._ahead)
        return likely, most


def store_targets(
    workspace: Workspace,
    begun: Begun,
    *,
    taxonomy: int | None = None,
    types: EmbeddingMatrix | None = None,
    known: Mapping[str, Sequence[Match]] | None = None,
) -> StoreTargets | None:
    """The targets of the store as its journals are; None: the settings have no targets.

    taxonomy: the version; ``types``: its embeddings, read if None. begun: edits that are not done. known: matches, by
    image shard, that need not be looked up. Encodes no image.
    """
    targets = workspace.settings.targets
    if targets is None:
        return None
    matches, taxonomy_store = dict(known or {}), TaxonomyStore(workspace)
    others = [shard for shard in workspace.registry.with_claims(shards_of(workspace, None)) if shard.id not in matches]
    if others:
        types = taxonomy_store.embeddings(taxonomy, keep=False) if types is None else types
        committed = {shard.id: workspace.stage_outputs.committed(shard.id) for shard in others}
        matches |= match_rows(workspace, *computed_matches(workspace, others, committed, types, encode=False))
    forms = questions_of(workspace.settings.write)
    rules = TargetRules(targets, taxonomy_store.version(taxonomy).shown, weaknesses.in_force(workspace))
    walk = Walk(Candidates.of(row for shard in sorted(matches) for row in matches[shard]), rules, forms)
    keys, collecting, reachable = StageKeys(workspace), set(), walk.reachable()
    for shard, rows in matches.items():
        journal = Journal(workspace.store, shard, begun.get(shard))
        if journal.batches.open:
            collecting.add(shard)
        if journal.answers:
            within = [row for row in rows if (row.image, row.task_type) in reachable]
            answered = _answered(keys.templates_for(shard), within, journal.answers, staged(workspace))
            walk.tried.update(tries_of(answered, forms))
    return StoreTargets(walk, matches, collecting)


def _answered(
    templates: Mapping[str, Templates], matches: Sequence[Match], answers: Mapping[str, Answer], settings: Settings
) -> dict[str, Mapping[str, Any]]:
    """The rows, by stage and table, that the stages make of an image shard's answers."""
    made: dict[str, Mapping[str, Any]] = {}
    rows: Sequence[Any] = matches
    for name in ASKING:
        made[name] = pure(name).work(templates[name], rows, settings).output(answers).rows
        following = ASKING.index(name) + 1
        if following < len(ASKING):
            rows = made[name][STAGE[ASKING[following]].reads]
    return made
