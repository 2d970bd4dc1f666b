"""The poster's table: model, method, the 16 benchmarks in its order, and their average without MME.

A row is one model and method from one place: either measured here or published by one source. A row never holds both,
so that no average and no best value mixes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskgalaxy_ops.errors import EvaluationError
from taskgalaxy_ops.evaluate.benchmarks import AVERAGED, MME, NAMES, average
from taskgalaxy_ops.evaluate.scores import Score

if TYPE_CHECKING:
    import pandas as pd

AVERAGE = "Avg."
_FRACTION = "accuracy"  # the one metric in 0..1
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ACTIVE = re.compile(r"[&<>\\`*_\[\]|~$#@:]")
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=[@#])", re.IGNORECASE)


@dataclass
class _Row:
    model: str
    method: str
    measured: bool
    source: str | None
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it was measured here on all questions: only such a row can hold the best value."""
        return self.measured and self.source is None


def poster(scores: Sequence[Score], benchmarks: Sequence[str] | None = None) -> str:
    """Markdown. Published rows are in italics with a footnote; the best measured value of a model is bold.

    benchmarks: other columns than the 16 and those that the scores add; the average is there if its 15 are.
    Raises EvaluationError where two scores claim one cell, or one is not a number.
    """
    rows = _rows(scores)
    columns = _columns(rows, benchmarks)
    notes: list[str] = []
    lines = [["model", "method", *map(_text, columns)]]
    lines.append(["---", "---", *["--:"] * len(columns)])
    for row in rows:
        mark = ""
        if not row.measured or row.source:
            what = "Measured here" if row.measured else "Published, not measured here"
            note = f"{what}: {_text(row.source or 'source unknown')}"
            if note not in notes:
                notes.append(note)
            mark = f" {str(notes.index(note) + 1).translate(_SUPERSCRIPTS)}"
        cells = [_text(row.model), _text(row.method)]
        cells += [_cell(row, column, _best(rows, row.model, column)) for column in columns]
        if not row.measured:
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        lines.append([cells[0], cells[1] + mark, *cells[2:]])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    listed = [f"{str(number).translate(_SUPERSCRIPTS)} {note}" for number, note in enumerate(notes, 1)]
    return "\n\n".join([table, *listed]) + "\n"


def frame(scores: Sequence[Score], benchmarks: Sequence[str] | None = None) -> pd.DataFrame:
    """The table as a data frame: model, method, measured, source, and a float column a benchmark (NaN: no figure)."""
    import pandas as pd

    rows = _rows(scores)
    columns = _columns(rows, benchmarks)
    data: dict[str, list[object]] = {name: [getattr(row, name) for row in rows] for name in ("model", "method")}
    table = pd.DataFrame(data, dtype="str")
    table["measured"] = pd.Series([row.measured for row in rows], dtype="bool")
    table["source"] = pd.Series([row.source for row in rows], dtype="str")
    for column in columns:
        table[column] = pd.Series([_figure(row, column) for row in rows], dtype="float64")
    return table


def _rows(scores: Sequence[Score]) -> list[_Row]:
    """One row for each model, method and place; a model's rows stand together, otherwise in the order of ``scores``."""
    rows: dict[tuple[str, str, bool, str | None], _Row] = {}
    for score in scores:
        if score.family:
            continue
        who = (score.model, score.method, score.measured, score.source)
        row = rows.setdefault(who, _Row(*who))
        value = score.value * 100 if score.metric == _FRACTION else score.value
        if not math.isfinite(value):
            raise EvaluationError(f"{score.model}, {score.method}: {score.benchmark} is {value}. Leave it out.")
        if score.benchmark in row.figures:
            raise EvaluationError(f"{score.model}, {score.method}: two scores of {score.benchmark}. Give one of them.")
        row.figures[score.benchmark] = value
    models = list(dict.fromkeys(row.model for row in rows.values()))
    return sorted(rows.values(), key=lambda row: models.index(row.model))


def _columns(rows: Sequence[_Row], benchmarks: Sequence[str] | None) -> list[str]:
    if benchmarks is not None:
        return [*benchmarks, AVERAGE] if set(AVERAGED).issubset(benchmarks) else list(benchmarks)
    own = dict.fromkeys(name for row in rows for name in row.figures if name not in NAMES)
    return [*NAMES, AVERAGE, *own]


def _figure(row: _Row, column: str) -> float | None:
    return average(row.figures) if column == AVERAGE else row.figures.get(column)


def _best(rows: Sequence[_Row], model: str, column: str) -> float | None:
    """The best value of at least two rows; None for one row, which would be compared with nothing."""
    figures = [
        value for row in rows if row.whole and row.model == model and (value := _figure(row, column)) is not None
    ]
    return max(figures) if len(figures) > 1 else None


def _cell(row: _Row, column: str, best: float | None) -> str:
    value = _figure(row, column)
    if value is None:
        return ""
    shown = f"{value:.0f}" if column == MME and value == int(value) else f"{value:.1f}"
    return f"**{shown}**" if row.whole and value == best else shown


def _text(value: str) -> str:
    """The user's text escaped, so that it cannot become markup or a link, or break the table."""
    line = " ".join(value.split())
    return _ACTIVE.sub(lambda match: f"&#{ord(match.group())};", _ADDRESS.sub("\u200b", line))
