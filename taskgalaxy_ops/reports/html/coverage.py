"""The page of coverage: a treemap of the task types, the same as a list, and the images that fit nothing, in groups.

One file that loads nothing from outside. The treemap is Apache ECharts', which ships in this package (vendor/NOTICE)
and draws all text on a canvas. Labels are data, shown as text nodes; what the page holds as HTML is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from taskgalaxy_ops.drawing.svg import count, esc
from taskgalaxy_ops.reports.html.page import BANNER, json_block, package_file, policy

_FEW = 600  # task types, up to which all are drawn at once; of more, two levels at a time


@dataclass(frozen=True, slots=True)
class PicturedGroup:
    """Images that look alike: their number, JPEGs of some with their ids, and lines about them."""

    images: int
    pictures: Sequence[tuple[str, bytes]]
    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePage:
    """What the page shows. columns: by name, a value for each task type: paths, numbers, and why it has no samples."""

    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    flood: int
    groups_lead: str
    groups: Sequence[PicturedGroup]
    sums: Mapping[str, Mapping[str, Mapping[str, int]]]  # by "source" or "form", and its name
    simulated: bool


def render_coverage(page: CoveragePage) -> str:
    """The page, to be written as UTF-8."""
    css = package_file("page.css") + package_file("coverage.css")
    js = package_file("vendor/echarts.min.js") + "\n" + package_file("coverage.js")
    return Template(package_file("coverage.html")).substitute(
        policy=policy(css, js, "default"),
        tab_title="Simulated: coverage" if page.simulated else "Coverage",
        css=css,
        js=js,
        banner=BANNER if page.simulated else "",
        facts="".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in page.facts),
        notes=f'<ul class="notes">{"".join(f"<li>{esc(note)}</li>" for note in page.notes)}</ul>' if page.notes else "",
        groups_lead=esc(page.groups_lead),
        groups=f'<ul class="groups">{"".join(map(_group, page.groups))}</ul>' if page.groups else "",
        sums="".join(_sums(what, parts) for what, parts in page.sums.items() if parts),
        data=json_block({**page.columns, "flood": page.flood, "few": _FEW}),
    )


def _group(group: PicturedGroup) -> str:
    pictures = "".join(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="" title="{esc(image)}">'
        for image, jpeg in group.pictures
    )
    lines = "".join(f"<p>{esc(line)}</p>" for line in group.lines)
    images = f"{count(group.images)} image{'' if group.images == 1 else 's'}"
    return f'<li><h3>{images}</h3><div class="pictures">{pictures}</div>{lines}</li>'


def _sums(what: str, parts: Mapping[str, Mapping[str, int]]) -> str:
    names = ("samples", "pairs", "kept", "matched")
    head = "".join(f"<th>{each}</th>" for each in (esc(what.title()), "Samples", "Pairs", "Fitting", "Matches"))
    rows = []
    for name, sums in parts.items():
        cells = "".join(f"<td>{count(sums[each]) if each in sums else ''}</td>" for each in names)
        rows.append(f'<tr><th scope="row"><bdi>{esc(name)}</bdi></th>{cells}</tr>')
    return f'<table class="sums"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
