"""Tasks of galaxy_backfill: plan, forecast, announce sources again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from galaxy_airflow import metrics
from galaxy_airflow.forms import PLAN_FIRST, number
from galaxy_airflow.links import page_of
from galaxy_airflow.operators import NotChosen
from galaxy_airflow.runtime import log, opened, progress, receipt
from galaxy_airflow.tasks.common import several
from galaxy_airflow.tasks.sources import announce
from taskgalaxy_ops.errors import SourceError
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.operations.forecast import forecast, record
from taskgalaxy_ops.operations.plan import RunPlan
from taskgalaxy_ops.operations.plan import plan as plan_run
from taskgalaxy_ops.operations.probe import probe
from taskgalaxy_ops.release import markdown
from taskgalaxy_ops.reports.pages import forecast as forecast_pages
from taskgalaxy_ops.reports.pages import plan as plan_pages
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

_NAMES = 500  # characters of the sources' names that the form shows
_ROWS = 5  # of a table there: with more, the buttons would be out of view


def plan(form: Mapping[str, Any]) -> dict[str, Any]:
    """Plan a backfill and write the plan's page; unless it is a dry run, publish an older taxonomy version as newest.

    form: the trigger form. Raises SourceError where no source is registered.
    """
    began = time.monotonic()
    workspace = opened(number(form["settings_version"]))
    sources = list(form["sources"] or sorted(workspace.registry.scans()))
    if not sources:
        raise SourceError("backfill: no source is registered. Run galaxy_ingest or galaxy_watch first.")
    taxonomy_store = TaxonomyStore(workspace)
    newest = taxonomy_store.version().number
    chosen = number(form["taxonomy_version"])
    version = newest if chosen is None else chosen
    planned, _ = _planned(workspace, sources, version)
    if version != newest and not form["dry_run"]:
        newest = taxonomy_store.publish(
            newest, taxonomy_store.version(version).nodes, [], f"backfill of version {version}"
        )
    max_cost = None if form["budget"] is None else workspace.ledger().spent().cost / NANO + form["budget"]
    orders = {"settings_version": number(form["settings_version"]), "max_cost": max_cost}
    return receipt("planned", began, **planned, orders=orders)


def _planned(
    workspace: Workspace, sources: Sequence[str], taxonomy: int | None = None
) -> tuple[dict[str, Any], RunPlan]:
    """Plan a run of these sources and write the plan's page; returns what the task's receipt says, and the plan."""
    version = TaxonomyStore(workspace).version(taxonomy).number
    run_plan = plan_run(workspace, sources, taxonomy=version)
    for line in plan_text.plan(run_plan):
        log.info(line)
    page = plan_pages.plan_page(run_plan, sources, version)
    name = f"plan-{plan_pages.page_name(page)}"
    workspace.store.replace(keys.report(name), page.encode())
    told = {
        "sources": list(sources),
        "taxonomy_version": version,
        "shards": run_plan.shards,
        "units": {each.stage: round(each.units.expected) for each in run_plan.stages},
        "cost": None if (cost := run_plan.total("cost")) is None else cost.expected,
        "next_release_loses": run_plan.outlook.losses if run_plan.outlook else 0,
        "page": name,
    }
    return told, run_plan


def plan_first(registered: Any, then: str) -> tuple[dict[str, Any], str]:
    """Plan what the models would be asked about these sources, and write the plan's page; skipped unless chosen.

    The text is short, so that the buttons below it are in view: the page says how to read the numbers.

    registered: the receipts of the tasks that registered them; others stand for all sources. Returns the receipt, and
    the text (Markdown) for the person who decides.
    """
    if then != PLAN_FIRST:
        raise NotChosen(f"{then}: no plan was asked for")
    began, workspace = time.monotonic(), opened()
    sources = sorted({each["source"] for each in several(registered) if "source" in each} or workspace.registry.scans())
    if not sources:
        raise AirflowSkipException("no source is registered: there is nothing to plan")
    told, run_plan = _planned(workspace, sources)
    asking = [each for each in run_plan.stages if each.stage in ASKING]
    rows = [[markdown.text(cell) for cell in plan_text.plan_row(each)[:-1]] for each in asking]
    made = forecast(workspace, sources)
    expected = [[markdown.text(cell) for cell in row] for row in costs_text.forecast_rows(made)]
    if len(sources) == 1:
        expected = expected[:1]
    elif len(expected) > _ROWS:
        expected = [*expected[: _ROWS - 1], expected[-1]]  # all of them together
    lines = [
        f"Sources {markdown.text(', '.join(sources), _NAMES)}: [the plan with reasons]({page_of(told)})",
        "",
        *markdown.table(plan_text.HEADER[:-1], rows),
        *(f"{markdown.text(note)}  " for note in plan_text.plan_notes(run_plan, in_short=True)),
        "",
        *(markdown.table(forecast_pages.HEADER, expected) if expected else []),
        *(f"{markdown.text(note)}  " for note in costs_text.forecast_notes(made)[:_ROWS]),
    ]
    return receipt("planned", began, **told), "\n".join(lines)


def forecast_backfill(planned: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    """Forecast what the planned backfill would cost, with an interval, and write the forecast's page.

    Where too few images of a source are answered, a few are asked about first, unless the source is so small that they
    would be too few, too, and the answers of other sources give a forecast. A source whose requests stay without an
    answer (a model is out of reach, a batch is under way) has none. Skipped unless ``wanted``.
    """
    if not wanted:
        raise NotChosen("no forecast was asked for")
    began, workspace = time.monotonic(), opened(**planned["orders"])
    sources, version = planned["sources"], planned["taxonomy_version"]
    with progress() as shown:
        asked = probe(workspace, None, sources, version, shown, wait=False, only_needed=True)
    seconds = time.monotonic() - began
    metrics.tell(lambda: [metrics.Work(dag="galaxy_backfill", stage="forecast", usage=asked.usage, seconds=seconds)])
    made = forecast(workspace, sources, version)
    record(workspace, made)
    for line in costs_text.forecast(made, asked):
        log.info(line)
    page = forecast_pages.forecast_page(made, sources, asked)
    name = f"forecast-{plan_pages.page_name(page)}"
    workspace.store.replace(keys.report(name), page.encode())
    return receipt(
        "forecast",
        began,
        asked=sum(asked.images.values()),
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
        raise NotChosen("a dry run: nothing is announced")
    orders = {name: value for name, value in planned["orders"].items() if value is not None}
    return announce(outlet, planned["sources"], "backfill", **orders)
