"""Skills for bar, line and pie charts."""

from __future__ import annotations

from itertools import pairwise

from taskgalaxy_ops.simulator import plots
from taskgalaxy_ops.simulator.perception import SURE, Scene
from taskgalaxy_ops.simulator.plots import Bar, Bars, Line, Pie
from taskgalaxy_ops.simulator.skills.base import Asked, Found, asked, many, need, one, quoted, skill
from taskgalaxy_ops.simulator.skills.text import single

_COLOURS = ("red", "green", "blue", "orange", "purple", "grey", "yellow")


def _bars(scene: Scene) -> Bars:
    found = plots.bars(scene)
    need(found is not None, "no chart with clear upright bars")
    assert found is not None
    return found


def _named(scene: Scene) -> list[Bar]:
    """The bars of one series, each with its own label below it."""
    found = _bars(scene)
    need(not found.touching and all(bar.label for bar in found.bars), "the bars have no labels of their own below them")
    labels = [bar.label for bar in found.bars]
    need(len(set(labels)) == len(labels) and len(labels) >= 2, "the bars' labels are not clear")
    return found.bars


def _seen(count: int) -> str:
    return f"a bar chart with {count} bars"


@skill("charts & tables~bar charts~bar counting")
def bar_count(scene: Scene) -> Found:
    found = _bars(scene)
    count = len(found.bars)
    need(count >= 2, "a single bar")
    why = f"From left to right, {count} upright bars rise from the horizontal axis."
    labels = [bar.label for bar in found.bars]
    if all(labels) and len(set(labels)) == count:
        why += f" They stand for {', '.join(labels)}."
    else:
        why += " Bars of different colours are counted one by one."
    return one(_seen(count), str(count), (str(count + 1), str(count - 1), str(count + 2)), why)


@skill("charts & tables~bar charts~tallest bar identification")
def tallest(scene: Scene) -> Found:
    return _extreme(scene, -1, "highest")


@skill("charts & tables~bar charts~shortest bar identification")
def shortest(scene: Scene) -> Found:
    return _extreme(scene, 1, "lowest")


def _extreme(scene: Scene, sign: int, word: str) -> Found:
    bars = sorted(_named(scene), key=lambda bar: sign * bar.height)
    need(abs(bars[0].height - bars[1].height) > 0.012 * scene.height, f"two bars are about equally {word}")
    right = bars[0].label
    why = (
        f"Comparing the tops of the {len(bars)} bars, that of {quoted(right)} is the {word}. "
        f"Next to it comes {quoted(bars[1].label)}."
    )
    return one(_seen(len(bars)), right, [bar.label for bar in bars[1:]], why)


@skill("charts & tables~bar charts~bar colour identification")
def bar_colour(scene: Scene) -> Found:
    found = _bars(scene)
    colours = {bar.colour for bar in found.bars}
    need(len(colours) == 1 and None not in colours, "the bars have several colours, or one without a clear name")
    colour = str(found.bars[0].colour)
    why = f"The chart has {len(found.bars)} bars. All of them are filled with the same colour, {colour}."
    return one(_seen(len(found.bars)), colour, _COLOURS, why)


@skill("charts & tables~bar charts~bar value estimation")
def bar_value(scene: Scene) -> Found:
    bars = _named(scene)
    axis = _bars(scene).axis
    need(axis is not None and axis.ticks[0][1] == 0, "the value axis cannot be read with certainty")
    assert axis is not None
    span = axis.ticks[-1][1] - axis.ticks[0][1]

    def ask(bar: Bar) -> Asked:
        reached = axis.value(bar.top)
        shown = _rounded(reached, span)
        wrong = [_rounded(v, span) for v in (reached + 0.25 * span, reached - 0.25 * span) if v > 0]
        why = f"The top of the bar of {quoted(bar.label)} lies level with about {shown} on the vertical axis."
        why += f" The axis is labelled from {axis.ticks[0][0]} to {axis.ticks[-1][0]}."
        return asked(shown, wrong, why, category=bar.label)

    return many(_seen(len(bars)), [ask(bar) for bar in bars])


