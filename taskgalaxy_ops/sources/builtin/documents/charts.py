"""Charts: bars, lines, pies, points. Drawn by matplotlib, at 72 dots an inch so that a point is a pixel."""

from __future__ import annotations

import math
from random import Random
from typing import Any, Literal, cast

from PIL import Image as Pillow

from taskgalaxy_ops.sources.builtin.documents import words
from taskgalaxy_ops.sources.builtin.documents.canvas import Box, Drawn, hsl, rounded

_FONTS = ("DejaVu Sans", "DejaVu Serif", "STIXGeneral", "DejaVu Sans Mono")
_NAMED = {
    "red": "#d62728", "blue": "#1f5fb4", "green": "#2a8a2a", "orange": "#f08a1d", "purple": "#8a4fbf",
    "brown": "#8c564b",
    "pink": "#e377c2", "gray": "#7f7f7f", "teal": "#149a9a", "yellow": "#f2cf1d", "black": "#222222",
}  # fmt: skip


class _Chart:
    """A figure with one pair of axes and random fonts, sizes and colours."""

    def __init__(self, r: Random, wide: bool = True) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width = r.randrange(680, 1001, 20) if wide else r.randrange(620, 801, 20)
        self.height = r.randrange(500, 681, 20)
        font = r.choice(_FONTS)
        self.size = r.choice((16, 17, 18)) + (font == "STIXGeneral") * 2 - (font == "DejaVu Sans Mono")
        self.style: dict[str, Any] = {
            "font.family": font, "font.size": self.size, "axes.titlesize": self.size + r.choice((4, 6, 8)),
            "axes.titleweight": r.choice(("bold", "bold", "normal")), "axes.labelsize": self.size,
            "xtick.labelsize": self.size, "ytick.labelsize": self.size, "legend.fontsize": self.size,
            "mathtext.default": "regular",
            "axes.axisbelow": True, "xtick.major.pad": 12, "ytick.major.pad": 6, "axes.unicode_minus": False,
        }  # fmt: skip
        hue = r.randrange(360)
        self.paper = r.choice(("#ffffff", "#ffffff", "#fcfaf4", hsl(hue, 35, 96)))
        plot = r.choice((self.paper, self.paper, "#f4f4f4", hsl(hue, 25, 93)))
        with self._styled():
            self.figure = Figure((self.width / 72, self.height / 72), dpi=72, facecolor=self.paper)
            self.figure.set_layout_engine("constrained", w_pad=0.2, h_pad=0.2)
            self.canvas: Any = FigureCanvasAgg(self.figure)  # its methods carry no types
            self.axes = self.figure.add_subplot(facecolor=plot)
        if r.random() < 0.6:
            self.axes.spines[["top", "right"]].set_visible(False)
        self.grid = r.random() < 0.7
        self.named = r.sample(sorted(_NAMED.items()), len(_NAMED))

    def _styled(self) -> Any:
        import matplotlib

        return matplotlib.rc_context(cast(Any, self.style))

    def title(self, text: str) -> None:
        """The title, broken in two if it is wide."""
        size = self.style["axes.titlesize"]
        if len(text) * size * 0.68 > self.width * 0.85:
            middle = min((i for i, c in enumerate(text) if c == " "), key=lambda i: abs(i - len(text) / 2), default=0)
            text = f"{text[:middle]}\n{text[middle + 1 :]}" if middle else text
        weight = self.style["axes.titleweight"]
        self.axes.set_title(text, fontfamily=self.style["font.family"], fontsize=size, fontweight=weight, pad=14)

    def scale(self, top: float, bottom: float = 0, axis: Literal["x", "y"] = "y") -> None:
        """Round ticks from ``bottom`` to ``top``."""
        span = max(top - bottom, 1e-9)
        magnitude = 10 ** math.floor(math.log10(span / 5))
        step = next(magnitude * m for m in (1, 2, 5, 10) if span / (magnitude * m) <= 6)
        first, last = math.floor(bottom / step), math.ceil(top / step)
        ticks = [round(step * i, 6) for i in range(first, last + 1)]
        labels = [f"{tick:g}" for tick in ticks]
        getattr(self.axes, f"set_{axis}ticks")(ticks, labels)
        getattr(self.axes, f"set_{axis}lim")(ticks[0], ticks[-1])
        if self.grid:
            self.axes.grid(axis=axis, color="#c8c8c8", linewidth=1)

    def done(self, **truth: Any) -> Drawn:
        """Draw the figure, and read its texts with their boxes back from it."""
        from matplotlib.text import Text

        with self._styled():
            for item in self.figure.findobj(Text):
                item.set_fontfamily(self.style["font.family"])
            self.canvas.draw()
        renderer = self.canvas.get_renderer()
        texts: list[tuple[str, Box]] = []
        for item in self.figure.findobj(Text):
            if item.get_text().strip() and item.get_visible():
                x0, y0, x1, y1 = item.get_window_extent(renderer).extents
                box = x0, self.height - y1, x1, self.height - y0
                texts.append((item.get_text(), rounded(box)))
        image = Pillow.frombytes("RGBA", self.canvas.get_width_height(), bytes(self.canvas.buffer_rgba()))
        return Drawn(image.convert("RGB"), truth, texts)


