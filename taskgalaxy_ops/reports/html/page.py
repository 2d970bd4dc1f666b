"""The contact sheet's HTML: one file that loads nothing from outside, and treats every text as hostile.

The page's script reads the items from JSON in a data block and shows them as text nodes; text within HTML or SVG is
escaped; a strict content security policy allows the page's own script and style by hash, pictures as data URLs, and
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from taskgalaxy_ops.drawing.funnel import funnel_svg, units
from taskgalaxy_ops.drawing.svg import count, esc
from taskgalaxy_ops.drawing.treemap import treemap_svg
from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.funnel import StageCounts
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.reports.html.data import Item, ReportData, pick

BANNER = (
    '<p class="banner" role="note"><strong>Simulated</strong> <span>Simulated models wrote the questions, answers and '
    "votes on this page. They show that the pipeline works; they say nothing about a real teacher or real judges."
    "</span></p>"
)
# Characters that are escaped in JSON's strings: those of markup, line ends of older JavaScript, and those that change
# the reading direction. Lone surrogates, which have no UTF-8 form, are replaced.
_ESCAPES = {
    code: f"\\u{code:04x}"
    for code in (*map(ord, "<>&"), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
} | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")

# Airflow's choice of light or dark, which a page in a frame is not told otherwise.
_THEME_JS = """
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "dark" || chosen === "light") {
    document.documentElement.dataset.theme = chosen;
    addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (link) link.search = "?theme=" + chosen;
    }, true);
  }
} catch (error) {}
"""

_TABLE_CSS = """
.tables a { color: var(--accent); }
.tables main { max-width: 90rem; margin: 0 auto; padding: 2rem; }
.tables h2 { margin: 2rem 0 0.5rem; }
.tables th, .tables td, .tables td:not(:first-child), .tables th:not(:first-child) {
  padding: 0.35rem 1.25rem 0.35rem 0; text-align: left; overflow-wrap: break-word; max-width: 60rem;
}
.tables th { white-space: nowrap; }
.tables td img { height: 48px; margin-right: 4px; border-radius: 4px; vertical-align: middle; }
.tables td.pictures { white-space: nowrap; }
.tables td.captioned { width: 15rem; min-width: 15rem; color: var(--soft); font-size: 12px; }
.tables td.captioned img { display: block; height: auto; max-height: 220px; max-width: 100%; margin-bottom: 0.25rem; }
.tables td.captioned p { overflow-wrap: anywhere; }
.tables td.lines { min-width: 14rem; }
.tables td.lines p { margin-bottom: 0.2rem; padding-left: 1.5em; text-indent: -1.5em; }
.tables summary { margin: 0.75rem 0; font-weight: 600; }
.tables img.plot { max-width: 100%; background: #fff; padding: 0.5rem; border-radius: 6px; }
.tables td.number, .tables td.number:not(:first-child) {
  text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
}
"""


def render(data: ReportData, max_items: int = 600) -> str:
    """The page, to be written as UTF-8.

    It shows at most ``max_items`` items, picked evenly, and says how many of how many.
    """
    picked = pick(data.items, max_items)
    shown_items = picked.items
    css, js = package_file("page.css"), package_file("page.js")
    unit, types = ("samples", picked.samples) if picked.samples else ("rejects", picked.rejects)
    filters = {(item.stage, item.reason) for item in shown_items if item.stage}
    return Template(package_file("page.html")).substitute(
        policy=policy(css, js),
        tab_title=esc(f"Simulated: {data.title}" if data.simulated else data.title),
        title=esc(data.title),
        css=css,
        js=js,
        banner=BANNER if data.simulated else "",
        tag='<strong class="tag">Simulated</strong>' if data.simulated else "",
        facts=_rows(data.facts),
        notes=_notes(data.notes),
        forecast=_forecast(data.forecast),
        funnel=funnel_svg(data.stage_counts, filters),
        funnel_table=_funnel_table(data.stage_counts),
        types_lead=_types_lead(types, unit),
        treemap=treemap_svg(types, unit),
        gallery_lead=_gallery_lead(len(shown_items), picked.total),
        items=json_block([_item_fields(item) for item in shown_items]),
        images=json_block(_thumbnails(data, shown_items)),
    )


@dataclass(frozen=True, slots=True)
class Link:
    """Text of a page that leads to another page of ours. href: made by the program, never by a model or a person."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """A cell of pictures. jpegs: files that the program wrote (see ``thumbnail``). caption: lines of text below them; a
    picture with a caption is large.
    """

    jpegs: Sequence[bytes]
    caption: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """A cell of several lines of text."""

    lines: Sequence[str]


Cell = str | Link | Pictures | Lines


def table_page(
    title: str,
    lead: Sequence[str | Link],
    tables: Iterable[tuple[str, Sequence[str], Sequence[Sequence[Cell]]]],
    pictures: Iterable[tuple[str, bytes]] = (),
    folded: Iterable[tuple[str, Sequence[str], Sequence[Sequence[Cell]]]] = (),
    simulated: bool = False,
) -> str:
    """A page of plain tables, each with caption, header and rows, in the contact sheet's style.

    pictures: captions and SVG, shown between the lead and the tables; as <img>, so that no script in them runs. folded:
    further tables, shown when their caption is clicked. simulated: the banner is above all. The page is dark where
    Airflow is, if it is shown within it.
    """
    css = package_file("page.css") + _TABLE_CSS
    parts = [f"<h1>{esc(title)}</h1>", *(f"<p>{_text(line)}</p>" for line in lead)]
    for caption, svg in pictures:
        source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        parts.append(f'<h2>{esc(caption)}</h2><img class="plot" src="{source}" alt="{esc(caption)}">')
    parts += [f"<h2>{esc(each[0])} ({count(len(each[2]))})</h2>{_table(*each[1:])}" for each in tables]
    for caption, header, rows in folded:
        summary = f"<summary>{esc(caption)} ({count(len(rows))})</summary>"
        parts.append(f"<details>{summary}{_table(header, rows)}</details>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{esc(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(css, _THEME_JS)}"><style>{css}</style>'
        f"<script>{_THEME_JS}</script></head>"
        f'<body class="tables">{BANNER if simulated else ""}<main>{"".join(parts)}</main></body></html>'
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{esc(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(cell: str | Link) -> str:
    return f'<a href="{esc(cell.href)}">{esc(cell.text)}</a>' if isinstance(cell, Link) else esc(cell)


def _cell(text: Cell) -> str:
    if isinstance(text, Pictures):
        sources = (base64.b64encode(jpeg).decode() for jpeg in text.jpegs)
        return (
            f'<td class="{"captioned" if text.caption else "pictures"}">'
            + "".join(f'<img src="data:image/jpeg;base64,{source}" alt="">' for source in sources)
            + _lines(text.caption)
            + "</td>"
        )
    if isinstance(text, Lines):
        return f'<td class="lines">{_lines(text.lines)}</td>'
    if isinstance(text, Link):
        return f"<td>{_text(text)}</td>"
    number = text.lstrip("$").removesuffix("%").replace(",", "").replace(".", "", 1).isdecimal()
    return f'<td class="number">{esc(text)}</td>' if number else f"<td>{esc(text)}</td>"


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"<p>{esc(line)}</p>" for line in lines)


def package_file(name: str) -> str:
    """A file of this package that is part of a page."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def policy(css: str, js: str, trusted: str = "'none'") -> str:
    """The content security policy of a page with this style and script; ``trusted``: the names of its Trusted Types."""
    style, script = (
        "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, js)
    )
    return (
        f"default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none'; "
        f"form-action 'none'; require-trusted-types-for 'script'; trusted-types {trusted}"
    )


def json_block(value: Any) -> str:
    """JSON that cannot end or open an element wherever it is embedded."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)


def _item_fields(item: Item) -> dict[str, Any]:
    return {
        "image": item.image,
        "images": list(item.images),
        "type": item.task_type,
        "outcome": item.outcome,
        "stage": item.stage,
        "reason": item.reason,
        "detail": item.detail,
        "variant": item.variant or "",
        "pair": item.pair or "",
        "question": item.question,
        "answer": item.answer,
        "reasoning": item.reasoning or "",
        "turns": [list(turn) for turn in item.further_turns],
        "votes": [[vote.judge, vote.vote, vote.reason, vote.audit] for vote in item.votes],
        "sources": list(item.sources),
        "licence": item.licence or "",
        "attribution": item.attribution or "",
    }


def _thumbnails(data: ReportData, items: Iterable[Item]) -> dict[ImageId, str]:
    """Base64 of each image's JPEG; an image that was taken down meanwhile is left out."""
    encoded: dict[ImageId, str] = {}
    for image in dict.fromkeys(image for item in items for image in item.images):
        try:
            encoded[image] = base64.b64encode(data.thumbnails(image)).decode("ascii")
        except NotFoundError:
            continue
    return encoded


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{esc(label)}</dt><dd><bdi>{esc(value)}</bdi></dd></div>" for label, value in rows)


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li><bdi>{esc(note)}</bdi></li>" for note in notes)}</ul>'


def _forecast(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return (
        '<section class="forecast" aria-labelledby="forecast-title"><h2 id="forecast-title">Forecast'
        f'</h2><dl class="facts">{_rows(rows)}</dl></section>'
    )


def _funnel_table(stages: Iterable[StageCounts]) -> str:
    rows = []
    for stage in stages:
        came, left = units(stage.stage)
        rejects = sorted(stage.rejects.items(), key=lambda reject: (-reject[1], reject[0]))
        reasons = "; ".join(f"{count(number)} {reason}" for reason, number in rejects if number)
        rows.append(
            f'<tr><th scope="row">{esc(stage.stage)}</th><td>{count(stage.units_in)} {esc(came)}</td>'
            f"<td>{count(stage.units_out)} {esc(left)}</td><td>{count(sum(stage.rejects.values()))}</td>"
            f'<td>{count(stage.pending)}</td><td class="reasons">{esc(reasons)}</td></tr>'
        )
    return (
        "<table><thead><tr><th>Stage</th><th>In</th><th>Out</th><th>Rejected</th><th>Pending</th>"
        f'<th class="reasons">Why rejected</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _types_lead(types: Counter[str], unit: str) -> str:
    if not types:
        return "Nothing has reached a task type yet."
    roots = len({path.split("~")[0] for path in types})
    return (
        f"{count(types.total())} {unit} of {count(len(types))} task types under {count(roots)} first-level nodes; "
        f"area is the number of {unit}."
    )


def _gallery_lead(chosen: int, total: int) -> str:
    if chosen == total:
        return f"All {count(total)} items, samples and rejects, in an order mixed by hash."
    return (
        f"<strong>{count(chosen)} of {count(total)} shown</strong>: picked by hash, evenly over samples and rejects, "
        "reasons and task types. The shares here are not those of the data set; the funnel's are."
    )
