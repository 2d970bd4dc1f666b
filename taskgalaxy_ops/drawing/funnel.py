"""The funnel as a picture: a river from left to right that narrows where units are rejected or still pending.

The river's height is the share of units that is left. Where one unit becomes several, the river keeps its height and a
mark says how many. Every stage is thus shown in its own units, and its parts add up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from taskgalaxy_ops.drawing.svg import count, esc, fitting, share
from taskgalaxy_ops.funnel import StageCounts

# The names of a stage's units, going in and coming out, in the words of the records.
UNITS = {
    "ingest": ("files", "images"),
    "expand": ("labels", "nodes"),
    "filter": ("matches", "relevant"),
    "write": ("asked for", "pairs"),
    "vote": ("pairs", "samples"),
    "release": ("samples", "released"),
}
_COLUMN = 232  # pixels from a stage to the next
_LEFT = 24
_TOP = 84  # where the river begins, below the headings
_RIVER = 190  # its height at the first stage
_BAR = 7
_ROW = 35  # from the middle of a branch to the next: two lines of text
_TAIL = 132


@dataclass(frozen=True, slots=True)
class _Branch:
    """Something that left the river at a stage."""

    kind: str  # "pending" or "reject"
    name: str
    units: int


def units(stage: str) -> tuple[str, str]:
    """The names of a stage's units, going in and coming out."""
    return UNITS.get(stage, ("in", "out"))


def funnel_svg(stages: Sequence[StageCounts], filters: Collection[tuple[str, str]] = ()) -> str:
    """The funnel as an SVG element; empty without stages. filters: each (stage, reason) that links to the gallery."""
    if not stages:
        return ""
    parts: list[str] = []
    marks: list[str] = []  # drawn last, on the river
    height = float(_RIVER)
    bottom = float(_TOP + _RIVER)
    for number, stage in enumerate(stages):
        x = _LEFT + number * _COLUMN
        last = number == len(stages) - 1
        per_unit = height / stage.units_in if stage.units_in else 0.0
        out = stage.units_out * per_unit
        end = x + _COLUMN + (_BAR if last else 0)
        parts.append(_heading(stage, x))
        if stage.units_out:
            parts.append(f'<rect class="river" x="{x}" y="{_TOP}" width="{end - x}" height="{_thick(out)}"/>')
        parts.append(f'<rect class="bar" x="{x}" y="{_TOP}" width="{_BAR}" height="{_thick(height)}"/>')
        if number:
            marks.append(_multiple(stages[number - 1], stage, x))
        leave = _TOP + out
        row = _TOP + out + 26
        for branch in _branches(stage):
            size = branch.units * per_unit
            parts.append(_branch(stage, branch, (x + _BAR, leave, row, _thick(size)), filters))
            leave += size
            row += max(_thick(size) + 8, _thick(size) / 2 + _ROW)
        bottom = max(bottom, row)
        height = out
    end = _LEFT + len(stages) * _COLUMN
    parts.append(_result(stages[-1], end, height))
    width = end + _TAIL
    pending = sum(stage.pending for stage in stages)
    label = f"Funnel: {count(stages[0].units_in)} {units(stages[0].stage)[0]} to {count(stages[-1].units_out)} "
    label += units(stages[-1].stage)[1] + (f", {count(pending)} pending" if pending else "")
    return (
        f'<svg class="funnel" viewBox="0 0 {width} {bottom:.0f}" role="group" aria-label="{esc(label)}">'
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="hatch-ground" width="6" height="6"/><rect class="hatch-line" width="2" height="6"/></pattern>'
        f"</defs>{''.join(parts + marks)}</svg>"
    )


def _thick(size: float) -> float:
    """A thickness in pixels that is at least visible."""
    return round(max(size, 1.5), 2)


def _branches(stage: StageCounts) -> list[_Branch]:
    rejects = sorted(((units, name) for name, units in stage.rejects.items() if units), key=lambda r: (-r[0], r[1]))
    pending = [_Branch("pending", "pending", stage.pending)] if stage.pending else []
    return pending + [_Branch("reject", name, units) for units, name in rejects]


def _heading(stage: StageCounts, x: float) -> str:
    came, left = units(stage.stage)
    return (
        f'<text class="stage" x="{x}" y="22">{esc(fitting(stage.stage, _COLUMN - 40, 15))}</text>'
        f'<text class="count" x="{x}" y="44">{count(stage.units_in)} {esc(came)}</text>'
        f'<text class="count out" x="{x}" y="64">→ {count(stage.units_out)} {esc(left)}'
        f'<tspan class="share" dx="6">{esc(share(stage.units_out, stage.units_in))}</tspan></text>'
    )


def _multiple(before: StageCounts, after: StageCounts, x: float) -> str:
    if before.units_out == after.units_in or not before.units_out:
        return ""
    times = f"× {after.units_in / before.units_out:.3g}"
    title = f"{count(before.units_out)} {units(before.stage)[1]} became {count(after.units_in)} {units(after.stage)[0]}"
    width = 14 + 7 * len(times)
    return (
        f'<g class="times"><title>{esc(title)}</title>'
        f'<rect x="{x - width - 8}" y="{_TOP + 8}" width="{width}" height="20" rx="10"/>'
        f'<text x="{x - 8 - width / 2}" y="{_TOP + 22}" text-anchor="middle">{times}</text></g>'
    )


def _branch(
    stage: StageCounts,
    branch: _Branch,
    at: tuple[float, float, float, float],
    filters: Collection[tuple[str, str]],
) -> str:
    """A branch as SVG. at: x, y where it leaves the river, y where it ends, thickness (pixels)."""
    x, leave, row, thick = at
    bend, tip = x + 30, x + 60
    path = (
        f"M{x} {leave:.2f}C{bend} {leave:.2f} {bend} {row:.2f} {tip} {row:.2f}"
        f"V{row + thick:.2f}C{bend} {row + thick:.2f} {bend} {leave + thick:.2f} {x} {leave + thick:.2f}Z"
    )
    room = _COLUMN - _BAR - 60 - 18
    middle = row + max(thick / 2, 4)
    title = f"{stage.stage}: {branch.name}, {count(branch.units)} of {count(stage.units_in)}"
    drawn = (
        f"<title>{esc(title)}</title>"
        f'<path d="{path}"/><rect class="tip" x="{tip}" y="{row:.2f}" width="4" height="{thick}"/>'
        f'<text class="branch-count" x="{tip + 11}" y="{middle:.2f}">{count(branch.units)}'
        f'<tspan class="share" dx="6">{esc(share(branch.units, stage.units_in))}</tspan></text>'
        f'<text class="branch-name" x="{tip + 11}" y="{middle + 15:.2f}">{esc(fitting(branch.name, room, 12))}</text>'
    )
    if branch.kind == "reject" and (stage.stage, branch.name) in filters:
        chosen = urlencode({"outcome": "reject", "stage": stage.stage, "reason": branch.name}, errors="replace")
        return f'<a class="branch reject" href="#{esc(chosen)}" aria-label="{esc(title)}">{drawn}</a>'
    return f'<g class="branch {branch.kind}">{drawn}</g>'


def _result(stage: StageCounts, x: float, height: float) -> str:
    return (
        f'<rect class="bar" x="{x}" y="{_TOP}" width="{_BAR}" height="{_thick(height)}"/>'
        f'<text class="result" x="{x + 16}" y="{_TOP + 26}">{count(stage.units_out)}</text>'
        f'<text class="count" x="{x + 16}" y="{_TOP + 46}">{esc(units(stage.stage)[1])}</text>'
    )