def _rounded(number: float, span: float) -> str:
    step = 10 ** max(-2, len(str(int(span))) - 3) if span >= 1 else 0.01
    value = round(number / step) * step
    return str(round(value)) if span > 20 else f"{value:.1f}"


@skill("charts & tables~bar charts~bar height comparison")
def bar_comparison(scene: Scene) -> Found:
    bars = _named(scene)

    def ask(a: Bar, b: Bar) -> Asked:
        low, high = sorted((a, b), key=lambda bar: bar.height)
        why = (
            f"Comparing their tops, the bar of {quoted(high.label)} reaches higher than that of "
            f"{quoted(low.label)}. So {quoted(high.label)} is right."
        )
        return asked(high.label, (low.label,), why, first=a.label, second=b.label)

    clear = [(a, b) for a, b in pairwise(bars) if abs(a.height - b.height) > 0.02 * scene.height]
    return many(_seen(len(bars)), [ask(a, b) for a, b in clear])


def _line(scene: Scene) -> Line:
    found = plots.line(scene)
    need(found is not None, "no chart with a single clear line")
    assert found is not None
    return found


@skill("charts & tables~line & pie charts~trend description")
def trend(scene: Scene) -> Found:
    points = _line(scene).points
    (first, start), (last, end) = points[0], points[-1]
    need(abs(start - end) > 0.12 * scene.height, "the line's ends lie at similar heights")
    answer = "it rises" if end < start else "it falls"
    place = "higher" if end < start else "lower"
    why = (
        f"At {quoted(first)} the line begins, at {quoted(last)} it ends. "
        f"Its right end lies clearly {place} than its left end."
    )
    return one("a chart with one line", answer, ("it rises", "it falls"), why)


@skill("charts & tables~line & pie charts~peak finding")
def peak(scene: Scene) -> Found:
    found = _line(scene)
    ordered = sorted(found.points, key=lambda point: point[1])
    need(ordered[1][1] - ordered[0][1] > 0.025 * scene.height, "two points of the line are about equally high")
    need(found.highest > ordered[0][1] - 0.02 * scene.height, "the line is highest between two labels")
    why = (
        f"Following the line from left to right, its highest point lies above {quoted(ordered[0][0])}. "
        f"The next highest is above {quoted(ordered[1][0])}."
    )
    return one("a chart with one line", ordered[0][0], [label for label, _ in ordered[1:]], why)


def _pie(scene: Scene) -> Pie:
    found = plots.pie(scene)
    need(found is not None, "no clear pie chart")
    assert found is not None
    return found


@skill("charts & tables~line & pie charts~largest slice identification")
def largest_slice(scene: Scene) -> Found:
    slices = sorted(_pie(scene).slices, key=lambda s: -s[1])
    (colour, share), (_, second) = slices[:2]
    names = [name for name, _ in slices]
    need(share - second > 0.025, "two slices are about equally large")
    need(colour and names.count(colour) == 1, "the largest slice's colour has no clear name")
    wrong = [name for name in names[1:] if name]
    why = (
        f"Comparing the slices' angles, the {colour} one is the largest. "
        f"It takes about {round(100 * share)} % of the circle, the next one {round(100 * second)} %."
    )
    return one(f"a pie chart with {len(slices)} slices", str(colour), wrong or _COLOURS, why)


@skill("charts & tables~line & pie charts~slice counting")
def slice_count(scene: Scene) -> Found:
    count = len(_pie(scene).slices)
    why = f"Going once around the pie, the colour changes {count} times. So there are {count} slices."
    return one(f"a pie chart with {count} slices", str(count), (str(count + 1), str(count - 1), str(count + 2)), why)


def _kind(scene: Scene) -> str | None:
    if plots.pie(scene) is not None:
        return "pie chart"
    if plots.bars(scene) is not None:
        return "bar chart"
    return "line chart" if plots.line(scene) is not None else None


