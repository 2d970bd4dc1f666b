"""Status: where a store stands, from logs, listings and what markers say. Nothing is asked, and no image is encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.stages import NAMES
from taskgalaxy_ops.operations.shard_state import ShardState, store_state
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.marker_index import MarkerSummary, marker_summaries
from taskgalaxy_ops.storage.shards import StageOutput
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """A live source, and how far its shards are."""

    source: str
    location: str
    images: int
    rejects: int
    shards: int
    shards_done: int  # all stages stand


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """A stage under today's settings, over the shards that stand: in = out + rejects.

    ``pending``: 0 where all shards stand, else None: how much is left only a plan knows.
    """

    stage: str
    shards: int
    shards_there: int
    units_in: int
    units_out: int
    rejects: Mapping[str, int]
    pending: int | None
    calls: int = 0  # over the lifetime of these shards' image shards
    tokens: int = 0
    cost: float = 0.0  # USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A whole store."""

    store: str
    simulated: bool
    sources: Sequence[SourceStatus]
    images: int  # live ones
    taxonomy: Mapping[str, int]
    stages: Sequence[StageStatus]
    pending: int | None
    spent: Mapping[str, Any]
    releases: Sequence[Mapping[str, Any]]
    finetunes: Sequence[str] = field(default=())  # keys of jobs that have not ended


def status(workspace: Workspace) -> Status:
    """Sources, stages, spending, releases and open fine-tunes. Encodes task types that have no embedding yet."""
    look = workspace.snapshot()
    versions = TaxonomyStore(look).versions()
    scans = look.registry.scans()
    there = store_state(look, lanes.shards_of(look, None)) if scans else None
    shards = there.shards if there else []
    told = marker_summaries(workspace.store, there.committed if there else [])
    sources = []
    for scan in scans.values():
        mine = {shard.id for shard in lanes.shards_of(look, [scan.source])} if len(scans) > 1 else None
        held = [one for one in shards if mine is None or one.shard.id in mine]
        done = sum(one.settled for one in held)
        sources.append(
            SourceStatus(
                source=scan.source,
                location=scan.location,
                images=scan.claims.rows,
                rejects=scan.rejects.rows,
                shards=len(held),
                shards_done=done,
            )
        )
    stages = [_ingest(look, sources), *(_stage(stage, shards, told) for stage in NAMES)] if scans else []
    ledger, budget = look.ledger(), look.settings.budget
    spent = ledger.spent()
    return Status(
        store=look.settings.store,
        simulated=look.settings.simulated
        or any(each.stats.get("asked", {}).get("simulated") for each in told.values()),
        sources=sources,
        images=sum(one.live for one in shards),
        taxonomy={"version": len(versions) - 1, "task_types": versions[-1]["leaves"]},
        stages=stages,
        pending=0 if all(one.settled for one in shards) else None,
        spent={
            "calls": spent.calls,
            "max_calls": budget.max_calls,
            "cost": spent.cost / NANO,
            "max_cost": budget.max_cost,
            "tokens": spent.tokens,
            "max_tokens": budget.max_tokens,
            "caps": ledger.describe(),
        },
        releases=[
            {"version": each.version, "samples": each.samples, "partial": each.partial} for each in published(look)
        ],
        finetunes=_open_jobs(look),
    )


def _ingest(look: Workspace, sources: Sequence[SourceStatus]) -> StageStatus:
    kept, refused = sum(each.images for each in sources), Counter(r.reason for r in look.registry.rejects())
    shards = sum(each.shards for each in sources)
    return StageStatus(
        stage="ingest",
        shards=shards,
        shards_there=shards,
        units_in=kept + refused.total(),
        units_out=kept,
        rejects=dict(sorted(refused.items())),
        pending=0,
    )


def _stage(stage: str, shards: Sequence[ShardState], told: Mapping[StageOutput, MarkerSummary]) -> StageStatus:
    there = [one.stage_outputs[stage] for one in shards if stage in one.stage_outputs]
    found = [told[shard] for shard in there if shard in told]
    rejects: Counter[str] = Counter()
    asked = Tally()
    for each in found:
        rejects.update(each.stats["rejects"])
        asked += Tally(**each.stats.get("asked", {}))
    return StageStatus(
        stage=stage,
        shards=len(shards),
        shards_there=len(there),
        units_in=sum(each.stats["units_in"] for each in found),
        units_out=sum(each.stats["units_out"] for each in found),
        rejects=dict(sorted(rejects.items())),
        pending=0 if len(there) == len(shards) else None,
        calls=asked.calls,
        tokens=asked.tokens,
        cost=asked.cost / NANO,
    )


def _open_jobs(look: Workspace) -> list[str]:
    state: dict[str, str] = {}
    for entry in Log(look.store, keys.FINETUNE_LOG).read():
        if "key" in entry.body:
            state[entry.body["key"]] = entry.body["kind"]
    return [key for key, kind in state.items() if kind != "ended"]
