"""Status: the state of a store, from logs, listings, markers, and the journals of what has no answer yet.

Asks no model, and encodes no image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.lost import Lost, lost
from taskgalaxy_ops.generation.stages import ASKING, NAMES
from taskgalaxy_ops.generation.targets import TargetCounts
from taskgalaxy_ops.inference.model_health import Outage, outages
from taskgalaxy_ops.operations.pending import Pending, pending
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
    """A live source, and the progress of its image shards."""

    source: str
    location: str
    images: int
    rejects: int
    left_out: Mapping[str, int] | None  # by kind, what its last scan passed by; None: it was not counted then
    shards: int
    shards_done: int  # image shards whose stages are all committed


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """A stage under today's settings, over its committed outputs: in = out + rejects.

    ``pending``: 0 if the outputs of all image shards are committed; else None: `Status.waiting` has what is to be asked
    next, and only a plan tells how much may follow.
    """

    stage: str
    shards: int
    shards_there: int
    units_in: int
    units_out: int
    rejects: Mapping[str, int]
    pending: int | None
    calls: int = 0  # over the lifetime of the image shards of these outputs
    tokens: int = 0
    cost: float = 0.0  # USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of a store."""

    store: str
    simulated: bool
    sources: Sequence[SourceStatus]
    images: int  # live ones
    taxonomy: Mapping[str, int]
    stages: Sequence[StageStatus]
    pending: int | None
    lost: Lost  # what ended without an answer by our fault or a model's
    spent: Mapping[str, Any]
    releases: Sequence[Mapping[str, Any]]
    finetunes: Sequence[str] = field(default=())  # keys of jobs that have not ended
    outages: Sequence[Outage] = field(default=())  # models that serve nothing at the moment, as a worker saw it
    waiting: Pending = field(default_factory=Pending)  # what has no answer, by stage and by why
    targets: TargetCounts | None = None  # how the task types stand; None: the settings have no targets


def status(workspace: Workspace) -> Status:
    """The store's sources, stages, spending, releases and open fine-tunes.

    Encodes task types that have no embedding yet.
    """
    view = workspace.snapshot()
    versions = TaxonomyStore(view).versions()
    scans = view.registry.scans()
    state = store_state(view, lanes.shards_of(view, None)) if scans else None
    shards = state.shards if state else []
    summaries = marker_summaries(workspace.store, state.committed if state else [])
    sources = []
    for scan in scans.values():
        own_ids = {shard.id for shard in lanes.shards_of(view, [scan.source])} if len(scans) > 1 else None
        held = [shard_state for shard_state in shards if own_ids is None or shard_state.shard.id in own_ids]
        done = sum(shard_state.settled for shard_state in held)
        sources.append(
            SourceStatus(
                source=scan.source,
                location=scan.location,
                images=scan.claims.rows,
                rejects=scan.rejects.rows,
                left_out=scan.left_out,
                shards=len(held),
                shards_done=done,
            )
        )
    stages = [_ingest(view, sources), *(_stage(stage, shards, summaries) for stage in NAMES)] if scans else []
    ledger, budget = view.ledger(), view.settings.budget
    spent = ledger.spent()
    return Status(
        store=view.settings.store,
        simulated=view.settings.simulated
        or any(each.stats.get("asked", {}).get("simulated") for each in summaries.values()),
        sources=sources,
        images=sum(shard_state.live for shard_state in shards),
        taxonomy={"version": len(versions) - 1, "task_types": versions[-1]["leaves"]},
        stages=stages,
        lost=lost(stage for stage in stages if stage.stage in ASKING),
        pending=0 if all(shard_state.settled for shard_state in shards) else None,
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
            {"version": each.version, "samples": each.samples, "partial": each.partial} for each in published(view)
        ],
        finetunes=_open_jobs(view),
        outages=outages(workspace.store, view.settings.models),
        waiting=pending(view, state) if state else Pending(),
        targets=state.targets.counts(state.types.ids) if state and state.targets else None,
    )


def _ingest(view: Workspace, sources: Sequence[SourceStatus]) -> StageStatus:
    kept, refused = sum(each.images for each in sources), Counter(r.reason for r in view.registry.rejects())
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


def _stage(stage: str, shards: Sequence[ShardState], summaries: Mapping[StageOutput, MarkerSummary]) -> StageStatus:
    outputs = [shard_state.stage_outputs[stage] for shard_state in shards if stage in shard_state.stage_outputs]
    marked = [summaries[shard] for shard in outputs if shard in summaries]
    rejects: Counter[str] = Counter()
    asked = Tally()
    for each in marked:
        rejects.update(each.stats["rejects"])
        asked += Tally(**each.stats.get("asked", {}))
    return StageStatus(
        stage=stage,
        shards=len(shards),
        shards_there=len(outputs),
        units_in=sum(each.stats["units_in"] for each in marked),
        units_out=sum(each.stats["units_out"] for each in marked),
        rejects=dict(sorted(rejects.items())),
        pending=0 if len(outputs) == len(shards) else None,
        calls=asked.calls,
        tokens=asked.tokens,
        cost=asked.cost / NANO,
    )


def _open_jobs(view: Workspace) -> list[str]:
    state: dict[str, str] = {}
    for entry in Log(view.store, keys.FINETUNE_LOG).read():
        if "key" in entry.body:
            state[entry.body["key"]] = entry.body["kind"]
    return [key for key, kind in state.items() if kind != "ended"]
