"""Tables: the row that heads the columns, the cells below it, each put under the heading that it lines up with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskgalaxy_ops.simulator.judges import words
from taskgalaxy_ops.simulator.judges.finding import SenselessError
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.views import View


@dataclass(frozen=True, slots=True)
class Table:
    """A table as read: its headings and, for each row, a piece of text a column (None where a cell is empty)."""

    header: list[Piece]
    rows: list[list[Piece | None]]
    marked: bool = False  # whether something stands before the first column in most rows (numbers, hours)

    def column(self, name: str) -> int:
        """Index of a column by its heading. Raises SenselessError if there is none."""
        index, score = words.best(name, [piece.text for piece in self.header])
        if score < 0.75:
            raise SenselessError(f"I see no column '{name[:30]}'")
        return index

    @staticmethod
    def name(row: Sequence[Piece | None]) -> str:
        """The text of a row's first cell that holds letters; of none, of its first cell."""
        filled = [cell.text for cell in row if cell is not None]
        return next((text for text in filled if any(c.isalpha() for c in text)), filled[0] if filled else "")

    def numbers(self, column: int) -> list[tuple[str, float]]:
        """(text, value) of each cell of a column that is a number."""
        found = []
        for row in self.rows:
            cell = row[column]
            values = words.numbers(cell.text) if cell is not None else []
            if cell is not None and len(values) == 1:
                found.append((cell.text, values[0]))
        return found


def table(view: View) -> Table:
    """The table of a page. Raises SenselessError if there is none of two columns and two rows."""

    def make() -> Table | None:
        return _table(view.rows)

    found = view.part("table", make)
    if found is None:
        raise SenselessError("I see no table")
    return found


def _table(rows: Sequence[list[Piece]]) -> Table | None:
    """The longest run of rows with as many cells, its first row taken for the header."""
    best: Table | None = None
    for start, header in enumerate(rows):
        if len(header) < 2:
            continue
        body: list[list[Piece | None]] = []
        misses = marked = 0
        for row in rows[start + 1 :]:
            cells = _cells(header, row)
            if cells is None or cells[0] is None or sum(c is not None for c in cells) < max(2, len(header) // 2):
                misses += 1
                if misses > 1 or not body:
                    break
                continue
            body.append(cells)
            marked += row[0] not in cells
        if len(body) >= 2 and (best is None or (len(body) + 1) * len(header) > (len(best.rows) + 1) * len(best.header)):
            best = Table(list(header), body, marked > 0.6 * len(body))
    return best


def _cells(header: Sequence[Piece], row: Sequence[Piece]) -> list[Piece | None] | None:
    """The pieces of a row by column; None if a piece lies between the columns or two share one."""
    cells: list[Piece | None] = [None] * len(header)
    for piece in row:
        if piece.right < header[0].left and piece is row[0] and len(row) > 1:
            continue  # numbers of the rows, say, stand before the first heading
        index = min(range(len(header)), key=lambda i: _offset(header[i], piece))
        if cells[index] is not None:
            return None
        cells[index] = piece
    return cells


def _offset(head: Piece, cell: Piece) -> float:
    """How far a cell is from being in line with a heading: left, middle or right, in pixels."""
    overlap = min(head.right, cell.right) - max(head.left, cell.left)
    offset = min(abs(head.left - cell.left), abs(head.right - cell.right), abs(head.x - cell.x))
    return offset if overlap > 0 else offset + abs(overlap)
