"""What publishing a proposed taxonomy version would mean: the images of each new task type, what is near it, the cost.

Asks no model, and encodes no image: images are matched by the embeddings that the store has. The cost is what a pair of
image and task type has cost so far, in all stages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from taskgalaxy_ops.generation import lanes, match_run
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix
from taskgalaxy_ops.operations.release_outlook import ReleaseOutlook, release_outlook
from taskgalaxy_ops.operations.shard_state import ShardState, StoreState, store_state
from taskgalaxy_ops.records import ImageId, Match, TaskTypePath
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.marker_index import marker_summaries
from taskgalaxy_ops.taxonomy.labels import parent
from taskgalaxy_ops.taxonomy.store import Proposal, TaxonomyStore
from taskgalaxy_ops.taxonomy.version import LIVE, asked_paths
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace

MATCHED_IMAGES = 20_000  # at least, where there are as many: of a larger store, image shards are drawn by hash
_PICTURES = 3
_NEAREST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeOutlook:
    """A new task type: where it would be asked about, and what is there already."""

    images: int  # that would be matched to it; an estimate where not all were looked at
    pictures: Sequence[ImageId] = ()  # the nearest of them
    nearest: Sequence[tuple[TaskTypePath, float]] = ()  # existing task types, with the cosine
    siblings: Sequence[TaskTypePath] = ()  # existing nodes below the same parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalOutlook:
    """What a proposed version would do to the images that are registered."""

    types: Mapping[TaskTypePath, TypeOutlook]
    images: int  # registered ones that have an embedding
    matched: int  # of these, those that were matched here; the numbers of the rest are estimated
    pair_cost: float | None = None  # USD that a pair of image and task type has cost so far; None: nothing was asked
    pair_list_cost: float | None = None  # USD, at list prices
    unmatched: int = 0  # registered images that have no embedding yet
    moved_up: int = 0  # pairs with older task types that enter an image's nearest, where a leaf became a group
    release: ReleaseOutlook | None = None  # what the next would lose; None: there is none, or too many images to match

    @property
    def pairs(self) -> int:
        """The pairs of image and task type that the filter would be asked about."""
        return self.moved_up + sum(each.images for each in self.types.values())


@dataclass(slots=True)
class _Matched:
    images: int = 0
    pairs: dict[TaskTypePath, list[Match]] = field(default_factory=dict)  # by new task type: the nearest ones
    counts: dict[TaskTypePath, int] = field(default_factory=dict)
    moved_up: int = 0


def proposal_outlook(workspace: Workspace, proposal: Proposal) -> ProposalOutlook:
    """The outlook of a proposal, under the settings. Raises EncoderError."""
    view = workspace.snapshot()
    taxonomy_store = TaxonomyStore(view)
    base = taxonomy_store.version(proposal.base)
    before = base.asked()
    after = asked_paths(proposal.nodes)
    types = taxonomy_store.embed_labels(after, keep=False)
    new = sorted(set(after) - set(before))
    state = store_state(view, lanes.shards_of(view, None)) if view.registry.shards() else None
    shards = list(state.shards) if state else []
    embedded = [shard for shard in shards if "embed" in shard.stage_outputs]
    former = taxonomy_store.embed_labels(before, keep=False)
    found = _matched(view, embedded, types, set(new), None if set(before) <= set(after) else former)
    there = sum(shard.live for shard in embedded)
    scale = there / found.images if found.images else 0.0
    nearest = _nearest(types, former, new)
    beside: dict[str | None, list[TaskTypePath]] = {}
    for node in base.nodes:
        if node.status == LIVE:
            beside.setdefault(parent(node.path), []).append(node.path)
    cost, list_cost = _pair_costs(workspace, state) if state else (None, None)
    return ProposalOutlook(
        types={
            path: TypeOutlook(
                images=math.ceil(found.counts.get(path, 0) * scale),
                pictures=[each.image for each in found.pairs.get(path, ())],
                nearest=[(base.shown(near), cosine) for near, cosine in nearest.get(path, ())],
                siblings=beside.get(parent(path), ()),
            )
            for path in new
        },
        images=there,
        matched=found.images,
        pair_cost=cost,
        pair_list_cost=list_cost,
        unmatched=sum(shard.live for shard in shards) - there,
        moved_up=math.ceil(found.moved_up * scale),
        release=release_outlook(workspace, proposal.nodes) if there <= MATCHED_IMAGES else None,
    )


def _matched(
    view: Workspace,
    shards: Sequence[ShardState],
    types: EmbeddingMatrix,
    new: set[TaskTypePath],
    former: EmbeddingMatrix | None,
) -> _Matched:
    """Match image shards, in the order of a draw, until there are enough images.

    former: the task types of before, where some of them make room for others; None: all of them stay.
    """
    found = _Matched()
    for shard in sorted(shards, key=lambda shard: draw("proposal", shard.shard.id)):
        if found.images >= MATCHED_IMAGES:
            break
        embedded = shard.stage_outputs["embed"]
        rows = match_run.match_shard(view, embedded, types, shard.dead)
        for row in rows:
            if row.task_type in new:
                path = row.task_type
                found.counts[path] = found.counts.get(path, 0) + 1
                kept = [*found.pairs.get(path, ()), row]
                found.pairs[path] = nlargest(_PICTURES, kept, key=lambda each: (each.similarity, each.image))
        if former is not None:
            matched = match_run.match_shard(view, embedded, former, shard.dead)
            had = {(row.image, row.task_type) for row in matched}
            found.moved_up += sum(row.task_type not in new and (row.image, row.task_type) not in had for row in rows)
        found.images += shard.live
    return found


def _nearest(
    types: EmbeddingMatrix, before: EmbeddingMatrix, new: Sequence[TaskTypePath]
) -> dict[TaskTypePath, list[tuple[TaskTypePath, float]]]:
    """By new task type, the nearest of those that were there before."""
    place = {path: row for row, path in enumerate(types.ids)}
    rows = [place[path] for path in new]
    found: dict[TaskTypePath, list[tuple[TaskTypePath, float]]] = {}
    for each in match(EmbeddingMatrix(tuple(new), types.vectors[rows]), before, k=_NEAREST):
        found.setdefault(each.image, []).append((each.task_type, each.similarity))
    return found


def _pair_costs(workspace: Workspace, state: StoreState) -> tuple[float | None, float | None]:
    """What a filtered pair has cost so far in all stages, USD, and at list prices; None: no image shard is done."""
    summaries = marker_summaries(workspace.store, state.committed)
    asked, pairs = Tally(), 0
    for shard in state.shards:
        if not shard.settled:  # what follows its filter is not paid yet
            continue
        for name in ASKING:
            output = shard.stage_outputs[name]
            of_stage = Tally(**summaries[output].stats.get("asked", {})) if output in summaries else Tally()
            asked += of_stage
            pairs += of_stage.units if name == ASKING[0] else 0
    return (asked.cost / NANO / pairs, asked.list_cost / NANO / pairs) if pairs else (None, None)
