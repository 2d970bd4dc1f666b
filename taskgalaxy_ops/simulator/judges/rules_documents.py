"""Rules on receipts, invoices, forms, menus, calendars, labels and windows: values beside captions, and layout."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, layout, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, short
from taskgalaxy_ops.simulator.judges.rules_numbers import items, price_of, total
from taskgalaxy_ops.simulator.judges.rules_texts import DATE, TIME, same_form
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def _total(view: View, _: Params) -> Found:
    return finding.number("the total", *total(view)[:1])


def _price(name: str) -> Rule:
    """A rule that asks for the price of what the parameter ``name`` names."""
    return lambda view, params: finding.number(f"'{short(params[name], 28)}' costs", price_of(view, params[name]))


def _item_count(view: View, _: Params) -> Found:
    listed = items(view)
    if not listed:
        raise SenselessError("I read no list of items")
    return finding.number("the number of items", len(listed))


def dated(caption: str, what: str) -> Rule:
    """A rule that asks for a date in a line with a word, or beside or below it."""
    pattern = re.compile(caption, re.IGNORECASE)

    def rule(view: View, _: Params) -> Found:
        near = [line.text for line in view.lines if pattern.search(line.text)]
        for piece in view.pieces:
            if pattern.search(piece.text) and (below := layout.under(view, piece)) is not None:
                near.append(below.text)
        seen = [m.group() for text in near for m in DATE.finditer(pattern.sub(" ", text))]
        if not seen:
            raise SenselessError(f"I read no date for {what}")
        return Found(f"{what} is '{short(seen[0])}'", lambda said: any(same_form(said, s, 0.7) for s in seen))

    return rule


def _receipt_date(view: View, _: Params) -> Found:
    seen = [m.group() for line in view.lines for m in DATE.finditer(line.text)]
    if not seen:
        raise SenselessError("I read no date")
    return Found(f"the date is '{short(seen[0])}'", lambda said: any(same_form(said, s, 0.7) for s in seen))


def _shop(view: View, _: Params) -> Found:
    lines = layout.need_text(view, 3)
    return finding.text("the top line", lines[0].text)


def _tax(view: View, _: Params) -> Found:
    seen = [
        value
        for line in view.lines
        if re.search(r"\b(?:sales )?tax|\bvat|\bgst|\bmwst", line.text, re.IGNORECASE)
        and (value := layout.amount(line.text)) is not None
    ]
    if not seen:
        raise SenselessError("I read no tax")
    return finding.number("the tax", *seen)


def _invoice_number(view: View, _: Params) -> Found:
    pattern = re.compile(r"invoice\s*(?:no|nr|number|#|n[°º])[.:]?", re.IGNORECASE)
    seen: list[str] = []
    for row in view.rows:
        for number, piece in enumerate(row):
            if match := pattern.search(piece.text):
                rest = piece.text[match.end() :].strip(" :.#")
                seen += [rest] * bool(rest) + [p.text for p in row[number + 1 :][:1]]
                below = layout.under(view, piece)
                seen += [below.text] if below is not None and not seen else []
    seen = [s for s in seen if re.search(r"\d", s)]
    if not seen:
        raise SenselessError("I read no invoice number")
    return Found(f"the number is '{short(seen[0])}'", lambda said: any(same_form(said, s, 0.75) for s in seen))


def _month(view: View, _: Params) -> Found:
    text = layout.everything(view)
    found = re.search(rf"({'|'.join(_MONTHS)})\W*(\d{{4}})", text, re.IGNORECASE)
    if not found:
        raise SenselessError("I read no month with its year")
    month, year = found.groups()

    def agrees(said: str) -> bool:
        return month.lower() in said.lower() and year in said

    return Found(f"I read '{month} {year}'", agrees)


def _weekday(view: View, params: Params) -> Found:
    day = words.number(params["day"])
    found = re.search(rf"({'|'.join(_MONTHS)})\W*(\d{{4}})", layout.everything(view), re.IGNORECASE)
    if day is None or not found:
        raise SenselessError("I read no month with its year")
    by_year: str | None = None
    try:
        date = datetime.date(int(found[2]), [m.lower() for m in _MONTHS].index(found[1].lower()) + 1, int(day))
        by_year = _WEEKDAYS[date.weekday()]
    except ValueError as error:
        raise SenselessError(f"{found[1]} has no day {params['day']}") from error
    by_column = _weekday_by_column(view, int(day))
    if view.judge == "a" or by_column is None:
        return finding.choice("by the month and year", by_year)
    return finding.choice("by its column", by_column)


def _weekday_by_column(view: View, day: int) -> str | None:
    heads = [
        (piece, name)
        for piece in view.pieces
        for name in _WEEKDAYS
        if words.squash(piece.text) in {words.squash(name), words.squash(name[:3]), words.squash(name[:2])}
    ]
    cells = [piece for piece in view.pieces if piece.text.strip(".") == str(day)]
    cells = [cell for cell in cells if heads and cell.y > max(head.y for head, _ in heads)]
    if len(heads) < 5 or len(cells) != 1:
        return None
    return min(heads, key=lambda h: abs(h[0].x - cells[0].x))[1]


def _departure(view: View, params: Params) -> Found:
    after = _minutes(params["time"])
    times = sorted({m for piece in view.pieces for t in TIME.findall(piece.text) if (m := _minutes(t)) is not None})
    if after is None or len(times) < 2:
        raise SenselessError("I read no departure times")
    later = [time for time in times if time > after]
    if not later:
        raise SenselessError(f"nothing leaves after {params['time']}")
    return Found(
        f"the next departure is {later[0] // 60:02}:{later[0] % 60:02}", lambda said: _minutes(said) == later[0]
    )


def _minutes(text: str) -> int | None:
    """Minutes since midnight of a time of day; None if it is none."""
    found = re.search(r"(\d{1,2})\s?[:.]\s?(\d{2})\s?([ap])?", text.lower())
    if not found or int(found[1]) > 24 or int(found[2]) > 59:
        return None
    hour = int(found[1]) % 12 + 12 * (found[3] == "p") if found[3] else int(found[1])
    return hour * 60 + int(found[2])


def _cheapest(view: View, _: Params) -> Found:
    listed = layout.priced(view)
    if len(listed) < 2:
        raise SenselessError("I read no list of prices")
    least = min(entry.amount for entry in listed)
    return finding.text("the cheapest", *(entry.name for entry in listed if entry.amount == least))


RULES: dict[str, Rule] = {
    "receipt total reading": _total,
    "receipt item price lookup": _price("item"),
    "receipt item counting": _item_count,
    "receipt date reading": _receipt_date,
    "shop of receipt identification": _shop,
    "tax amount reading": _tax,
    "invoice number reading": _invoice_number,
    "invoice due date reading": dated(r"\bdue ?date|\bdue\b|pay(?:able)? (?:by|until)", "the due date"),
    "next departure finding": _departure,
    "menu price lookup": _price("dish"),
    "cheapest menu item finding": _cheapest,
    "calendar month reading": _month,
    "weekday of date lookup": _weekday,
    "expiry date reading": dated(r"best before|use by|expir\w*|\bexp\b|\bbb\b|until", "the expiry date"),
}
