"""Tasks of galaxy_generate: make the lanes, run a stage of a lane, announce samples, check that the run is complete."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow import metrics
from galaxy_airflow.runtime import log, opened, progress, receipt
from galaxy_airflow.tasks.common import defer, defer_until_back
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import LeaseLostError, LostError, PendingError, SourceError, UnansweredError
from taskgalaxy_ops.generation.lanes import shards_of_lane, with_candidates
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import ASKING, NAMES, STAGE
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.operations.forecast import forecast
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def lanes(sources: Sequence[str]) -> list[dict[str, Any]]:
    """Divide the image shards of each source into lanes; each is a dict of what its tasks need: numbers and names.

    With targets there is one lane, which also holds the image shards of other sources that were run before: what is
    asked about an image hangs on what all others gave, and is decided in one place.

    Raises SourceError for a source that is not registered, before anything else is done.
    """
    workspace = opened()
    there = workspace.registry.scans()
    unknown = [repr(source) for source in sources if source not in there]
    if unknown or not sources:
        what = f"not registered: {', '.join(unknown)}" if unknown else "no source is chosen"
        choose = f"choose among {', '.join(sorted(there))}" if there else "none is registered"
        raise SourceError(f"{what}. Sources in the form of galaxy_generate: {choose} (galaxy_ingest registers one).")
    upto = announcements.seen(workspace)
    share = max(1, workspace.settings.airflow.lanes // len(sources))
    orders = {source: announcements.orders(workspace, source) for source in sources}
    together = [source for source in sources if opened(**orders[source]).settings.targets is not None]
    made = [
        lane
        for source in sources
        if source not in together
        for lane in _lanes([source], orders[source], upto, share, several=len(sources) > 1)
    ]
    for each in _distinct([orders[source] for source in together]):
        named = [source for source in together if orders[source] == each]
        made += _lanes(with_candidates(workspace, named), each, upto, 1, several=True)
    return made


def _distinct(orders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for number, each in enumerate(orders) if each not in orders[:number]]


def _lanes(
    sources: Sequence[str], orders: dict[str, Any], upto: int, most: int, *, several: bool
) -> list[dict[str, Any]]:
    """The lanes of a source; or, with targets, the one of all sources that they count. orders: overrides of settings.
    upto: the announcements that the run ends. most: lanes."""
    began, named = time.monotonic(), ", ".join(sources)
    workspace = opened(**orders)
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.ensure_seeds()
    taxonomy_store.embeddings()  # once here; otherwise every lane would encode the new task types
    dealt = pipeline.lanes(workspace, sources, most)
    receipt(f"generate {named}", began, lanes=len(dealt), announcement=upto, orders=orders)
    made = []
    for lane in dealt:
        images = sum(shard.images.rows for shard in shards_of_lane(workspace, lane))
        label = f"{named}, lane" if several else "lane"
        more = {"orders": orders, "upto": upto, "run": workspace.run, "images": images}
        made.append({**lane.to_json(), **more, "label": f"{label} {lane.number + 1}: {images:,} images"})
    return made


def stage(name: str, lane: Mapping[str, Any], ti: Any, away: Mapping[str, float] | None) -> dict[str, Any]:
    """Run one stage of a lane as far as models and budget allow.

    lane: one of `lanes`. away: models that earlier runs of this try waited for, and since when.
    Raises Waiting while a model serves nothing, for as long as its patience, or batches are under way;
    LeaseLostError while another run works on one of the lane's image shards; UnansweredError where single requests got
    no reply, if a retry follows. Raises PendingError where units stay without an answer. The XCom ``unfinished`` has
    their number and the reasons.
    """
    began = time.monotonic()
    workspace = opened(**lane["orders"], run=lane.get("run"))
    own = {field: lane[field] for field in ("number", "of", "registry", "sources")}
    with progress() as shown:
        result = pipeline.generate(
            workspace, pipeline.RunOptions(lane=pipeline.Lane(**own), last_stage=name, wait=False), progress=shown
        )
    counts = [shard.stages[name].counts for shard in result.shards if name in shard.stages]
    asked = [each for each in counts if each is not None]
    summary = receipt(
        f"{name}, lane {lane['number'] + 1} of {lane['of']}",
        began,
        shards=len(result.matches),
        unchanged=len(counts) - len(asked) if counts else 0,
        units_in=sum(each.units_in for each in asked),
        units_out=sum(each.units_out for each in asked),
        rejects=dict(sorted(sum((Counter(each.rejects) for each in asked), Counter()).items())),
        pending=result.pending,
        calls=result.usage.calls,
        tokens=result.usage.tokens,
        cost=result.usage.cost / NANO,
        encoded=workspace.encoder_passes,
        reasons=result.reasons,
        unaffordable=result.unaffordable,
    )
    metrics.tell(lambda: _work(name, lane, ti.dag_id, workspace, result, summary["seconds"]))
    # Where it has none, too: what an earlier stage left without an answer may have one by now.
    which = {"source": lane["sources"][0], "sources": lane["sources"], "lane": lane["number"]}
    ti.xcom_push("unfinished", {name: summary[name] for name in _LEFT} | which)
    if not result.pending:
        return summary
    if result.held:
        raise LeaseLostError(result.held)
    defer_until_back(result.usage.away, result.usage.unavailable, workspace.settings, away)
    # An image shard that waits for a batch asks its other requests again when the task resumes, without a retry.
    stuck = any(shard.pending and not shard.waiting for shard in result.shards)
    if stuck and result.usage.gave_up and ti.try_number <= ti.max_tries:
        raise UnansweredError(f"{result.pending} units have no answer yet: {'; '.join(result.reasons)}")
    defer(result.waiting, workspace.settings, ti.start_date)
    raise PendingError(_unanswered(f"{lane['sources'][0]}, {name}", result.pending, result.reasons))


def _work(
    name: str, lane: Mapping[str, Any], dag: str, workspace: Workspace, result: pipeline.RunResult, seconds: float
) -> Iterator[metrics.Work]:
    """What a task did, by stage, for the metrics. It asks for what the stages before left without an answer, too."""
    for each in (stage for stage in ASKING if NAMES.index(stage) <= NAMES.index(name)):
        made = [shard.stages[each] for shard in result.shards if each in shard.stages]
        finished = [stage.counts.rejects for stage in made if stage.counts and stage.stage_output]
        yield metrics.Work(
            dag=dag,
            stage=each,
            source=metrics.source_label(lane["sources"][0], workspace.registry.scans()),
            lane=lane["number"] + 1,
            pending=sum(stage.counts.pending for stage in made if stage.counts),
            rejects=sum(map(Counter, finished), Counter()),
            model=workspace.settings.teacher.name if STAGE[each].role == "teacher" else None,
            **({"usage": result.usage, "seconds": seconds} if each == name else {}),
        )


_LEFT = ("pending", "reasons", "unaffordable")  # of a stage's receipt


def _unanswered(what: str, pending: int, reasons: Sequence[str]) -> str:
    # Lanes that meet one cap tell different prices of the next call.
    each_once = {reason.partition("; the next call")[0]: reason.rstrip(".") for reason in reversed(reasons)}
    return (
        f"{what}: {pending:,} units have no answer yet ({'; '.join(reversed(each_once.values()))}). What was answered "
        "is kept: mend it, then clear this task, or trigger galaxy_generate or galaxy_backfill for this source."
    )


def announce_samples(
    outlet: Any,
    sources: Sequence[str],
    lane_plans: Sequence[Mapping[str, Any]],
    unfinished: Sequence[Mapping[str, Any]],
) -> None:
    """Record and announce that a run of these sources has ended, complete or not: a release may be waiting for it.

    lane_plans: of `lanes`; empty: that task failed. unfinished: the XComs of this name of the lanes' stages. Skipped
    where one of them is not registered: such a run was refused.
    """
    workspace = opened()
    there = workspace.registry.scans()
    if not sources or any(source not in there for source in sources):
        raise AirflowSkipException("the run was refused, so nothing is announced")
    upto = lane_plans[0]["upto"] if lane_plans else announcements.seen(workspace)
    left = left_by_lane(unfinished)
    for source in sources:
        pending = sum(each["pending"] for each in left if source in each.get("sources", [each["source"]]))
        announcements.ended(workspace, source, upto, pending)
        log.info("%s has ended, %s units pending", source, f"{pending:,}")
    outlet.add_partitions(list(sources))


def left_by_lane(unfinished: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the last stage of each lane left without an answer; of lanes that left nothing, nothing.

    unfinished: in the order of the stages.
    """
    last = {(each["source"], each["lane"]): each for each in unfinished}
    return [each for each in last.values() if each["pending"]]