def _chart(scene: Scene) -> str:
    kind = _kind(scene)
    need(kind, "no bar, line or pie chart can be seen")
    return str(kind)


@skill("charts & tables~chart text~chart type classification")
def chart_type(scene: Scene) -> Found:
    kind = _chart(scene)
    what = {
        "pie chart": "A circle is divided into coloured slices.",
        "bar chart": "Upright bars stand side by side on a horizontal axis.",
        "line chart": "A line runs from left to right above a horizontal axis.",
    }[kind]
    return one(f"a {kind}", kind, ("bar chart", "line chart", "pie chart"), f"{what} So it is a {kind}.")


@skill("charts & tables~chart text~chart title reading")
def chart_title(scene: Scene) -> Found:
    kind = _chart(scene)
    row = scene.rows[0]
    letters = sum(c.isalpha() for c in row.text)
    need(row.sure >= SURE and single(row) and letters > 5, "no title above the chart")
    need(
        row.size >= 0.98 * max(r.size for r in scene.rows) and row.bottom < 0.2 * scene.height,
        "no title above the chart",
    )
    words = row.text.split()
    wrong = [r.text for r in scene.rows[1:] if r.sure >= SURE and single(r) and sum(c.isalpha() for c in r.text) > 5][
        :2
    ]
    wrong += [" ".join([*words[:-1], "2030"]), " ".join(words[:-1])]
    why = f"Above the {kind} stands one line in the largest letters. It reads {quoted(row.text)}."
    return one(f"a {kind} with a title", row.text, wrong, why)


@skill("charts & tables~chart text~axis label reading")
def axis_label(scene: Scene) -> Found:
    labels = plots.labels_below(scene)
    need(_kind(scene) in ("bar chart", "line chart") and labels, "no chart with a labelled horizontal axis")
    assert labels
    below = [row for row in scene.rows if row.top > max(s.bottom for s in labels) - 2]
    middle = (labels[0].middle[0] + labels[-1].middle[0]) / 2
    need(len(below) == 1 and len(below[0].segments) == 1, "no single line of text below the horizontal axis")
    row = below[0]
    need(row.sure >= SURE and sum(c.isalpha() for c in row.text) > 2, "the axis's label cannot be read with certainty")
    need(
        abs((row.left + row.right) / 2 - middle) < 0.08 * scene.width,
        "the line below is not set under the axis's middle",
    )
    why = (
        f"Below the tick labels from {quoted(labels[0].text)} to {quoted(labels[-1].text)} stands one line "
        f"of text. It reads {quoted(row.text)}."
    )
    return one("a labelled horizontal axis", row.text, [scene.rows[0].text, labels[0].text, "Number"], why)


@skill("charts & tables~chart text~category label listing")
def categories(scene: Scene) -> Found:
    labels = [bar.label for bar in _named(scene)]
    need(len(labels) <= 10, "too many categories")
    swapped = [labels[1], labels[0], *labels[2:]]
    why = (
        "Each bar has its label below it. "
        f"From left to right there are {len(labels)}, from {quoted(labels[0])} to {quoted(labels[-1])}."
    )
    return one(_seen(len(labels)), "; ".join(labels), ("; ".join(labels[:-1]), "; ".join(swapped)), why)


@skill("charts & tables~chart text~axis range reading")
def axis_range(scene: Scene) -> Found:
    need(_kind(scene) in ("bar chart", "line chart"), "no bar or line chart")
    axis = plots.value_axis(scene)
    need(axis is not None, "the vertical axis cannot be read with certainty")
    assert axis is not None
    low, high = axis.ticks[0][0], axis.ticks[-1][0]
    others = [text for text, _, _ in axis.ticks]
    wrong = (f"{low} to {others[-2]}", f"{others[1]} to {high}")
    why = f"Along the vertical axis there are {len(others)} numbers. The lowest reads {low}, the highest {high}."
    return one("a vertical axis with numbers", f"{low} to {high}", wrong, why)
