"""Rules on forms, windows and the layout of pages: captions and their values, boxes, columns, paragraphs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, layout, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, UnsureError, short
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.rules_tables import cell, same_cell
from taskgalaxy_ops.simulator.judges.rules_texts import title_lines
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]
_MONTHS = "january february march april may june july august september october november december"


def valued(name: str) -> Rule:
    """A rule that asks for the value of the caption that the parameter ``name`` gives."""

    def rule(view: View, params: Params) -> Found:
        seen = layout.beside(view, params[name])
        if not seen:
            raise UnsureError(f"I read nothing beside '{short(params[name], 30)}'")

        def agrees(said: str) -> bool:
            return any(words.same_text(said, s, 0.84) or same_cell(said, s) for s in seen)

        return Found(f"'{short(params[name], 24)}' reads '{short(seen[0], 32)}'", agrees)

    return rule


_KINDS = {
    "receipt": r"receipt|cash|change|total|thank you|\bcard\b",
    "invoice": r"invoice|bill to|due|payment|vat|\btax\b|subtotal|quantity|qty",
    "form": r"form\b|application|signature|name|phone|e-?mail|occupation|birth|registration|request|permit|enrolment",
    "menu": r"menu|starters|mains|desserts?|drinks|kitchen|bistro|tavern|soup|salad",
    "timetable": r"timetable|departures?|platform|arrivals?|\bline\b|\d\d:\d\d|schedule",
    "calendar": rf"calendar|{'|'.join(_MONTHS.split())}|\bmon\b|\btue\b|\bwed\b|\bthu\b|\bsat\b|\bsun\b",
    "letter": r"dear|sincerely|regards|wishes|yours|we look forward",
}
_SURE = {  # words that all but settle it
    "receipt": r"receipt",
    "invoice": r"invoice",
    "menu": r"starters|desserts|\bmenu\b",
    "letter": r"\bdear",
    "timetable": r"departures?|timetable",
    "calendar": r"mon\b.*\btue\b.*\bwed\b",
    "form": r"signature",
}


def _kind(view: View, _: Params) -> Found:
    layout.need_text(view, 3)
    text = layout.everything(view).lower()
    counts = {
        name: len(set(re.findall(pattern.lower(), text))) + 9 * bool(re.search(_SURE[name], text, re.DOTALL))
        for name, pattern in _KINDS.items()
    }
    if re.search(r"invoice", text):
        counts["receipt"] = 0
    return finding.choice("by its words it is a", max(counts, key=lambda k: counts[k]))


def running(view: View) -> list[Piece]:
    """Pieces of running text: as wide as several words."""
    return [p for p in view.pieces if len(p.text.split()) >= 3 or len(p.text) >= 18]


def _columns(view: View, _: Params) -> Found:
    wide = running(view)
    if len(wide) < 3:
        raise SenselessError("I see no running text")
    lefts = sorted(p.left for p in wide)
    usual = median(p.height for p in wide)
    starts: list[list[float]] = [[lefts[0]]]
    for left in lefts[1:]:
        if left - starts[-1][-1] < 3 * usual:
            starts[-1].append(left)
        else:
            starts.append([left])
    columns = [group for group in starts if len(group) >= max(3, 0.15 * len(wide))]
    beside = any(
        one.right < other.left and abs(one.y - other.y) < usual
        for one in wide for other in wide
    )  # fmt: skip
    return finding.number("the number of columns", len(columns) if beside else 1)


def _density(view: View, _: Params) -> Found:
    covered = sum(p.width * (p.bottom - p.top) for p in view.pieces) / (view.width * view.height)
    return finding.choice(f"text covers {covered:.0%}", "sparsely" if covered < 0.155 else "densely")


def _title_place(view: View, _: Params) -> Found:
    title = title_lines(view)[0]
    third = title.x / view.width
    right = [
        name
        for name, low, high in (("left", 0, 0.4), ("centre", 0.36, 0.64), ("right", 0.6, 1))
        if low <= third <= high
    ]
    return finding.choice(f"the title's middle lies at {third:.0%}", *right)


def _alignment(view: View, _: Params) -> Found:
    lines = layout.need_text(view, 3)
    edges = {
        "aligned left": [p.left for p in lines],
        "centred": [p.x for p in lines],
        "aligned right": [p.right for p in lines],
    }

    def spread(values: list[float]) -> float:
        middle = median(values)
        return median(abs(v - middle) for v in values) + 0.05 * sum(abs(v - middle) for v in values) / len(values)

    return finding.choice("the lines are", min(edges, key=lambda k: spread(edges[k])))


def _has_table(view: View, _: Params) -> Found:
    full = [row for row in view.rows if len(row) >= 3]
    return finding.yes_no(f"{len(full)} rows have three cells or more", len(full) >= 3)


def _buttons(view: View, _: Params) -> Found:
    layout.need_text(view, 2)

    def agrees(said: str) -> bool:
        entries = [part.strip() for part in said.split(";") if part.strip()]
        return any(_row_is(entries, [piece.text for piece in row]) for row in view.rows)

    return Found(f"the lowest row reads '{short(view.lines[-1].text)}'", agrees)


def _row_is(entries: list[str], printed: list[str]) -> bool:
    """Whether buttons are all of a row, or what is left of it without the sentence before them."""
    while len(printed) > 1 and len(printed[0]) > 11:
        if words.same_sequence(entries, printed):
            return True
        printed = printed[1:]
    return words.same_sequence(entries, printed)


def _message(view: View, _: Params) -> Found:
    lines = layout.need_text(view, 2)
    runs = [" ".join(line.text for line in lines[a:b]) for a in range(len(lines)) for b in range(a + 1, len(lines) + 1)]
    inner = [" ".join(line.text for line in lines[1:-1]), *(r for r in runs if len(r) >= 10)]

    def agrees(said: str) -> bool:
        longest = max(lines, key=lambda line: len(line.text)).text
        return words.within(longest, said, 0.8) and any(words.same_text(said, run, 0.88) for run in inner)

    return Found(f"I read '{short(inner[0] or runs[0])}'", agrees)


def _ticked(view: View, params: Params) -> Found:
    place = layout.located(view, params["box"])
    ink = _ink_left_of(view, place)
    if ink is None:
        raise UnsureError(f"I see no box beside '{short(params['box'], 30)}'")
    return finding.yes_no(f"the box is {'ticked' if ink > 0.14 else 'empty'}", ink > 0.14)


def _ink_left_of(view: View, place: Piece) -> float | None:
    """Share of ink within the box left of a caption, its border apart; None if there is no box."""
    import numpy as np

    before = [p.right for p in view.pieces if p.right <= place.left and p.top < place.y < p.bottom]
    left = max([0.0, place.left - 2.3 * place.height, *(right + 2 for right in before if right < place.left - 6)])
    box = (int(left), max(0, int(place.y - 1.2 * place.height)), int(place.left - 1), int(place.y + 1.2 * place.height))
    if box[2] - box[0] < 6:
        return None
    grey = np.asarray(view.image.crop(box).convert("L")).astype(float)
    ground = float(np.median(grey))
    dark = np.abs(grey - ground) > {"a": 50, "b": 60, "c": 40}[view.judge]
    if not dark.any():
        return None
    ys, xs = np.nonzero(dark)
    trim = max(3, round(0.22 * min(np.ptp(xs), np.ptp(ys))))
    inner = dark[ys.min() + trim : ys.max() - trim + 1, xs.min() + trim : xs.max() - trim + 1]
    return float(inner.mean()) if inner.size > 8 else None


RULES: dict[str, Rule] = {
    "form field lookup": valued("field"),
    "column counting": _columns,
    "table presence": _has_table,
    "text density estimation": _density,
    "title position": _title_place,
    "text alignment": _alignment,
    "document type classification": _kind,
    "nutrition facts lookup": cell("nutrient"),
    "button caption listing": _buttons,
    "checkbox state reading": _ticked,
    "error message reading": _message,
}
