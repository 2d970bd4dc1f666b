"""The text of `plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from taskgalaxy_ops.generation.stages import ASKING, STAGE
from taskgalaxy_ops.operations.plan import Basis, Bounds, RunPlan, StagePlan
from taskgalaxy_ops.operations.release_outlook import ReleaseOutlook
from taskgalaxy_ops.reports.text.release import reasons
from taskgalaxy_ops.reports.text.targets import targets
from taskgalaxy_ops.text import dollars, shown

# --- plan

HEADER = ("", "shards there", "units there", "units to do", "requests", "tokens", "cost", "time")


def plan(found: RunPlan) -> list[str]:
    """The plan as a table; below each stage, why its outputs are missing."""
    lines = [f"{found.shards:,} shards, {found.task_types:,} task types. Nothing was asked. A run would do:"]
    rows = [HEADER, *(plan_row(each) for each in found.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row, stage in zip(rows, [None, *found.stages], strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if stage:
            lines += [f"{'':8}{shards:,} shards: {shown(why)}" for why, shards in stage.why.items()]
    return [*lines, *targets(found.targets), *plan_notes(found)]


def plan_row(each: StagePlan) -> tuple[str, ...]:
    """A stage's cells: name, shards done, units done, units to do, requests, tokens, cost, time."""
    stage = STAGE[each.stage]
    asks = stage.asks
    return (
        each.stage,
        f"{each.shards_there:,} of {each.shards:,}",
        f"{each.units_there:,}",
        f"{_bounds(each.units)} {stage.planned}",
        _known(each.requests) if asks else "",
        _known(each.tokens) if asks else "",
        _known(each.cost, dollars) if asks else "",
        _known(each.seconds, _time),
    )


def plan_notes(found: RunPlan, *, in_short: bool = False) -> list[str]:
    """The total of a plan, and, unless in short, how to read its numbers."""
    cost, listed, seconds = (found.total(name) for name in ("cost", "list_cost", "seconds"))
    notes = []
    if not any(each.units.high for each in found.stages):
        return ["nothing to do", *outlook(found.outlook)]
    if cost is None:
        notes.append(
            "Some cost is not known: nothing of that stage has been asked yet. A probe of a few images measures it: "
            "`taskgalaxy plan --probe`, or *Forecast* in the form of galaxy_backfill."
        )
    else:
        notes.append(f"together {_bounds(cost, dollars)}" + (f", {_bounds(seconds, _time)}" if seconds else ""))
    if cost is not None and listed is not None and listed.high > cost.high:
        notes.append(f"at list prices {_bounds(listed, dollars)}")
    if in_short:
        return [*notes, *outlook(found.outlook)]
    if any(not each.units.exact for each in found.stages):
        notes.append("a to b: if nothing, or all, of what is asked before passes; about: by the shares so far")
        if found.targets:
            notes.append(
                "with targets, a of the filter's units is what task types need in any case, and b is all their tries"
            )
        notes += [
            f"nothing of {each.stage} is answered yet, of no source: what follows it is expected as if all passed"
            for each in found.stages
            if each.stage in ASKING[:-1] and each.units.high and not each.basis.images
        ]
    if any(each.requests and each.requests.high for each in found.stages):
        notes.append("requests, tokens, cost and time: by what a unit of the stage took so far")
    return [*notes, *_elsewhere(found.stages), *outlook(found.outlook)]


def outlook(found: ReleaseOutlook | None) -> list[str]:
    """What the next release would lose of the latest one's samples; nothing where it loses none."""
    if found is None or not (found.losses or found.open):
        return []
    parts = [f"loses {found.losses:,} ({reasons(found.lost)})"] if found.losses else []
    parts += [f"does not know yet of {found.open:,}, which wait for an answer"] if found.open else []
    return [f"of the {found.samples:,} samples of {found.since} the next release {', and '.join(parts)}"]


def _elsewhere(stages: Sequence[StagePlan]) -> list[str]:
    """What is expected by the answers of other sources."""
    by_basis: dict[Basis, list[str]] = {}
    for each in stages:
        if each.stage in ASKING and each.basis.elsewhere:
            by_basis.setdefault(each.basis, []).append(each.stage)
    return [
        f"too little is answered of what is planned: the shares and costs of {', '.join(names)} are those of "
        f"{basis.images:,} images in {basis.shards:,} shards of all sources, from which these may well differ"
        for basis, names in by_basis.items()
    ]


def _known(bounds: Bounds | None, form: Callable[[float], str] | None = None) -> str:
    return "not known" if bounds is None else _bounds(bounds, form or _number)


def _bounds(bounds: Bounds, form: Callable[[float], str] | None = None) -> str:
    form = form or _number
    low, expected, high = form(bounds.low), form(bounds.expected), form(bounds.high)
    return low if low == high else f"{low} to {high}, about {expected}"


def _number(value: float) -> str:
    return f"{round(value):,}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
