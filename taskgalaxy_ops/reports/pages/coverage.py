"""The page of coverage: which task types starve and which flood, and which images fit nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.generation.coverage import DRAWN, Coverage, Numbers
from taskgalaxy_ops.operations.coverage import FLOOD, CoverageReport, why
from taskgalaxy_ops.operations.coverage_groups import Group
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.reports.html.coverage import CoveragePage, PicturedGroup, render_coverage
from taskgalaxy_ops.reports.text.coverage import path

_SIDE = 160  # pixels of a picture

Thumbnail = Callable[[ImageId, int], bytes]  # JPEG of at most so many pixels a side; raises NotFoundError


def write(out: Path, page: str) -> None:
    """Write the page and rename it into place, so that no reader sees half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(page, encoding="utf-8")
    part.replace(out)


def coverage_page(
    coverage: Coverage,
    targets: Numbers,
    whole: CoverageReport,
    groups: Sequence[Group],
    thumbnail: Thumbnail,
    *,
    simulated: bool,
) -> str:
    """The page (HTML) of all task types; ``whole``: the report on all of them."""
    counts = coverage.counts
    columns = {name: getattr(counts, name).tolist() for name in ("matched", "kept", "pairs", "samples")}
    own = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    facts = [
        ("task types", f"{whole.task_types:,}"),
        ("starve", f"{whole.starving:,}"),
        ("flood", f"{whole.flooding:,}"),
        ("target", f"{whole.target:,} samples"),
        ("samples", f"{whole.total['samples']:,}"),
        ("images", f"{whole.images:,}"),
        ("fit nothing", f"{whole.unmatched:,}"),
        ("taxonomy version", str(whole.taxonomy)),
    ]
    return render_coverage(
        CoveragePage(
            facts=facts,
            notes=_notes(whole),
            columns={
                "types": coverage.types,
                "target": targets.tolist(),
                **columns,
                "why": [why(each) for each in own],
            },
            flood=FLOOD,
            groups_lead=_lead(whole),
            groups=[_pictured(group, thumbnail) for group in groups],
            sums={"source": whole.sources, "form": whole.forms},
            simulated=simulated,
        )
    )


def _notes(whole: CoverageReport) -> list[str]:
    notes = []
    if whole.waiting:
        notes.append(f"{whole.waiting:,} more images have no embedding yet: they are not counted.")
    if whole.pending:
        notes.append(f"{whole.pending:,} units have no answer yet: the numbers are those of an unfinished run.")
    return notes


def _lead(whole: CoverageReport) -> str:
    if not whole.unmatched:
        return "Every image fits a task type, or waits for an answer."
    drawn = f" The groups are of {DRAWN:,} of them, drawn by hash." if whole.unmatched > DRAWN else ""
    return (
        f"{whole.unmatched:,} of {whole.images:,} images fit none of the task types near them; those that look alike "
        f"are one group. What they show may be worth new task types.{drawn}"
    )


def _pictured(group: Group, thumbnail: Thumbnail) -> PicturedGroup:
    pictures = []
    for image in group.pictures:
        try:
            pictures.append((image, thumbnail(image, _SIDE)))
        except NotFoundError:  # taken down meanwhile
            continue
    nearest = [f"{path(each)} ({similarity:.2f})" for each, similarity in group.nearest]
    return PicturedGroup(group.images, pictures, [f"Nearest: {'; '.join(nearest)}"] if nearest else [])
