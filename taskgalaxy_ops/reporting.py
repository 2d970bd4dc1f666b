"""The contact sheet of a store: from the harvest to the page's data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from taskgalaxy_ops.catalogue import Catalogue
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.harvest import Harvest
from taskgalaxy_ops.records import FileReject, Pair, Reject
from taskgalaxy_ops.report import Item, ReportData, render, thumbnail
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.budget import NANO


def write(out: Path, data: ReportData) -> None:
    """Write the page whole: a reader never sees half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(render(data), encoding="utf-8")
    part.replace(out)


def report_data(
    harvest: Harvest,
    *,
    title: str = "TaskGalaxy",
    release_counts: StageCounts | None = None,
    forecast: Mapping[str, Any] | None = None,
) -> ReportData:
    """What the page shows of a harvest. Reads images, all journals and all rows."""
    galaxy = harvest.galaxy
    items = [_item(harvest, pair.image, pair.task_type, pair, None) for pair in harvest.samples]
    items += [
        _item(harvest, r.image, r.task_type, harvest.pairs.get(r.pair) if r.pair else None, r) for r in harvest.rejects
    ]
    items += [_file_item(reject) for reject in harvest.file_rejects]
    notes = []
    if harvest.pending:
        notes.append(f"{harvest.pending:,} units have no answer yet: the numbers are those of an unfinished run.")
    return ReportData(
        title=title,
        simulated=harvest.simulated,
        stage_counts=[*harvest.funnel, *([release_counts] if release_counts else [])],
        items=items,
        thumbnails=lambda image: thumbnail(galaxy.store.get(keys.blob(image))),
        facts=_facts(harvest),
        forecast=_forecast_rows(forecast) if forecast else [],
        notes=notes,
    )


def _facts(harvest: Harvest) -> list[tuple[str, str]]:
    galaxy = harvest.galaxy
    settings = galaxy.settings
    taxonomy = Catalogue(galaxy).version()
    paid = harvest.paid.all
    return [
        ("samples", f"{len(harvest.samples):,}"),
        ("task types covered", f"{len({pair.task_type for pair in harvest.samples}):,} of {len(taxonomy.leaves()):,}"),
        ("images", f"{len(harvest.images):,}"),
        ("sources", ", ".join(sorted({c.source for claims in harvest.claims.values() for c in claims}))),
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


def _item(harvest: Harvest, image: str, task_type: str, pair: Pair | None, reject: Reject | None) -> Item:
    claims = harvest.claims.get(image, [])
    return Item(
        image=image,
        task_type=task_type,
        stage=reject.stage if reject else "",
        reason=reject.reason if reject else "",
        detail=reject.detail if reject else "",
        variant=pair.variant if pair else reject.variant if reject else None,
        pair=pair.pair if pair else None,
        question=pair.question if pair else "",
        answer=pair.answer if pair else "",
        reasoning=pair.reasoning if pair else None,
        votes=harvest.votes.get(pair.pair, []) if pair else [],
        sources=sorted({claim.source for claim in claims}),
        licence=_all(claim.licence for claim in claims),
        attribution=_all(claim.attribution for claim in claims),
    )


def _file_item(reject: FileReject) -> Item:
    detail = f"{reject.file}: {reject.detail}"
    return Item(image=None, stage="ingest", reason=reject.reason, detail=detail, sources=[reject.source])


def _all(values: Iterable[str | None]) -> str | None:
    return "; ".join(sorted({value for value in values if value})) or None
