"""Skills for tables, timetables and calendars."""

from __future__ import annotations

import calendar as calendars
import datetime
import re
from decimal import Decimal
from itertools import pairwise

from taskgalaxy_ops.simulator import structure
from taskgalaxy_ops.simulator.perception import SURE, Scene
from taskgalaxy_ops.simulator.skills.amounts import is_invoice
from taskgalaxy_ops.simulator.skills.base import Asked, Found, asked, many, need, one, quoted, skill
from taskgalaxy_ops.simulator.skills.numbers import MONTHS, TIME
from taskgalaxy_ops.simulator.structure import Table

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _table(scene: Scene) -> Table:
    found = structure.table(scene)
    if found is None:
        need(scene.segments, "no text can be seen in the image")
        need(False, "no table with clear rows and columns")
    assert found is not None
    return found


def _named(found: Table) -> tuple[int, Table]:
    """Which column names the rows: the first, or the second after a column of ranks; its cells are all different."""
    for index in range(min(2, len(found.header))):
        cells = found.column(index)
        ranks = index == 0 and list(cells) == [str(n + 1) for n in range(len(cells))]
        if not ranks and len(set(cells)) == len(cells) and all(1 < len(cell) < 30 for cell in cells):
            return index, found
        need(ranks, "the rows of the table have no names of their own")
    need(False, "the rows of the table have no names of their own")
    raise AssertionError


def _seen(found: Table) -> str:
    return f"a table of {len(found.rows)} rows and {len(found.header)} columns"


@skill("charts & tables~tables~table cell lookup")
def cell(scene: Scene) -> Found:
    key, found = _named(_table(scene))
    questions = []
    for index, column in enumerate(found.header):
        if index == key or not column or found.header.count(column) > 1:
            continue
        for row in found.rows:
            others = [text for text in found.column(index) if text != row[index]]
            why = (
                f"The row {quoted(row[key])} has under {quoted(column)} the entry {quoted(row[index])}. "
                "That is the cell asked for."
            )
            questions.append(asked(row[index], others, why, row=row[key], column=column))
    return many(_seen(found), questions)


@skill("charts & tables~tables~table row counting")
def row_count(scene: Scene) -> Found:
    found = _table(scene)
    count = len(found.rows)
    need(count <= 20, "too many rows to count")
    why = (
        f"Below the header, the first row begins with {quoted(found.rows[0][0])} and the last with "
        f"{quoted(found.rows[-1][0])}. There are {count} of them."
    )
    return one(_seen(found), str(count), (str(count + 1), str(count - 1), str(count + 2)), why)


@skill("charts & tables~tables~table column counting")
def column_count(scene: Scene) -> Found:
    found = _table(scene)
    count = len(found.header)
    why = (
        f"The first row below the header has the cells {', '.join(map(quoted, found.rows[0]))}. "
        f"So there are {count} columns."
    )
    return one(_seen(found), str(count), (str(count + 1), str(count - 1), str(count + 2)), why)


@skill("charts & tables~tables~table header reading")
def header(scene: Scene) -> Found:
    found = _table(scene)
    need(all(found.header), "a column has no heading")
    names = list(found.header)
    wrong = ("; ".join(names[:-1]), "; ".join([*names[1:], names[0]]))
    why = (
        f"The top row of the table holds words rather than values. Its {len(names)} cells are the names of the columns."
    )
    return one(_seen(found), "; ".join(names), wrong, why)


_LABELS = re.compile(r"(?i)(?:year|no\b|number|rank|place|platform|gate|room|age)")


def _number_columns(found: Table) -> list[int]:
    need(
        not any(TIME.fullmatch(cell) for row in found.rows for cell in row), "a timetable, whose numbers are no amounts"
    )
    columns = [
        i
        for i in found.numbers()
        if found.header.count(found.header[i]) == 1 and any(c.isalpha() for c in found.header[i])
    ]
    columns = [i for i in columns if not _LABELS.match(found.header[i])]
    need(columns, "no column of plain numbers")
    return columns


