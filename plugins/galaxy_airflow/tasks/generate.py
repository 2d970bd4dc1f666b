"""Tasks of galaxy_generate: make the lanes, run a stage of a lane, announce samples, check that the run is complete."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow.runtime import log, opened, progress, receipt
from galaxy_airflow.tasks.common import defer
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import LeaseLostError, LostError, PendingError, SourceError, UnansweredError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.operations.forecast import forecast
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore


def lanes(source: str) -> list[dict[str, Any]]:
    """Divide a source's image shards into lanes; each is a dict of what its tasks need: numbers and names.

    Raises SourceError for a source that is not registered, before anything else is done.
    """
    began, workspace = time.monotonic(), opened()
    if source not in (there := workspace.registry.scans()):
        what = f"source {source!r} is not registered" if source else "no source is chosen"
        choose = f"choose one of {', '.join(sorted(there))}" if there else "none is registered"
        raise SourceError(f"{what}: {choose} (Source in the form of galaxy_generate; galaxy_ingest registers one).")
    upto = announcements.seen(workspace)
    orders = announcements.orders(workspace, source)
    workspace = opened(**orders)
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.ensure_seeds()
    taxonomy_store.embeddings()  # once here; otherwise every lane would encode the new task types
    dealt = pipeline.lanes(workspace, [source], workspace.settings.airflow.lanes)
    receipt(f"generate {source}", began, lanes=len(dealt), announcement=upto, orders=orders)
    return [{**lane.to_json(), "orders": orders, "upto": upto, "run": workspace.run} for lane in dealt]


def stage(name: str, lane: Mapping[str, Any], last_try: bool, since: datetime) -> dict[str, Any]:
    """Run one stage of a lane as far as models and budget allow; units without an answer are counted as pending.

    lane: one of `lanes`. last_try: no retry follows. since: when this try began, before it was deferred.
    Raises LeaseLostError while another run works on one of the lane's image shards, and UnansweredError where a model
    gives no reply at the moment, both only if a retry follows. Raises TaskDeferred while batches are under way.
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
        cost=result.usage.cost / NANO,
        encoded=workspace.encoder_passes,
        reasons=result.reasons,
        unaffordable=result.unaffordable,
    )
    if result.held and not last_try:
        raise LeaseLostError(result.held)
    # An image shard that waits for a batch asks its other requests again when the task resumes, without a retry.
    stuck = any(shard.pending and not shard.waiting for shard in result.shards)
    if stuck and result.usage.gave_up and not last_try:
        raise UnansweredError(f"{result.pending} units have no answer yet: {'; '.join(result.reasons)}")
    defer(result.waiting, workspace.settings, since)
    return summary


def announce_samples(outlet: Any, source: str, lane_plans: Sequence[Mapping[str, Any]], votes: Sequence[Any]) -> None:
    """Record and announce that a run of a source has ended, complete or not: a release may be waiting for it.

    lane_plans: of `lanes`; empty: that task failed. votes: the receipts of the lanes' last stage. Skipped for a source
    that is not registered, which nobody waits for.
    """
    workspace = opened()
    if source not in workspace.registry.scans():
        raise AirflowSkipException(f"{source or 'no source'}: not registered, so nothing is announced")
    upto = lane_plans[0]["upto"] if lane_plans else announcements.seen(workspace)
    pending = sum(each["pending"] for each in votes)
    announcements.ended(workspace, source, upto, pending)
    outlet.add_partitions(source)
    log.info("%s has ended, %s units pending", source, f"{pending:,}")


def complete(
    source: str, lane_plans: Sequence[Mapping[str, Any]] | None, votes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Check that every lane has voted on everything.

    lane_plans: of `lanes`; None: that task failed. votes: the receipts of the lanes' last stage. Raises PendingError,
    which says what is missing and why, and LostError if too much ended without an answer.
    """
    began = time.monotonic()
    if lane_plans is None:
        raise PendingError(f"{source}: the task `lanes` failed, and its log says why. Mend it, then clear it.")
    pending = sum(each["pending"] for each in votes)
    reasons = list(dict.fromkeys(reason for each in votes for reason in each["reasons"]))
    if len(votes) < len(lane_plans):
        raise PendingError(
            f"{source}: {len(lane_plans) - len(votes)} of {len(lane_plans)} lanes failed; their tasks say why. "
            "What was answered is kept: clear them to go on."
        )
    if pending:
        if any(each.get("unaffordable") for each in votes):
            reasons += costs_text.rest(forecast(opened(), [source]))
        raise PendingError(
            f"{source}: {pending:,} units have no answer yet ({'; '.join(reasons)}). What was answered is kept: "
            "mend it, then trigger galaxy_generate or galaxy_backfill for this source."
        )
    workspace = opened(**(lane_plans[0]["orders"] if lane_plans else {}))
    looked = pipeline.generate(workspace, pipeline.RunOptions(sources=[source], ask=False, commit=False))
    results = RunResults(workspace, looked)
    if results.lost_too_many:
        raise LostError(f"{source}: {results.lost.words()}")
    return receipt(
        f"generate {source}",
        began,
        lanes=len(votes),
        lost=results.lost.reasons,
        units_in=sum(each["units_in"] for each in votes),
        samples=sum(each["units_out"] for each in votes),
    )