def _measure(r: Random, low: int, high: int) -> tuple[words.Measure, str, list[str], list[int]]:
    """A random measure: itself, its title, ``low`` to ``high`` categories, and a different number for each."""
    measure = r.choice(words.MEASURES)
    names = list(measure.categories)
    number = min(r.randint(low, high), len(names))
    chosen = names[:number] if measure.categories is words.WEEKDAYS else r.sample(names, number)
    return measure, words.fill(r, measure.title), chosen, r.sample(range(measure.low, measure.high), number)


def bar_chart(r: Random) -> Drawn:
    """Upright bars, one a category; some carry their number."""
    chart = _Chart(r)
    measure, title, names, values = _measure(r, 4, 7)
    return _bars(r, chart, measure, title, names, values, upright=True)


def horizontal_bars(r: Random) -> Drawn:
    """Lying bars, one a category."""
    chart = _Chart(r)
    measure, title, names, values = _measure(r, 4, 9)
    return _bars(r, chart, measure, title, names, values, upright=False)


def _bars(
    r: Random, chart: _Chart, measure: words.Measure, title: str, names: list[str], values: list[int], *, upright: bool
) -> Drawn:
    axes = chart.axes
    many = r.random() < 0.4
    named = chart.named[: len(names)] if many else [chart.named[0]] * len(names)
    colours = [colour for _, colour in named]
    wide = r.uniform(0.5, 0.8)
    bars = axes.bar(names, values, wide, color=colours) if upright else axes.barh(names, values, wide, color=colours)
    if labelled := r.random() < 0.5:
        axes.bar_label(bars, padding=3, fontsize=chart.size)
    chart.scale(max(values) * 1.08, axis="y" if upright else "x")
    (axes.set_ylabel if upright else axes.set_xlabel)(measure.axis)
    if not upright:
        axes.invert_yaxis()
    elif sum(map(len, names)) * chart.size * 0.75 > chart.width * 0.8:
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    chart.title(title)
    return chart.done(
        title=title, axis=measure.axis, values=dict(zip(names, values, strict=True)), total=sum(values),
        highest=names[values.index(max(values))], lowest=names[values.index(min(values))], values_shown=labelled,
        colours=dict(zip(names, (name for name, _ in named), strict=True)), bars=len(names),
    )  # fmt: skip


def grouped_bars(r: Random) -> Drawn:
    """Two or three bars a category, with a legend."""
    return _grouped(r, stacked=False)


def stacked_bars(r: Random) -> Drawn:
    """Parts of a bar on top of each other, with a legend."""
    return _grouped(r, stacked=True)