@skill("charts & tables~tables~table maximum finding")
def maximum(scene: Scene) -> Found:
    key, found = _named(_table(scene))
    questions = []
    for index in _number_columns(found):
        first, second = sorted(found.rows, key=lambda row: -_value(row[index]))[:2]
        if _value(first[index]) > _value(second[index]):
            why = (
                f"Under {quoted(found.header[index])} the greatest value is {first[index]}. "
                f"It stands in the row {quoted(first[key])}."
            )
            wrong = [row[key] for row in found.rows]
            questions.append(asked(first[key], wrong, why, column=found.header[index]))
    return many(_seen(found), questions)


def _value(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _no_total(found: Table) -> None:
    need(
        not any(re.search(r"(?i)\btotal|\bsum\b|average", cell) for row in found.rows for cell in row),
        "a row of totals",
    )


@skill("charts & tables~tables~table column sum")
def column_sum(scene: Scene) -> Found:
    found = _table(scene)
    need(len(found.rows) <= 10 and not is_invoice(scene), "too many rows to add up")
    _no_total(found)

    def ask(index: int) -> Asked:
        cells = found.column(index)
        total = sum(map(_value, cells), Decimal(0))
        why = f"The cells under {quoted(found.header[index])} are {' + '.join(cells)}. Their sum is {total}."
        return asked(str(total), (str(total + 10), str(total + 1), str(total - 2)), why, column=found.header[index])

    return many(_seen(found), [ask(index) for index in _number_columns(found)])


@skill("mathematics~arithmetic on images~average of numbers")
def average(scene: Scene) -> Found:
    found = _table(scene)
    need(len(found.rows) <= 10, "too many rows for an average")
    _no_total(found)

    def ask(index: int) -> Asked:
        cells = found.column(index)
        total = sum(map(_value, cells), Decimal(0))
        mean = f"{total / len(cells):.2f}".rstrip("0").rstrip(".")
        why = (
            f"The {len(cells)} values under {quoted(found.header[index])} add up to {total}. "
            f"Divided by {len(cells)} that is {mean}."
        )
        wrong = (f"{total / (len(cells) - 1):.2f}", f"{total / len(cells) + 5:.2f}")
        return asked(mean, wrong, why, column=found.header[index])

    return many(_seen(found), [ask(index) for index in _number_columns(found)])


@skill("mathematics~arithmetic on images~number ordering")
def ordering(scene: Scene) -> Found:
    found = _table(scene)
    need(len(found.rows) <= 8, "too many values to order")
    questions = []
    for index in _number_columns(found):
        cells = found.column(index)
        right = sorted(cells, key=_value)
        swapped = [*right[:-2], right[-1], right[-2]]
        if len(set(cells)) == len(cells):
            why = (
                f"The values under {quoted(found.header[index])} are {', '.join(cells)}. "
                f"Sorted, they run from {right[0]} to {right[-1]}."
            )
            wrong = ("; ".join(swapped), "; ".join(reversed(right)))
            questions.append(asked("; ".join(right), wrong, why, column=found.header[index]))
    return many(_seen(found), questions)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def _timetable(scene: Scene) -> Table:
    found = _table(scene)
    columns = [i for i in range(len(found.header)) if all(TIME.fullmatch(c) for c in found.column(i))]
    need(columns, "the table holds no times")
    return found


@skill("documents~schedules & menus~timetable lookup")
def timetable(scene: Scene) -> Found:
    found = _timetable(scene)
    questions = []
    for index, column in enumerate(found.header):
        for row in found.rows:
            key = row[0]
            if index and column and found.column(0).count(key) == 1 and found.header.count(column) == 1:
                wrong = [text for text in found.column(index) if text != row[index]]
                why = f"The timetable has a row for {quoted(key)}. Under {quoted(column)} it says {quoted(row[index])}."
                questions.append(asked(row[index], wrong, why, row=key, column=column))
    return many("a timetable", questions)


@skill("documents~schedules & menus~next departure finding")
def next_departure(scene: Scene) -> Found:
    found = _timetable(scene)
    need(re.search(r"(?i)depart|train|bus|ferry|tram", scene.text), "the times are no departures")
    times = [
        c for i in range(len(found.header)) if all(TIME.fullmatch(c) for c in found.column(i)) for c in found.column(i)
    ]
    need(len(times) == len(found.rows), "more than one column of times")
    ordered = sorted(set(times), key=_minutes)

    def ask(before: str, after: str) -> Asked:
        middle = (_minutes(before) + _minutes(after)) // 2
        time = f"{middle // 60:02d}:{middle % 60:02d}"
        why = f"The departures are at {', '.join(ordered)}. The first of them after {time} is {after}."
        return asked(after, ordered, why, time=time)

    return many("a timetable of departures", [ask(a, b) for a, b in pairwise(ordered) if _minutes(b) - _minutes(a) > 3])


def _calendar(scene: Scene) -> tuple[str, datetime.date]:
    """Heading and first day of the month. Raises NoFit if it is no calendar of one month."""
    pattern = re.compile(rf"^({'|'.join(MONTHS)}) ((?:19|20)\d\d)$")
    heads = [(m, row) for row in scene.rows if (m := pattern.match(row.text))]
    need(len(heads) == 1 and heads[0][1].sure >= SURE, "no heading with one month and year")
    days = [s for row in scene.rows for s in row.segments if s.text[:3] in {day[:3] for day in _DAYS}]
    need(len(days) >= 6 or any(all(d[:2] in row.text for d in _DAYS) for row in scene.rows), "no row of weekdays")
    match = heads[0][0]
    return match[0], datetime.date(int(match[2]), MONTHS.index(match[1]) + 1, 1)


@skill("documents~schedules & menus~calendar month reading")
def calendar_month(scene: Scene) -> Found:
    text, first = _calendar(scene)
    wrong = [f"{MONTHS[(first.month + step) % 12]} {first.year}" for step in (0, 2, 6)] + [
        f"{MONTHS[first.month - 1]} {first.year + 1}"
    ]
    why = f"Above the grid of days stands the heading {quoted(text)}. It names the month and the year."
    return one(f"a calendar of {text}", text, wrong, why)


@skill("documents~schedules & menus~weekday of date lookup")
def weekday(scene: Scene) -> Found:
    text, first = _calendar(scene)
    heads = {s.text[:3]: s for s in scene.segments if s.text[:3] in {d[:3] for d in _DAYS} and len(s.text) <= 9}
    need(len(heads) == 7, "the weekdays above the columns cannot all be read")
    below = max(s.bottom for s in heads.values())
    columns = sorted(heads.items(), key=lambda item: item[1].middle[0])
    width = (columns[-1][1].middle[0] - columns[0][1].middle[0]) / 6
    last = calendars.monthrange(first.year, first.month)[1]
    questions = []
    for day in range(1, last + 1):
        found = [s for s in scene.segments if s.text == str(day) and s.top > below and s.sure >= SURE]
        if len(found) != 1:
            continue
        near = min(columns, key=lambda item: abs(item[1].middle[0] - found[0].middle[0]))
        name = next(d for d in _DAYS if d[:3] == near[0])
        # The calendar's own columns are what is asked about; a misread number shows in a weekday that cannot be.
        real = _DAYS[first.replace(day=day).weekday()]
        if abs(near[1].middle[0] - found[0].middle[0]) < 0.35 * width and name == real:
            why = (
                f"The number {day} stands in the column headed {quoted(near[1].text)}. "
                f"So that day of {text} is a {name}."
            )
            questions.append(asked(name, _DAYS, why, day=str(day)))
    need(questions, "the days of the calendar cannot be read with certainty")
    return many(f"a calendar of {text}", questions)
