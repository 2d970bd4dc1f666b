"""The text of `costs` and of forecasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from taskgalaxy_ops.operations.answered import ENOUGH
from taskgalaxy_ops.operations.costs import Costs, Share
from taskgalaxy_ops.operations.forecast import Checked, Estimate, Forecast, SourceForecast, TooFew
from taskgalaxy_ops.operations.probe import Probed
from taskgalaxy_ops.reports.console import usage_line
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.text import dollars, shown
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


def forecast(found: Forecast, asked: Probed | None = None) -> list[str]:
    """What a run would cost, by source and in total, with notes. asked: by the probe that was just made, if one was."""
    rows = [
        (name, left and f"{left} images left", f"{tokens} tokens", cost, listed and f"{listed} at list prices", of)
        for name, left, tokens, cost, listed, of in forecast_rows(found)
    ]
    lines = [f"probe     {line}" for line in probed(asked)] if asked else []
    lines += _table("forecast, with what it lies between in 95 of 100 cases", rows)
    return [*lines, *(f"forecast  {line}" for line in forecast_notes(found, asked))]


def probed(found: Probed) -> list[str]:
    """What a probe asked, what it took, and why some of it has no answer."""
    if not found.images:
        return ["nothing had to be asked first"]
    images = ", ".join(f"{_counted(number, 'image')} of {shown(source)}" for source, number in found.images.items())
    return [f"asked about {images}: {usage_line(found.usage)}", *map(shown, found.reasons)]


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


def forecast_notes(found: Forecast, asked: Probed | None = None) -> list[str]:
    """Notes on a forecast: that nothing is left to ask, what it rests on, or what is known of a source without one."""
    if not found.unknown and not any(each.images for each in found.sources):
        return ["nothing is left to ask"]
    notes = _fused(found)
    elsewhere = [shown(each.source) for each in found.sources if each.images and each.elsewhere]
    if elsewhere:
        notes.append(
            f"{', '.join(elsewhere)}: too few images are answered, so it rests on those of all sources. A source may "
            "well differ from the others: the interval is wide"
        )
    return notes + [_too_few(each, (asked.images if asked else {}).get(each.source, 0)) for each in found.too_few]


def _fused(found: Forecast) -> list[str]:
    """What asking for verdicts and questions together saves, where it is set, or would; nothing where neither."""
    tokens, cost = found.fused_saves.get("tokens", 0.0), found.fused_saves.get("list_cost", 0.0)
    if not round(tokens):
        return []
    does = ("saves" if tokens > 0 else "costs") if found.fused else ("would save" if tokens > 0 else "would cost")
    money = f", {dollars(abs(cost))} at list prices" if cost else ""
    set_ = "" if found.fused else ", by what the images asked so far show"
    return [f"write.fused {does} about {_number(abs(tokens))} tokens{money}{set_}"]


def _too_few(found: TooFew, asked: int) -> str:
    """What is known of a source without a forecast, and what to do next. asked: images that were just asked about."""
    name, images = shown(found.source), _counted(found.left + found.answered, "image")
    if not found.matches:
        if asked:
            return f"{name}: {_counted(asked, 'image')} asked about, and none answered. Ask again later"
        return (
            f"{name}: none of its {images} is answered, nor enough of other sources. `taskgalaxy plan --probe`, or "
            "*Forecast* in the form of galaxy_backfill, asks about a few first"
        )
    known = (
        f"{found.answered:,} of its {images} answered in full ({found.matches:,} matches, "
        f"{found.questions:,} questions to write, {found.pairs:,} pairs)"
    )
    why = f"a forecast takes {ENOUGH}" if found.answered < ENOUGH else "too few of them came to the vote"
    cost = "" if found.most_cost is None else f", {dollars(found.most_cost)} by what they cost so far"
    more = min(found.left + found.answered, max(ENOUGH, 2 * found.answered))
    return (
        f"{name}: {known}: {why}. `taskgalaxy plan --source {name} --probe {more}` asks about {more:,}; or run it: at "
        f"most {found.most_units:,} request items are asked{cost}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


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
    listed = (" at list prices", _between(found.list_cost, dollars), dollars(found.spent_list))
    return [
        ("", _between(found.cost, dollars), dollars(found.spent)),
        *([listed] if found.list_cost != found.cost else []),
        (" tokens", _between(found.tokens, _number), _number(found.spent_tokens)),
    ]


def rest(found: Forecast) -> list[str]:
    """What the pending requests of a run would cost."""
    if found.unknown:
        unknown = [_too_few(each, 0) for each in found.too_few]
        return ["what the rest would cost is not known yet", *unknown]
    return [f"the rest would cost about {_between(found.cost, dollars)}, {_between(found.tokens, _number)} tokens"]


def _estimates(found: Forecast | SourceForecast) -> tuple[str, str, str]:
    listed = found.list_cost != found.cost
    return (
        _between(found.tokens, _number),
        _between(found.cost, dollars),
        _between(found.list_cost, dollars) if listed else "",
    )


def _between(found: Estimate, form: Callable[[float], str]) -> str:
    return f"{form(found.expected)} ({form(found.low)} to {form(found.high)})"


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
