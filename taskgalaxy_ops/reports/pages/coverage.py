"""The page of coverage: which task types starve and which flood, and which images fit nothing."""

from __future__ import annotations

from collections.abc import Sequence

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.generation.coverage import DRAWN, Coverage, Numbers
from taskgalaxy_ops.operations.coverage import FLOOD, CoverageReport, report, why
from taskgalaxy_ops.operations.coverage_groups import Group
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.html.coverage import CoveragePage, PicturedGroup, render_coverage
from taskgalaxy_ops.reports.text.coverage import path
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.workspace import Workspace

_SIDE = 160  # pixels of a picture


def coverage_page(workspace: Workspace, coverage: Coverage, targets: Numbers, groups: Sequence[Group]) -> str:
    """The page (HTML) of all task types. Reads the pictures of the groups."""
    whole = report(coverage, targets, most=0)
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
            groups=[_pictured(workspace, group) for group in groups],
            sums={"source": whole.sources, "form": whole.forms},
            simulated=workspace.settings.simulated,
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


def _pictured(workspace: Workspace, group: Group) -> PicturedGroup:
    pictures = []
    for image in group.pictures:
        try:
            pictures.append((image, thumbnail(read_image(workspace, image), _SIDE)))
        except NotFoundError:  # taken down meanwhile
            continue
    nearest = [f"{path(each)} ({similarity:.2f})" for each, similarity in group.nearest]
    return PicturedGroup(group.images, pictures, [f"Nearest: {'; '.join(nearest)}"] if nearest else [])
