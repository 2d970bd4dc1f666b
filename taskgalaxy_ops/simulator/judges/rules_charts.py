"""Rules on charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskgalaxy_ops.simulator.judges import finding, layout, palettes, plots, words
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError, UnsureError, short
from taskgalaxy_ops.simulator.judges.plots import Bar
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]


def _bars(view: View, least: int = 2) -> list[Bar]:
    found = plots.bars(view)
    if len(found) < least:
        raise SenselessError("I see no bars")
    return found


def _bar_count(view: View, _: Params) -> Found:
    return finding.number("the number of bars", len(_bars(view)))


def _extreme(tallest: bool) -> Rule:
    """A rule that asks for the category of the highest or lowest bar."""

    def rule(view: View, _: Params) -> Found:
        found = _bars(view)
        heights = [bar.height for bar in found]
        edge = max(heights) if tallest else min(heights)
        right = [plots.label(view, bar) for bar in found if abs(bar.height - edge) <= 2.5]
        named = [name for name in right if name]
        if not named:
            raise UnsureError("I cannot read the bar's label")
        return finding.text(f"the {'highest' if tallest else 'lowest'} bar", *named)

    return rule


def _bar_colour(view: View, _: Params) -> Found:
    names: list[str] = []
    for bar in _bars(view):
        names.append(palettes.name_of(view.judge, bar.rgb))
        names += sorted(palettes.nearly(view.judge, bar.rgb))
    return finding.colour("the bars' colour", *dict.fromkeys(names))


def _named_bar(view: View, name: str) -> Bar:
    """The bar whose label reads so. Raises SenselessError if no label does."""
    found = _bars(view)
    labels = [plots.label(view, bar) for bar in found]
    index, score = words.best(name, labels)
    if score < 0.72:
        raise SenselessError(f"no bar is labelled '{short(name, 30)}'")
    return found[index]


def _bar_value(view: View, params: Params) -> Found:
    bar = _named_bar(view, params["category"])
    scale = plots.scale(view)
    if scale is None:
        raise UnsureError("I cannot read the value axis")
    value = scale.value(bar.top)
    return finding.number("the bar's value", round(value, 2), tolerance=0.07 * scale.span)


def _higher(view: View, params: Params) -> Found:
    first, second = (_named_bar(view, params[key]) for key in ("first", "second"))
    right, other = (
        (params["first"], params["second"]) if first.height > second.height else (params["second"], params["first"])
    )
    if abs(first.height - second.height) < 1.5:
        return Found("both are about as high", lambda said: None)
    return Found(
        f"'{short(right, 30)}' is higher",
        lambda said: words.likeness(said, right) > max(0.8, words.likeness(said, other)),
    )


def _trend(view: View, _: Params) -> Found:
    line = plots.line(view)
    if len(line) < 8:
        raise SenselessError("I see no line")
    part = max(1, len(line) // 50)
    start, end = (sum(y for _, y in piece) / len(piece) for piece in (line[:part], line[-part:]))
    if abs(start - end) < 0.006 * view.height:
        return Found("its ends are about as high", lambda said: None)
    return finding.choice("the line", "it rises" if end < start else "it falls")


def _peak(view: View, _: Params) -> Found:
    line = plots.line(view)
    labels = plots.ticks_below(view)
    if len(line) < 8 or len(labels) < 2:
        raise SenselessError("I see no line over a labelled axis")
    top = min(y for _, y in line)
    places = [x for x, y in line if y - top <= 2.5]
    right = {min(labels, key=lambda p: abs(p.x - x)).text for x in (places[0], places[len(places) // 2], places[-1])}
    return Found(
        f"the peak is at '{short(min(right), 24)}'",
        lambda said: any(
            words.digits(said) == words.digits(r) and words.likeness(f"x{said}", f"x{r}") > 0.8 for r in right
        ),
    )


def _slices(view: View) -> list[plots.Slice]:
    found = plots.slices(view)
    if len(found) < 2:
        raise SenselessError("I see no pie chart")
    return found


def _slice_count(view: View, _: Params) -> Found:
    return finding.number("the number of slices", len(_slices(view)))


def _largest_slice(view: View, _: Params) -> Found:
    found = _slices(view)
    most = max(part.share for part in found)
    names: list[str] = []
    for part in sorted(found, key=lambda s: -s.share):
        if part.share > 0.96 * most:
            names += [palettes.name_of(view.judge, part.rgb), *sorted(palettes.nearly(view.judge, part.rgb))]
    return finding.colour("the largest slice", *dict.fromkeys(names))


def _title(view: View, _: Params) -> Found:
    lines = layout.need_text(view, 2)
    upper = [line for line in lines if line.y < 0.25 * view.height] or lines[:1]
    two = [" ".join(line.text for line in lines[:2])]
    return finding.text("the title", *(line.text for line in upper[:2]), *two)


def _axis_label(view: View, _: Params) -> Found:
    lower = [line for line in view.lines if line.y > 0.7 * view.height and any(c.isalpha() for c in line.text)]
    ticks = {p.text for p in plots.ticks_below(view)}
    candidates = [line for line in lower if line.text not in ticks]
    if not candidates:
        raise SenselessError("I read no label below the axis")
    row = {id(p) for p in plots.ticks_below(view)}
    single = [r[0] for r in view.rows if len(r) == 1 and r[0].y > 0.7 * view.height and id(r[0]) not in row]
    return finding.text("the axis's label", *(p.text for p in (single or candidates)[::-1]))


def _categories(view: View, _: Params) -> Found:
    labels = plots.ticks_below(view)
    if len(labels) < 2:
        raise SenselessError("I read no categories")
    texts = [p.text for p in labels]

    def agrees(said: str) -> bool:
        return words.same_sequence([part.strip() for part in said.split(";") if part.strip()], texts)

    return Found(f"the categories: {short('; '.join(texts))}", agrees)


def _range(view: View, _: Params) -> Found:
    scale = plots.scale(view)
    if scale is None:
        raise SenselessError("I read no numbered axis")
    # a lone nought is easily overlooked: where the axis goes on down to it, it is taken as printed
    low = 0.0 if scale.low > 0 and scale.value(plots.floor(view)) < 0.25 * scale.low else scale.low

    def agrees(said: str) -> bool:
        ends = words.numbers(said.replace(" to ", " ; "))
        if len(ends) != 2 or not words.close(ends[1], scale.high):
            return False
        return words.close(ends[0], low)

    return Found(f"the axis runs from {low:g} to {scale.high:g}", agrees)


def _chart_kind(view: View, _: Params) -> Found:
    if len(plots.slices(view)) >= 2:
        return finding.choice("from slices of a disc", "pie chart")
    if len(plots.bars(view)) >= 2:
        return finding.choice("from bars on one line", "bar chart")
    if len(plots.line(view)) < 8:
        raise SenselessError("I see no chart")
    return finding.choice("from a line", "line chart")


RULES: dict[str, Rule] = {
    "bar counting": _bar_count,
    "tallest bar identification": _extreme(True),
    "shortest bar identification": _extreme(False),
    "bar colour identification": _bar_colour,
    "bar value estimation": _bar_value,
    "bar height comparison": _higher,
    "trend description": _trend,
    "peak finding": _peak,
    "largest slice identification": _largest_slice,
    "slice counting": _slice_count,
    "chart title reading": _title,
    "axis label reading": _axis_label,
    "category label listing": _categories,
    "axis range reading": _range,
    "chart type classification": _chart_kind,
}
