"""The page of the store's state, as *Browse, Galaxy* shows it."""

from __future__ import annotations

from taskgalaxy_ops.operations.airflow.announcements import announced
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def status_page(workspace: Workspace) -> str:
    """The store's state (HTML), read from its logs alone: no image is encoded and no stage output is read."""
    versions = TaxonomyStore(workspace).versions()
    spent, budget = workspace.ledger().spent(), workspace.settings.budget
    lead = [
        f"{workspace.settings.store}" + (": SIMULATED models" if workspace.settings.simulated else ""),
        f"Taxonomy version {len(versions) - 1}, {versions[-1]['leaves']:,} task types.",
        f"Spent ${spent.cost / NANO:.4f} of {'no cap' if budget.max_cost is None else f'${budget.max_cost:.2f}'}, "
        f"{spent.calls:,} calls of {'no cap' if budget.max_calls is None else f'{budget.max_calls:,}'}.",
    ]
    sources = [
        (scan.source, scan.location, f"{scan.claims.rows:,}", f"{scan.rejects.rows:,}")
        for scan in workspace.registry.scans().values()
    ]
    waiting = [(str(each.number), each.reason, ", ".join(each.open)) for each in announced(workspace) if each.open]
    releases = [
        (
            release.name,
            f"{release.samples:,}",
            f"{release.task_types:,}",
            f"{release.images:,}",
            "partial" if release.partial else "",
        )
        for release in reversed(published(workspace))
    ]
    return table_page(
        "TaskGalaxy",
        lead,
        [
            ("Sources", ("source", "location", "images", "rejects"), sources),
            ("Announced, and not ended", ("number", "by", "sources"), waiting),
            ("Releases", ("version", "samples", "task types", "images", ""), releases),
        ],
    )
