"""How the text of a page is set: lines with an amount at their end, captions with values beside them, tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from taskgalaxy_ops.simulator.perception import SURE, Row, Scene
from taskgalaxy_ops.simulator.reading import Segment

_AMOUNT = re.compile(r"(?P<name>.*?)[ .·…_-]*(?P<sign>[$]|USD|EUR|GBP|CHF)? ?(?P<digits>\d{1,3}(?:,?\d{3})*\.\d\d)$")
_QUANTITY = re.compile(r"^(\d+) ?(?:[x×] ?)+(?=\S)")
_SUMS = re.compile(
    r"(?i)\b(?:sub-?total|total|tax|vat|cash|card|change|balance|amount due|sum|paid|payment|tip|discount|rounding)\b"
)


@dataclass(frozen=True)
class Item:
    """A line that ends in an amount."""

    name: str
    quantity: int
    printed: str  # the amount as printed, with its sign where it has one
    amount: Decimal
    row: Row

    @property
    def sums(self) -> bool:
        """Whether it is a total, a tax or a payment rather than a thing."""
        return bool(_SUMS.search(self.name))


def items(scene: Scene) -> list[Item]:
    """All surely read lines that have a name on the left and one amount with two decimals at their end."""
    found = []
    for row in scene.rows:
        match = _AMOUNT.fullmatch(row.text)
        if not match or row.sure < SURE or not any(c.isalpha() for c in match["name"]):
            continue
        quantity = _QUANTITY.match(match["name"])
        name = _QUANTITY.sub("", match["name"]).strip(" .:·-")
        if re.search(r"\d\.\d\d\b", name) or len(name) < 3:
            continue  # several amounts: a table's row
        digits = match["digits"].replace(",", "")
        sign = match["sign"] or ""
        printed = f"{sign}{' ' if len(sign) == 3 else ''}{match['digits']}"
        found.append(Item(name, int(quantity[1]) if quantity else 1, printed, Decimal(digits), row))
    return found


@dataclass(frozen=True)
class Pair:
    """A caption with the value beside it."""

    caption: str
    value: str
    row: Row


def pairs(scene: Scene) -> list[Pair]:
    """Rows of exactly two runs of text, or of one with a colon inside: caption and value, both read surely."""
    found = []
    for row in scene.rows:
        texts = [s.text for s in row.segments]
        if len(texts) == 1 and ": " in texts[0]:
            texts = texts[0].split(": ", 1)
        if len(texts) == 2 and row.sure >= SURE and texts[0][:1].isalpha() and len(texts[0]) < 32:
            found.append(Pair(texts[0].strip(" .:"), texts[1].strip(), row))
    return found


@dataclass(frozen=True)
class Table:
    """Cells that stand in rows and columns under a header; an empty cell is ""."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, index: int) -> tuple[str, ...]:
        """The cells of a column below its header."""
        return tuple(row[index] for row in self.rows)

    def numbers(self) -> list[int]:
        """The columns whose cells are all plain numbers, the first one (which names the rows) left out."""
        return [i for i in range(1, len(self.header)) if all(NUMBER.fullmatch(c) for c in self.column(i))]


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?")


def table(scene: Scene) -> Table | None:
    """The page's only table of at least three columns and three rows below its header; None if none is clear."""
    if "table" not in scene.__dict__:
        scene.__dict__["table"] = _table(scene)
    found: Table | None = scene.__dict__["table"]
    return found


def _table(scene: Scene) -> Table | None:
    if re.search(r"(?i)ticket|boarding pass", scene.text):
        return None  # captions above values, not a table
    wide = [len(row.segments) >= 3 for row in scene.rows]
    starts = [i for i, w in enumerate(wide) if w and (i == 0 or not wide[i - 1])]
    runs = []
    for start in starts:
        end = start
        while end < len(wide) and wide[end]:
            end += 1
        if end - start >= 4:
            runs.append(scene.rows[start:end])
    if len(runs) != 1:
        return None
    rows = runs[0]
    if any(row.sure < SURE for row in rows):
        return None
    columns = _columns(rows)
    if columns is None or not 3 <= len(columns) <= 9:
        return None
    cells = [_cells(row, columns) for row in rows]
    if any(row is None for row in cells):
        return None
    filled = [row for row in cells if row is not None]
    empty = sum(cell == "" for row in filled[1:] for cell in row)
    if empty or "" in filled[0][1:]:
        return None
    if any(any(c.isdigit() for c in cell) and not any(c.isalpha() for c in cell) for cell in filled[0]):
        return None  # numbers in the first row: it is no header
    if sum(cell[:3] in _DAYS for cell in filled[0]) == len(columns) and all(c.isdigit() for c in filled[1]):
        return None  # a calendar, whose columns are no quantities
    gaps = [b.top - a.bottom for a, b in pairwise(rows[1:])]
    if gaps and max(gaps) > 3 * max(4.0, min(gaps)):
        return None
    return Table(tuple(filled[0]), tuple(tuple(row) for row in filled[1:]))


def _columns(rows: list[Row]) -> list[tuple[float, float]] | None:
    """The horizontal extent of each column: runs of text that overlap lie in one."""
    columns: list[tuple[float, float]] = []
    for segment in sorted((s for row in rows for s in row.segments), key=lambda s: s.left):
        if columns and segment.left < columns[-1][1]:
            columns[-1] = columns[-1][0], max(columns[-1][1], segment.right)
        else:
            columns.append((segment.left, segment.right))
    return columns or None


def _cells(row: Row, columns: list[tuple[float, float]]) -> list[str] | None:
    cells = [""] * len(columns)
    for segment in row.segments:
        place = next(i for i, (left, right) in enumerate(columns) if left <= segment.middle[0] <= right)
        if cells[place]:
            return None
        cells[place] = segment.text
    return cells


def beside(scene: Scene, segment: Segment) -> list[Segment]:
    """What stands to the right of a segment at its height."""
    return [
        s
        for s in scene.segments
        if s.left > segment.right and s.top < segment.middle[1] < s.bottom and s is not segment
    ]
