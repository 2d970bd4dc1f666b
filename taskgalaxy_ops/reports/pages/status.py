"""The page of the store's state, as *Galaxy* in Airflow's navigation shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from taskgalaxy_ops.inference.model_health import outages
from taskgalaxy_ops.operations.airflow.announcements import announced, left
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.reports.html import Link, table_page
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.text import moment
from taskgalaxy_ops.workspace import Workspace

Table = tuple[str, Sequence[str], Sequence[Sequence[str | Link]]]


def status_page(
    workspace: Workspace,
    *,
    runs: Iterable[Table] = (),
    run_of: Mapping[str, Link] | None = None,
    root: str = "",
) -> str:
    """The store's state (HTML), read from its logs alone: no image is encoded and no stage output is read.

    runs: tables of Airflow's runs, shown first. run_of: by source, a link to its latest run. root: the path of our
    pages on the server that shows this one; "": nothing is linked.
    """
    versions = TaxonomyStore(workspace).versions()
    spent, budget = workspace.ledger().spent(), workspace.settings.budget
    lead = [
        f"{workspace.settings.store}" + (": SIMULATED models" if workspace.settings.simulated else ""),
        f"Taxonomy version {len(versions) - 1}, {versions[-1]['leaves']:,} task types.",
        f"Spent ${spent.cost / NANO:.4f} of {'no cap' if budget.max_cost is None else f'${budget.max_cost:.2f}'}, "
        f"{spent.calls:,} calls of {'no cap' if budget.max_calls is None else f'{budget.max_calls:,}'}.",
    ]
    sources = [
        (
            scan.source,
            (run_of or {}).get(scan.source, ""),
            scan.location,
            f"{scan.claims.rows:,}",
            f"{scan.rejects.rows:,}",
        )
        for scan in workspace.registry.scans().values()
    ]
    waiting = [
        (str(each.number), moment(each.at), each.reason, ", ".join(each.open))
        for each in announced(workspace)
        if each.open
    ]
    return table_page(
        "TaskGalaxy",
        lead,
        [
            ("Models that serve nothing", ("model", "since (UTC)", "last tried", "why"), _outages(workspace)),
            *runs,
            ("Releases", ("version", "made (UTC)", "samples", "task types", "images", ""), _releases(workspace, root)),
            ("Sources", ("source", "latest run", "location", "images", "rejects"), sources),
            ("Without an answer", ("source", "units that its latest run left", "why"), _without_answer(workspace)),
            ("Announced, and not ended", ("number", "at (UTC)", "by", "sources"), waiting),
        ],
    )


def _outages(workspace: Workspace) -> list[Sequence[str]]:
    found = outages(workspace.store, workspace.settings.models)
    return [(each.model, moment(each.since), moment(each.seen), each.why) for each in found]


def _without_answer(workspace: Workspace) -> list[Sequence[str]]:
    """What the latest run of each source left, and what keeps it from being asked now."""
    ledger, away = workspace.ledger(), [row[0] for row in _outages(workspace)]
    rows: list[Sequence[str]] = []
    for source, units in left(workspace).items():
        why = [f"{model} serves nothing" for model in away]
        why += [f"the budget is spent ({name})" for name in ledger.reached(source)]
        if batches := ledger.batches(source):
            why.append(f"batches under way: {batches:,}")
        said = "; ".join(why) or "not asked since: galaxy_backfill runs it again, galaxy_generate too"
        rows.append((source, f"{units:,}", said))
    return rows


def _releases(workspace: Workspace, root: str) -> list[Sequence[str | Link]]:
    """The releases, newest first, each linked to its contact sheet."""
    sheets = {each.key: each.written for each in workspace.store.list(f"{keys.REPORTS}release-")}
    rows: list[Sequence[str | Link]] = []
    for release in reversed(published(workspace)):
        page = f"release-{release.name}"
        made = sheets.get(keys.report(page))
        rows.append(
            (
                Link(release.name, f"{root}/reports/{page}") if root and made is not None else release.name,
                "" if made is None else moment(made),
                f"{release.samples:,}",
                f"{release.task_types:,}",
                f"{release.images:,}",
                "partial" if release.partial else "",
            )
        )
    return rows
