"""Pages for people: the contact sheet of a store, a proposed taxonomy version, a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskgalaxy_ops import look_views, money_views
from taskgalaxy_ops.announcements import announced
from taskgalaxy_ops.canonical import sha256_hex
from taskgalaxy_ops.catalogue import Catalogue, Proposal
from taskgalaxy_ops.forecasting import Checked, Forecast, checked
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.generation import ASKING_STAGES
from taskgalaxy_ops.harvest import Harvest
from taskgalaxy_ops.planning import RunPlan
from taskgalaxy_ops.publishing import published
from taskgalaxy_ops.records import Claim, FileReject, LabelReject, Pair, Reject, Vote
from taskgalaxy_ops.release import markdown
from taskgalaxy_ops.report import Item, ReportData, render, table_page, thumbnail
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.budget import NANO

_DECIDED_UPON = 200  # new nodes in the text that a person decides upon
_NEIGHBOURS = 30


def write(out: Path, data: ReportData) -> None:
    """Write the page whole: a reader never sees half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(render(data), encoding="utf-8")
    part.replace(out)


def page_name(text: str) -> str:
    """A name for a page that the same text has each time."""
    return sha256_hex(text.encode())[:16]


def plan_page(found: RunPlan, sources: Sequence[str], taxonomy: int) -> str:
    """What a backfill would make and ask, why, and what it would take."""
    lead = [f"{', '.join(sources)}: {found.homes:,} shards, with task types of version {taxonomy}. Nothing was asked."]
    header = ("stage", "shards there", "units there", "units to do", "requests", "tokens", "cost", "time")
    why = [(each.stage, f"{shards:,}", reason) for each in found.stages for reason, shards in each.why.items()]
    return table_page(
        "What a backfill would ask",
        [*lead, *look_views.plan_notes(found)],
        [
            ("By stage", header, [look_views.plan_row(each) for each in found.stages]),
            ("Why shards are not there", ("stage", "shards", "what changed"), why),
        ],
    )


def forecast_page(found: Forecast, sources: Sequence[str], reasons: Sequence[str]) -> str:
    """What a run of these sources would cost, with intervals; ``reasons``: why a probe's questions have no answer."""
    header = ("source", "images left", "tokens", "cost", "at list prices", "reckoned")
    lead = f"{', '.join(sources)}. In parentheses is what it lies between in 95 of 100 cases."
    return table_page(
        "What a run would cost",
        [lead, *money_views.forecast_notes(found), *reasons],
        [("By source", header, money_views.forecast_rows(found))],
    )


def proposal_page(found: Proposal, simulated: bool) -> str:
    """Everything of a proposed version."""
    lead = [f"Proposal {found.number}: {len(found.added):,} new nodes on top of version {found.base}."]
    if simulated:
        lead.append("SIMULATED: the teacher that proposed them is a simulated model.")
    added = [(node.path.replace("~", " › "), str(node.level)) for node in found.added]
    return table_page(
        "Proposed task types",
        lead,
        [
            ("New nodes, by path", ("path", "level"), added),
            ("Rejected", ("proposed", "reason", "neighbour", "similarity"), [_rejected(r) for r in found.rejects]),
        ],
    )


def proposal_markdown(found: Proposal) -> str:
    """A proposed version, short enough to decide upon: counts by branch, new nodes, nearest rejected neighbours."""
    branches = Counter(node.path.split("~")[0] for node in found.added)
    lines = [f"**{len(found.added):,} new nodes** on top of version {found.base}.", ""]
    lines += markdown.table(("branch", "new"), [(markdown.text(b), str(n)) for b, n in sorted(branches.items())])
    shown = found.added[:_DECIDED_UPON]
    lines += markdown.table(("new node", "level"), [(markdown.text(n.path), str(n.level)) for n in shown])
    if len(found.added) > len(shown):
        lines += [f"… and {len(found.added) - len(shown):,} more: see the page linked from the task `propose`.", ""]
    near = [reject for reject in found.rejects if reject.similarity is not None]
    near.sort(key=lambda reject: (-(reject.similarity or 0), reject.path))
    lines += [f"**{len(found.rejects):,} proposals rejected**, {len(near):,} of them as twins of a neighbour:", ""]
    lines += markdown.table(
        ("proposed", "reason", "neighbour", "similarity"),
        [tuple(map(markdown.text, _rejected(reject))) for reject in near[:_NEIGHBOURS]],
    )
    return "\n".join(lines)


def _rejected(reject: LabelReject) -> tuple[str, str, str, str]:
    similarity = "" if reject.similarity is None else f"{reject.similarity:.2f}"
    return reject.path.replace("~", " › "), reject.reason, reject.detail.replace("~", " › "), similarity


def report_data(
    harvest: Harvest,
    *,
    title: str = "TaskGalaxy",
    release_counts: StageCounts | None = None,
    forecast: Mapping[str, Any] | None = None,
) -> ReportData:
    """What the page shows of a harvest. Reads images and all rows, those of a home at a time."""
    galaxy = harvest.galaxy
    notes = []
    if harvest.pending:
        notes.append(f"{harvest.pending:,} units have no answer yet: the numbers are those of an unfinished run.")
    return ReportData(
        title=title,
        simulated=harvest.simulated,
        stage_counts=[*harvest.funnel, *([release_counts] if release_counts else [])],
        items=_items(harvest),
        thumbnails=lambda image: thumbnail(galaxy.store.get(keys.blob(image))),
        facts=_facts(harvest),
        forecast=_forecast_rows(forecast) if forecast else _checked_rows(checked(galaxy)),
        notes=notes,
    )