def complete(
    sources: Sequence[str],
    lane_plans: Sequence[Mapping[str, Any]] | None,
    votes: Sequence[Mapping[str, Any]],
    unfinished: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Check that every lane has voted on everything.

    lane_plans: of `lanes`; None: that task failed. votes: the receipts of the lanes' last stage. unfinished: the XComs
    of this name of all stages. Raises PendingError, which says what is missing and why, and LostError if too much ended
    without an answer.
    """
    began, named = time.monotonic(), ", ".join(sources)
    if lane_plans is None:
        raise PendingError(f"{named}: the task `lanes` failed, and its log says why. Mend it, then clear it.")
    left = left_by_lane(unfinished)
    reasons = [reason for each in left for reason in each["reasons"]]
    if missing := len(lane_plans) - len(votes) - len(left):
        raise PendingError(
            f"{named}: {missing} of {len(lane_plans)} lanes failed; their tasks say why. "
            "What was answered is kept: clear them to go on."
        )
    if left:
        if any(each["unaffordable"] for each in left):
            reasons += costs_text.rest(forecast(opened(), sources))
        behind = ", ".join(sorted({each["source"] for each in left}))
        raise PendingError(_unanswered(behind, sum(each["pending"] for each in left), reasons))
    lost = [_lost(source, lane_plans) for source in sources]
    if too_many := [said for said, _ in lost if said]:
        raise LostError("\n".join(too_many))
    return receipt(
        f"generate {named}",
        began,
        lanes=len(votes),
        lost=dict(sum((Counter(reasons) for _, reasons in lost), Counter())),
        units_in=sum(each["units_in"] for each in votes),
        samples=sum(each["units_out"] for each in votes),
    )


def _lost(source: str, lane_plans: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, int]]:
    """Why a source's run must not pass as complete, "" if it may; and what ended without an answer, by reason."""
    orders = next((lane["orders"] for lane in lane_plans if source in lane["sources"]), {})
    workspace = opened(**orders)
    looked = pipeline.generate(workspace, pipeline.RunOptions(sources=[source], ask=False, commit=False))
    results = RunResults(workspace, looked)
    return f"{source}: {results.lost.words()}" if results.lost_too_many else "", results.lost.reasons