def _grouped(r: Random, *, stacked: bool) -> Drawn:
    chart = _Chart(r)
    measure, title, names, _ = _measure(r, 3, 5)
    series = r.choice(words.SERIES)[: r.randint(2, 3)]
    rows = {name: r.sample(range(measure.low, measure.high), len(names)) for name in series}
    width = 0.6 if stacked else 0.8 / len(series)
    base = [0] * len(names)
    for number, (name, values) in enumerate(rows.items()):
        places = [i + (0 if stacked else (number - (len(series) - 1) / 2) * width) for i in range(len(names))]
        chart.axes.bar(places, values, width * 0.95, base if stacked else 0, color=chart.named[number][1], label=name)
        base = [b + v for b, v in zip(base, values, strict=True)]
    tilt: dict[str, Any] = {}
    if sum(map(len, names)) * chart.size * 0.75 > chart.width * 0.8:
        tilt = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    chart.axes.set_xticks(range(len(names)), names, **tilt)
    chart.scale(max(base) if stacked else max(map(max, rows.values())))
    chart.axes.set_ylabel(measure.axis)
    chart.title(title)
    chart.figure.legend(loc="outside lower center", ncols=len(series), frameon=r.random() < 0.5, fontsize=chart.size)
    return chart.done(
        title=title, axis=measure.axis, categories=names, series=rows,
        colours={name: chart.named[i][0] for i, name in enumerate(series)},
        totals=dict(zip(names, base, strict=True)),
    )  # fmt: skip


def line_chart(r: Random) -> Drawn:
    """One to three lines over months or years."""
    chart = _Chart(r)
    alone, several, axis, low, high = r.choice(words.TRENDS)
    if r.random() < 0.5:
        start = r.randint(1990, 2014)
        times = [str(start + i) for i in range(r.randint(5, 8))]
    else:
        start = r.randint(0, 5)
        times = [month[:3] for month in words.MONTHS[start : start + r.randint(5, 7)]]
    names = r.sample(words.TOWNS, r.randint(1, 3))
    title = words.fill(r, several if len(names) > 1 else alone)
    rows: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        value = r.uniform(low + (high - low) * 0.2, high - (high - low) * 0.2)
        values = []
        for _ in times:
            values.append(round(value))
            value = min(high, max(low, value + r.uniform(-0.28, 0.28) * (high - low)))
        rows[name] = values
        chart.axes.plot(
            times, values, color=chart.named[number][1], label=name, linewidth=r.choice((2, 3, 4)),
            marker=("o", "s", "^")[number], markersize=r.choice((7, 9)), linestyle=r.choice(("-", "-", "--")),
        )  # fmt: skip
    everything = [value for values in rows.values() for value in values]
    chart.scale(max(everything), min(everything) if min(everything) < 0 or r.random() < 0.4 else 0)
    chart.axes.set_ylabel(axis)
    chart.axes.set_xlabel("Year" if times[0].isdigit() else "Month")
    chart.title(title)
    if len(names) > 1:
        chart.figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=chart.size)
    shown = rows if len(names) > 1 else {title: next(iter(rows.values()))}
    return chart.done(
        title=title, axis=axis, times=times, series=shown, lines=len(names),
        colours={name: chart.named[i][0] for i, name in enumerate(shown)},
        peaks={
            name: [time for time, value in zip(times, values, strict=True) if value == max(values)]
            for name, values in shown.items()
        },
    )  # fmt: skip


def area_chart(r: Random) -> Drawn:
    """A filled curve over the hours of a day."""
    chart = _Chart(r)
    place = words.fill(
        r, r.choice(("{town} station", "{brand} shop", "{street} Street car park", "{town} swimming pool"))
    )
    title = r.choice(("Visitors at {}", "People in {}", "Guests at {}")).format(place)
    hours = list(range(6, 23, r.choice((2, 4))))
    peak = r.choice(hours[1:-1])
    values = [max(2, round(r.uniform(60, 300) * math.exp(-(((hour - peak) / 5) ** 2)))) for hour in hours]
    values[hours.index(peak)] = max(values) + r.randint(10, 60)
    name, colour = chart.named[0]
    chart.axes.fill_between(hours, values, color=colour, alpha=0.45)
    chart.axes.plot(hours, values, color=colour, linewidth=3)
    chart.axes.set_xticks(hours, [f"{hour}:00" for hour in hours])
    chart.axes.margins(x=0.04)
    if len(hours) * 5 * chart.size * 0.75 > chart.width * 0.8:
        chart.axes.tick_params(axis="x", rotation=40)
    chart.scale(max(values))
    chart.axes.set_ylabel("People")
    chart.axes.set_xlabel("Time of day")
    chart.title(title)
    times = [f"{hour}:00" for hour in hours]
    return chart.done(title=title, values=dict(zip(times, values, strict=True)), peak=f"{peak}:00", colour=name)