def _facts(harvest: Harvest) -> list[tuple[str, str]]:
    galaxy = harvest.galaxy
    settings = galaxy.settings
    taxonomy = Catalogue(galaxy).version()
    paid = harvest.paid.all
    return [
        ("samples", f"{harvest.count('vote', 'samples'):,}"),
        ("task types covered", f"{harvest.task_types:,} of {len(taxonomy.leaves()):,}"),
        ("images", f"{harvest.live_images:,}"),
        ("sources", ", ".join(harvest.sources)),
        ("teacher", settings.teacher.name),
        ("judges", ", ".join(judge.name for judge in settings.judges)),
        ("encoder", str(galaxy.encoder_identity["name"])),
        ("model calls", f"{paid.calls:,}"),
        ("tokens", f"{paid.tokens:,}"),
        ("cost", f"${paid.cost / NANO:.4f}"),
        ("at list prices", f"${paid.list_cost / NANO:.4f}"),
    ]


def _forecast_rows(forecast: Mapping[str, Any]) -> list[tuple[str, str]]:
    def interval(values: Mapping[str, float], form: str) -> str:
        low, expected, high = (format(values[name], form) for name in ("low", "expected", "high"))
        return f"{expected} ({low} to {high})"

    return [
        ("files", f"{forecast['files']:,}"),
        ("images expected", f"{forecast['images']:,}"),
        ("samples expected", f"{forecast['samples']:,}"),
        ("calls (95 %)", interval(forecast["calls"], ",.0f")),
        ("cost in USD (95 %)", interval(forecast["cost"], ",.4f")),
        ("at list prices in USD (95 %)", interval(forecast["list_cost"], ",.4f")),
    ]


def _checked_rows(found: Checked | None) -> list[tuple[str, str]]:
    """The latest forecast, and what was spent since."""
    if found is None:
        return []
    rows = [("made", money_views.made(found))]
    for unit, said, spent in money_views.amounts(found):
        name = unit.strip() or "cost"
        rows += [(f"{name} (95 %)", said), (f"{name}, spent since", spent)]
    return rows


def _items(harvest: Harvest) -> Iterator[Item]:
    for found, home in harvest.homes():
        claims: dict[str, list[Claim]] = {}
        for claim in harvest.galaxy.registry.claims_of(home.home):
            claims.setdefault(claim.image, []).append(claim)
        votes: dict[str, list[Vote]] = {}
        for vote in harvest.rows(found, "vote", "votes"):
            votes.setdefault(vote.pair, []).append(vote)
        pairs: dict[str | None, Pair] = {pair.pair: pair for pair in harvest.rows(found, "write", "pairs")}
        for pair in harvest.rows(found, "vote", "samples"):
            yield _item(pair, pair, None, claims, votes)
        for stage in ASKING_STAGES:
            for reject in harvest.rows(found, stage, "rejects"):
                yield _item(reject, pairs.get(reject.pair), reject, claims, votes)
    yield from map(_file_item, harvest.file_rejects)


def _item(
    of: Pair | Reject,
    pair: Pair | None,
    reject: Reject | None,
    known: Mapping[str, Sequence[Claim]],
    votes: Mapping[str, Sequence[Vote]],
) -> Item:
    claims = known.get(of.image, [])
    return Item(
        image=of.image,
        task_type=of.task_type,
        stage=reject.stage if reject else "",
        reason=reject.reason if reject else "",
        detail=reject.detail if reject else "",
        variant=pair.variant if pair else reject.variant if reject else None,
        pair=pair.pair if pair else None,
        question=pair.question if pair else "",
        answer=pair.answer if pair else "",
        reasoning=pair.reasoning if pair else None,
        votes=votes.get(pair.pair, []) if pair else [],
        sources=sorted({claim.source for claim in claims}),
        licence=_all(claim.licence for claim in claims),
        attribution=_all(claim.attribution for claim in claims),
    )


def _file_item(reject: FileReject) -> Item:
    detail = f"{reject.file}: {reject.detail}"
    return Item(image=None, stage="ingest", reason=reject.reason, detail=detail, sources=[reject.source])


def _all(values: Iterable[str | None]) -> str | None:
    return "; ".join(sorted({value for value in values if value})) or None


def status_page(galaxy: Galaxy) -> str:
    """Where a store stands, from its logs alone: it encodes nothing, and reads no shard."""
    versions = Catalogue(galaxy).versions()
    spent, budget = galaxy.ledger().spent(), galaxy.settings.budget
    lead = [
        f"{galaxy.settings.store}" + (": SIMULATED models" if galaxy.settings.simulated else ""),
        f"Taxonomy version {len(versions) - 1}, {versions[-1]['leaves']:,} task types.",
        f"Spent ${spent.cost / NANO:.4f} of {'no cap' if budget.max_cost is None else f'${budget.max_cost:.2f}'}, "
        f"{spent.calls:,} calls of {'no cap' if budget.max_calls is None else f'{budget.max_calls:,}'}.",
    ]
    sources = [
        (scan.source, scan.location, f"{scan.claims.rows:,}", f"{scan.rejects.rows:,}")
        for scan in galaxy.registry.scans().values()
    ]
    waiting = [(str(each.number), each.reason, ", ".join(each.open)) for each in announced(galaxy) if each.open]
    releases = [
        (one.name, f"{one.samples:,}", f"{one.task_types:,}", f"{one.images:,}", "partial" if one.partial else "")
        for one in reversed(published(galaxy))
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
