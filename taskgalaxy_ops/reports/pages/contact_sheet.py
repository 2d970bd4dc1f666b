"""The contact sheet: one page by which a data engineer judges a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.operations.forecast import Checked, checked
from taskgalaxy_ops.records import Claim, FileReject, Pair, Reject, TaskTypePath, Vote, images_in, turns_in
from taskgalaxy_ops.reports.html import Item, ReportData, render, thumbnail
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.taxonomy.store import TaxonomyStore


def write(out: Path, data: ReportData) -> None:
    """Write the page and rename it into place, so that no reader sees half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(render(data), encoding="utf-8")
    part.replace(out)


def report_data(
    results: RunResults,
    *,
    title: str = "TaskGalaxy",
    release_counts: StageCounts | None = None,
    forecast: Mapping[str, Any] | None = None,
) -> ReportData:
    """The page's data from a run's results. Images and rows are read while the page is rendered, shard by shard.

    release_counts: the funnel's last stage, where a release was made. forecast: a pilot's; None: the store's latest.
    """
    workspace = results.workspace
    notes = []
    if results.pending:
        notes.append(f"{results.pending:,} units have no answer yet: the numbers are those of an unfinished run.")
    return ReportData(
        title=title,
        simulated=results.simulated,
        stage_counts=[*results.funnel, *([release_counts] if release_counts else [])],
        items=_items(results),
        thumbnails=lambda image: thumbnail(read_image(workspace, image)),
        facts=_facts(results),
        forecast=_forecast_rows(forecast) if forecast else _checked_rows(checked(workspace)),
        notes=notes,
    )


def _facts(results: RunResults) -> list[tuple[str, str]]:
    workspace = results.workspace
    settings = workspace.settings
    taxonomy = TaxonomyStore(workspace).version()
    paid = results.paid.all
    return [
        ("samples", f"{results.count('vote', 'samples'):,}"),
        ("task types covered", f"{results.task_types:,} of {len(taxonomy.leaves()):,}"),
        ("images", f"{results.live_images:,}"),
        ("sources", ", ".join(results.sources)),
        ("teacher", settings.teacher.name),
        ("judges", ", ".join(judge.name for judge in settings.judges)),
        ("encoder", str(workspace.encoder_identity["name"])),
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


def _checked_rows(check: Checked | None) -> list[tuple[str, str]]:
    """The latest forecast, and what was spent since."""
    if check is None:
        return []
    rows = [("made", costs_text.made(check))]
    for unit, expected, spent in costs_text.amounts(check):
        name = unit.strip() or "cost"
        rows += [(f"{name} (95 %)", expected), (f"{name}, spent since", spent)]
    return rows


def _items(results: RunResults) -> Iterator[Item]:
    shown = TaxonomyStore(results.workspace).version().shown
    for outputs, shard in results.shards():
        claims: dict[str, list[Claim]] = {}
        for claim in results.workspace.registry.claims_of(shard.id):
            claims.setdefault(claim.image, []).append(claim)
        votes: dict[str, list[Vote]] = {}
        for vote in results.rows(outputs, "vote", "votes"):
            votes.setdefault(vote.pair, []).append(vote)
        pairs: dict[str | None, Pair] = {pair.pair: pair for pair in results.rows(outputs, "write", "pairs")}
        for pair in results.rows(outputs, "vote", "samples"):
            yield _item(pair, shown(pair.task_type), pair, None, claims, votes)
        for stage in ASKING:
            for reject in results.rows(outputs, stage, "rejects"):
                yield _item(reject, shown(reject.task_type), pairs.get(reject.pair), reject, claims, votes)
    yield from map(_file_item, results.file_rejects)


def _item(
    of: Pair | Reject,
    task_type: TaskTypePath,
    pair: Pair | None,
    reject: Reject | None,
    known: Mapping[str, Sequence[Claim]],
    votes: Mapping[str, Sequence[Vote]],
) -> Item:
    claims = [claim for image in (of.image, *images_in(of.further_images)) for claim in known.get(image, [])]
    return Item(
        image=of.image,
        task_type=task_type,
        stage=reject.stage if reject else "",
        reason=reject.reason if reject else "",
        detail=reject.detail if reject else "",
        variant=pair.variant if pair else reject.variant if reject else None,
        pair=pair.pair if pair else None,
        question=pair.question if pair else "",
        answer=pair.answer if pair else "",
        reasoning=pair.reasoning if pair else None,
        further_turns=turns_in(pair.further_turns) if pair else (),
        further_images=images_in(of.further_images),
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
