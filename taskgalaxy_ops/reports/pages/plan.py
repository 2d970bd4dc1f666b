"""The page of a plan: what a backfill would make, and what it would ask the models."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.operations.plan import RunPlan
from taskgalaxy_ops.reports.html import table_page
from taskgalaxy_ops.reports.text import plan as plan_text
from taskgalaxy_ops.reports.text.targets import targets


def page_name(text: str) -> str:
    """A page's name that depends only on ``text``: 16 hex digits."""
    return sha256_hex(text.encode())[:16]


def plan_page(found: RunPlan, sources: Sequence[str], taxonomy: int) -> str:
    """What a backfill would make and ask, for what reason, and what it would cost (HTML). taxonomy: version number."""
    lead = [f"{', '.join(sources)}: {found.shards:,} shards, with task types of version {taxonomy}. Nothing was asked."]
    header = ("stage", "shards there", "units there", "units to do", "requests", "tokens", "cost", "time")
    why = [(each.stage, f"{shards:,}", reason) for each in found.stages for reason, shards in each.why.items()]
    return table_page(
        "What a backfill would ask",
        [*lead, *targets(found.targets), *plan_text.plan_notes(found)],
        [
            ("By stage", header, [plan_text.plan_row(each) for each in found.stages]),
            ("Why shards are not there", ("stage", "shards", "what changed"), why),
        ],
    )