def pie_chart(r: Random) -> Drawn:
    """Shares of a whole; a ring at times."""
    chart = _Chart(r, wide=False)
    measure, title, names, _ = _measure(r, 3, 6)
    cuts = sorted(r.sample(range(2, 24), len(names) - 1))
    shares = [4 * (b - a) for a, b in zip([0, *cuts], [*cuts, 25], strict=True)]
    ring = r.random() < 0.35
    chart.axes.pie(
        shares, labels=names, colors=[colour for _, colour in chart.named[: len(names)]],
        startangle=r.randrange(360), autopct=lambda share: f"{share:.0f}%", labeldistance=1.1,
        pctdistance=0.79 if ring else 0.66,
        wedgeprops={"edgecolor": chart.paper, "linewidth": 2, "width": 0.42 if ring else None},
    )  # fmt: skip
    inner = [text for text in chart.axes.texts if text.get_text().endswith("%")]
    for text, (name, _) in zip(inner, chart.named, strict=False):
        text.set_color("#111111" if name in ("yellow", "orange", "pink") else "white")
        text.set_fontweight("bold")
    for text in chart.axes.texts:
        text.set_fontsize(chart.size)
    chart.title(title)
    return chart.done(
        title=title, shares=dict(zip(names, shares, strict=True)), slices=len(names), ring=ring,
        largest=[n for n, s in zip(names, shares, strict=True) if s == max(shares)],
        colours={name: chart.named[i][0] for i, name in enumerate(names)}, measure=measure.axis,
    )  # fmt: skip


def scatter_plot(r: Random) -> Drawn:
    """Points with or without a trend."""
    chart = _Chart(r)
    title, x_axis, y_axis, (low, high), slope, start, noise = r.choice(words.PAIRS)
    xs = [round(r.uniform(low, high), 1) for _ in range(r.randint(14, 40))]
    ys = [round(slope * x + start + r.gauss(0, noise), 1) for x in xs]
    name, colour = chart.named[0]
    marker = r.choice(("o", "s", "^", "D"))
    chart.axes.scatter(xs, ys, r.choice((60, 90, 120)), color=colour, marker=marker, alpha=0.85)
    if trend := r.random() < 0.4:
        chart.axes.plot([low, high], [slope * low + start, slope * high + start], color="#333333", linewidth=2)
    chart.scale(max(high, *xs), low, axis="x")
    chart.scale(max(ys), min(ys))
    chart.axes.set_xlabel(x_axis)
    chart.axes.set_ylabel(y_axis)
    chart.title(title)
    return chart.done(
        title=title, x_axis=x_axis, y_axis=y_axis, points=len(xs), colour=name, trend_line=trend,
        trend="none" if slope == 0 else "rising" if slope > 0 else "falling",
        marker={"o": "circle", "s": "square", "^": "triangle", "D": "diamond"}[marker],
    )  # fmt: skip


def histogram(r: Random) -> Drawn:
    """How often each range occurs."""
    chart = _Chart(r)
    what, unit, low, step = r.choice(
        (("Age of the visitors", "Age (years)", 0, 10), ("Length of the calls", "Minutes", 0, 5),
         ("Weight of the parcels", "Weight (kg)", 0, 2), ("Test scores", "Points", 0, 10),
         ("Height of the trees", "Height (m)", 0, 4), ("Speed of the cars", "Speed (km/h)", 30, 10))
    )  # fmt: skip
    edges = [low + step * i for i in range(r.randint(6, 9))]
    middle = r.uniform(1, len(edges) - 2)
    counts = [max(1, round(r.uniform(18, 42) * math.exp(-(((i - middle) / 2.2) ** 2)))) for i in range(len(edges) - 1)]
    title = f"{what}, {r.choice(words.TOWNS)} {r.randint(2015, 2026)}"
    name, colour = chart.named[0]
    chart.axes.bar(edges[:-1], counts, step, align="edge", color=colour, edgecolor=chart.paper, linewidth=2)
    chart.axes.set_xticks(edges)
    chart.scale(max(counts))
    chart.axes.set_xlabel(unit)
    chart.axes.set_ylabel("Number")
    chart.title(title)
    bins = {f"{a} to {b}": count for a, b, count in zip(edges, edges[1:], counts, strict=False)}
    return chart.done(title=title, x_axis=unit, bins=bins, total=sum(counts), colour=name)
