"""Rules on tables, and on what can be computed from their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, grids, layout, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, UnsureError, short
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]


def cell(row: str) -> Rule:
    """A rule that asks for the cell under the parameter ``column``, in the row that the parameter ``row`` names."""
    return lambda view, params: _cell(view, params[row], params["column"])


def _cell(view: View, row: str, column: str) -> Found:
    """The cell where a row and a column meet, found by its place on the page, for a table's own rows may be misread."""
    row_at, column_at = layout.located(view, row), layout.located(view, column)
    level = [
        p
        for p in view.pieces
        if abs(p.y - row_at.y) < 0.6 * max(p.height, row_at.height)
        and p.left > row_at.x - row_at.width
        and p is not row_at
    ]
    if not level:
        raise UnsureError(f"I read nothing beside '{short(row, 30)}'")

    def off(piece: Piece) -> float:
        sides = (abs(piece.left - column_at.left), abs(piece.right - column_at.right), abs(piece.x - column_at.x))
        return min(sides)

    nearest = min(level, key=off)
    return Found(f"the cell reads '{short(nearest.text)}'", lambda said: same_cell(said, nearest.text))


def same_cell(said: str, seen: str) -> bool:
    """Whether two short texts are one cell: numbers by value, others letter by letter, nearly."""
    mine, theirs = words.numbers(seen), words.numbers(said)
    if len(mine) == len(theirs) == 1 and not any(c.isalpha() for c in said):
        return words.close(mine[0], theirs[0])
    return words.digits(said) == words.digits(seen) and words.likeness(f"x{said}", f"x{seen}") > 0.8


def _row_count(view: View, _: Params) -> Found:
    return finding.number("the number of rows", len(grids.table(view).rows))


def _column_count(view: View, _: Params) -> Found:
    table = grids.table(view)
    return finding.number("the number of columns", len(table.header) + table.marked)


def _header(view: View, _: Params) -> Found:
    return finding.listing("the columns", [piece.text for piece in grids.table(view).header])


def _maximum(view: View, params: Params) -> Found:
    table = grids.table(view)
    column = table.column(params["column"])
    valued = []
    for row in table.rows:
        cell = row[column]
        values = words.numbers(cell.text) if cell is not None else []
        if values:
            valued.append((values[0], table.name(row)))
    if not valued:
        raise SenselessError(f"'{short(params['column'])}' holds no numbers")
    most = max(value for value, _ in valued)
    return finding.text("the greatest row", *(name for value, name in valued if value == most))


def column_numbers(view: View, params: Params) -> list[tuple[str, float]]:
    """(text, value) of the numbers of the column that the question names."""
    table = grids.table(view)
    found = table.numbers(table.column(params["column"]))
    if len(found) < 2:
        raise SenselessError(f"'{short(params['column'])}' holds no numbers that I can read")
    return found


def _sum(view: View, params: Params) -> Found:
    return finding.number("the sum", sum(value for _, value in column_numbers(view, params)))


def _average(view: View, params: Params) -> Found:
    values = [value for _, value in column_numbers(view, params)]
    return finding.number("the mean", sum(values) / len(values), tolerance=0.0101)


def _ordering(view: View, params: Params) -> Found:
    right = sorted(value for _, value in column_numbers(view, params))

    def agrees(said: str) -> bool:
        values = [words.number(part) for part in said.split(";") if part.strip()]
        return len(values) == len(right) and all(
            v is not None and words.close(v, r) for v, r in zip(values, right, strict=True)
        )

    return Found(f"in order: {short('; '.join(f'{v:g}' for v in right))}", agrees)


RULES: dict[str, Rule] = {
    "table cell lookup": cell("row"),
    "timetable lookup": cell("row"),
    "table row counting": _row_count,
    "table column counting": _column_count,
    "table header reading": _header,
    "table maximum finding": _maximum,
    "table column sum": _sum,
    "average of numbers": _average,
    "number ordering": _ordering,
}
