"""Tasks of galaxy_backfill: plan, forecast, announce sources again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow import metrics
from galaxy_airflow.runtime import log, opened, progress, receipt
from galaxy_airflow.tasks.sources import announce
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.operations.forecast import forecast, probe, record
from taskgalaxy_ops.operations.plan import plan as plan_run
from taskgalaxy_ops.reports.pages import forecast as forecast_pages
from taskgalaxy_ops.reports.pages import plan as plan_pages
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore


def plan(form: Mapping[str, Any]) -> dict[str, Any]:
    """Plan a backfill and write the plan's page; unless it is a dry run, publish an older taxonomy version as newest.

    form: the trigger form. Raises SourceError where no source is registered.
    """
    began = time.monotonic()
    workspace = opened(form.get("settings_version"))
    sources = list(form["sources"] or sorted(workspace.registry.scans()))
    if not sources:
        raise SourceError("backfill: no source is registered. Run galaxy_ingest or galaxy_watch first.")
    taxonomy_store = TaxonomyStore(workspace)
    newest = taxonomy_store.version().number
    version = newest if form.get("taxonomy_version") is None else form["taxonomy_version"]
    run_plan = plan_run(workspace, sources, taxonomy=version)
    for line in plan_text.plan(run_plan):
        log.info(line)
    if version != newest and not form["dry_run"]:
        newest = taxonomy_store.publish(
            newest, taxonomy_store.version(version).nodes, [], f"backfill of version {version}"
        )
    page = plan_pages.plan_page(run_plan, sources, version)
    name = f"plan-{plan_pages.page_name(page)}"
    workspace.store.replace(keys.report(name), page.encode())
    max_cost = None if form.get("budget") is None else workspace.ledger().spent().cost / NANO + form["budget"]
    return receipt(
        "planned",
        began,
        sources=sources,
        taxonomy_version=version,
        shards=run_plan.shards,
        units={each.stage: round(each.units.expected) for each in run_plan.stages},
        cost=None if (cost := run_plan.total("cost")) is None else cost.expected,
        orders={"settings_version": form.get("settings_version"), "max_cost": max_cost},
        page=name,
    )


def forecast_backfill(planned: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    """Forecast what the planned backfill would cost, with an interval, and write the forecast's page.

    Where too few images of a source are answered, a few are asked about first. A source whose requests stay without an
    answer (a model is out of reach, a batch is under way) has no forecast. Skipped unless ``wanted``.
    """
    if not wanted:
        raise AirflowSkipException("no forecast was asked for")
    began, workspace = time.monotonic(), opened(**planned["orders"])
    sources, version = planned["sources"], planned["taxonomy_version"]
    with progress() as shown:
        asked = probe(workspace, None, sources, version, shown, wait=False)
    seconds = time.monotonic() - began
    metrics.tell(lambda: [metrics.Work(dag="galaxy_backfill", stage="forecast", usage=asked.usage, seconds=seconds)])
    made = forecast(workspace, sources, version)
    record(workspace, made)
    for line in (*costs_text.forecast(made), *asked.reasons):
        log.info(line)
    page = forecast_pages.forecast_page(made, sources, asked.reasons)
    name = f"forecast-{plan_pages.page_name(page)}"
    workspace.store.replace(keys.report(name), page.encode())
    return receipt(
        "forecast",
        began,
        calls=asked.usage.calls,
        encoded=workspace.encoder_passes,
        cost=asdict(made.cost),
        list_cost=asdict(made.list_cost),
        tokens=asdict(made.tokens),
        unknown=list(made.unknown),
        page=name,
    )


def announce_backfill(outlet: Any, planned: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Announce the chosen sources again; skipped in a dry run."""
    if dry_run:
        raise AirflowSkipException("a dry run: nothing is announced")
    orders = {name: value for name, value in planned["orders"].items() if value is not None}
    return announce(outlet, planned["sources"], "backfill", **orders)
