"""The text of `costs` and of forecasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from taskgalaxy_ops.operations.costs import Costs, Share
from taskgalaxy_ops.operations.forecast import Checked, Estimate, Forecast, SourceForecast
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.text import shown
from taskgalaxy_ops.usage import Tally

_SHOWN = 20  # rows of a breakdown; --json has all


def costs(found: Costs) -> list[str]:
    """What was paid: the total, and a table for each breakdown (role, stage, model, source, run, task type)."""
    total, spent = found.total, found.spent
    lines = [
        f"paid      {_money(total.cost)} for {total.calls:,} calls"
        + (f", {_money(total.list_cost)} at list prices" if total.list_cost != total.cost else ""),
        f"tokens    {total.prompt_tokens:,} in ({total.cached_tokens:,} of them cached), "
        f"{total.completion_tokens:,} out ({total.reasoning_tokens:,} of them reasoning)",
    ]
    if spent.cost != total.cost or spent.calls != total.calls:
        lines.append(
            f"budget    {_money(spent.cost)}, {spent.calls:,} calls: with what is held, was refused or brought no reply"
        )
    for name in ("role", "stage", "model", "source"):
        lines += _table(f"by {name}", _rows(getattr(found, name)))
    lines += _table("by run", ((_run(run, found.times[run]), *row) for run, *row in _rows(found.run)))
    return lines + _table("by task type", _shares(found.task_type))


def forecast(found: Forecast) -> list[str]:
    """What a run would cost, by source and in total, with notes."""
    rows = [
        (name, left and f"{left} images left", f"{tokens} tokens", cost, listed and f"{listed} at list prices", of)
        for name, left, tokens, cost, listed, of in forecast_rows(found)
    ]
    lines = _table("forecast, with what it lies between in 95 of 100 cases", rows)
    return [*lines, *forecast_notes(found)]


def forecast_rows(found: Forecast) -> list[tuple[str, str, str, str, str, str]]:
    """A row a source, and one of all together; empty where nothing is left to ask.

    Cells: source, images left, tokens, cost, cost at list prices (empty where equal), what the estimate is based on.
    """
    rows = []
    for each in found.sources:
        if each.images:
            measured = f"from {each.measured:,} images" + (" of all sources" if each.elsewhere else "")
            rows.append((each.source, f"{each.images:,}", *_estimates(each), measured))
    return [*rows, ("together", "", *_estimates(found), "")] if rows else []


def forecast_notes(found: Forecast) -> list[str]:
    """Notes on a forecast: that nothing is left to ask, or which sources it does not cover."""
    if not found.unknown and not any(each.images for each in found.sources):
        return ["forecast  nothing is left to ask"]
    return [
        f"forecast  {shown(source)}: too little is answered yet. `taskgalaxy plan --probe` asks a little first."
        for source in found.unknown
    ]


def checked(found: Checked | None) -> list[str]:
    """The latest forecast and what was spent since."""
    if found is None:
        return []
    rows = amounts(found)
    said, spent = (", ".join(row[column] + row[0] for row in rows) for column in (1, 2))
    return [f"forecast  of {made(found)}: {said}; since then {spent} were spent"]


def made(found: Checked) -> str:
    """When a forecast was made."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.at))


def amounts(found: Checked) -> list[tuple[str, str, str]]:
    """Rows of (unit, forecast, spent since): cost, cost at list prices where they differ, tokens."""
    listed = (" at list prices", _between(found.list_cost, _dollars), _dollars(found.spent_list))
    return [
        ("", _between(found.cost, _dollars), _dollars(found.spent)),
        *([listed] if found.list_cost != found.cost else []),
        (" tokens", _between(found.tokens, _number), _number(found.spent_tokens)),
    ]


def rest(found: Forecast) -> list[str]:
    """What the pending requests of a run would cost."""
    if found.unknown:
        return ["what the rest would cost is not known yet: `taskgalaxy plan --probe` measures it"]
    return [f"the rest would cost about {_between(found.cost, _dollars)}, {_between(found.tokens, _number)} tokens"]


def _estimates(found: Forecast | SourceForecast) -> tuple[str, str, str]:
    listed = found.list_cost != found.cost
    return (
        _between(found.tokens, _number),
        _between(found.cost, _dollars),
        _between(found.list_cost, _dollars) if listed else "",
    )


def _between(found: Estimate, form: Callable[[float], str]) -> str:
    return f"{form(found.expected)} ({form(found.low)} to {form(found.high)})"


def _dollars(value: float) -> str:
    return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def _number(value: float) -> str:
    return f"{round(value):,}"


def _rows(tallies: Mapping[str, Tally]) -> list[tuple[str, ...]]:
    return [(name, f"{each.calls:,} calls", *_amounts(each)) for name, each in tallies.items()]


def _shares(shares: Mapping[str, Share]) -> list[tuple[str, ...]]:
    return [(name, f"{each.units:,} units", *_amounts(each)) for name, each in shares.items()]


def _amounts(each: Tally | Share) -> tuple[str, str, str]:
    listed = f"{_money(each.list_cost)} at list prices" if each.list_cost != each.cost else ""
    return f"{each.tokens:,} tokens", _money(each.cost), listed


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [[shown(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[column]) for row in cells[:_SHOWN]) for column in range(len(cells[0]))]
    lines = [title]
    for name, *amounts in cells[:_SHOWN]:
        right = "  ".join(cell.rjust(width) for cell, width in zip(amounts, widths[1:], strict=True))
        lines.append(f"  {name.ljust(widths[0])}  {right}".rstrip())
    return lines + ([f"  and {len(cells) - _SHOWN:,} more: --json has all"] if len(cells) > _SHOWN else [])


def _run(run: str, times: tuple[float, float]) -> str:
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in times)
    return f"{run[:12] if run.isalnum() else run} {first} to {last} UTC"


def _money(nano: float) -> str:
    return f"${nano / NANO:,.4f}"
