"""Charts from their pixels: bars, the course of a line, slices of a pie, and the printed scale beside them.

The judges tell ink from ground by different distances, and bars differently: ``a`` and ``c`` by connected patches,
``b`` by scanning column after column. Places are pixels of the image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.judges import palettes, words
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.views import View

_SIDE = 1024
_RING = {"a": 0.93, "b": 0.89, "c": 0.95}  # where slices are told apart, in radii of the pie

Rgb = tuple[float, float, float]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bar:
    """An upright bar: its sides in pixels of the image, its colour 0 to 255."""

    left: float
    top: float
    right: float
    bottom: float
    rgb: Rgb

    @property
    def height(self) -> float:
        """Pixels."""
        return self.bottom - self.top

    @property
    def x(self) -> float:
        """Middle, pixels from the left."""
        return (self.left + self.right) / 2


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a pie: its share of the circle (0 to 1) and colour."""

    share: float
    rgb: Rgb


@dataclass(frozen=True, slots=True)
class Scale:
    """The printed numbers beside a chart: value = slope * y + start, and the least and greatest printed."""

    slope: float
    start: float
    low: float
    high: float

    @property
    def span(self) -> float:
        """From the least to the greatest number."""
        return self.high - self.low

    def value(self, y: float) -> float:
        """The value at a height, in pixels from the top."""
        return self.slope * y + self.start


def _pixels(view: View) -> tuple[NDArray[np.float64], float]:
    pixels = view.pixels(_SIDE).astype(float)
    return pixels, view.width / pixels.shape[1]


def ink(view: View) -> Mask:
    """(h, w) of the image at most 1,024 pixels long: what clearly differs from the paper."""

    def make() -> Mask:
        pixels, _ = _pixels(view)
        ring = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3)])
        paper = np.median(ring, axis=0)
        if view.judge == "b":
            offset = (palettes.lab(pixels.reshape(-1, 3)) - palettes.lab(paper[None])) * (0.6, 1, 1)
            return np.asarray(np.sqrt((offset**2).sum(axis=1)).reshape(pixels.shape[:2]) > 17)
        offset = np.abs(pixels - paper)
        if view.judge == "a":
            return np.asarray(np.sqrt((offset**2).sum(axis=2)) > 66)
        return np.asarray(offset.max(axis=2) > 52)

    return view.part("ink", make)


def bars(view: View) -> list[Bar]:
    """The upright bars that stand on one line, from the left; [] if there are none."""

    def make() -> list[Bar]:
        pixels, scale = _pixels(view)
        found = _scanned(ink(view), pixels) if view.judge == "b" else _patches(ink(view), pixels)
        found = _on_one_line(found, pixels.shape[0])
        return [Bar(b.left * scale, b.top * scale, b.right * scale, b.bottom * scale, b.rgb) for b in found]

    return view.part("bars", make)


def _patches(mask: Mask, pixels: NDArray[np.float64]) -> list[Bar]:
    from scipy import ndimage

    labels, _ = ndimage.label(ndimage.binary_opening(mask, np.ones((4, 4))))
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        patch = labels[place] == number
        height, width = patch.shape
        if width < 8 or height < 4 or patch.mean() < 0.86:
            continue
        rgb = np.median(pixels[place][patch], axis=0)
        rows, columns = place
        found.append(
            Bar(columns.start, rows.start, columns.stop, rows.stop, (float(rgb[0]), float(rgb[1]), float(rgb[2])))
        )
    return found


def _scanned(mask: Mask, pixels: NDArray[np.float64]) -> list[Bar]:
    """Neighbouring columns whose longest stretches of ink begin alike and have one colour."""
    spans = [_longest(column) for column in mask.T]
    colours = [pixels[(top + bottom) // 2, x] for x, (top, bottom) in enumerate(spans)]
    found = []
    start = 0
    for x in range(1, len(spans) + 1):
        if (
            x < len(spans)
            and abs(spans[x][0] - spans[start][0]) <= 2
            and np.abs(colours[x] - colours[start]).max() < 40
        ):
            continue
        top = int(median(span[0] for span in spans[start:x]))
        bottom = int(median(span[1] for span in spans[start:x]))  # a tick below the bar makes it longer in places
        if x - start >= 8 and bottom - top >= 4:
            rgb = np.median(pixels[top:bottom, start:x].reshape(-1, 3), axis=0)
            found.append(Bar(start, top, x, bottom, (float(rgb[0]), float(rgb[1]), float(rgb[2]))))
        start = x
    return found


def _longest(column: Mask) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], column, [False]]).astype(np.int8)))
    if not len(edges):
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    widest = int((ends - starts).argmax())
    return int(starts[widest]), int(ends[widest])


def _on_one_line(found: Sequence[Bar], height: int) -> list[Bar]:
    """Of the groups of patches with one base and about one width, the one with the greatest area."""
    best: list[Bar] = []
    for base in found:
        group = [
            bar
            for bar in found
            if abs(bar.bottom - base.bottom) <= 4 and 0.7 < (bar.right - bar.left) / (base.right - base.left) < 1.43
        ]
        if max(bar.height for bar in group) > 0.08 * height and _area(group) > _area(best):
            best = group
    return sorted(best, key=lambda bar: bar.left) if len(best) >= 2 else []


def _area(group: Sequence[Bar]) -> float:
    return sum(bar.height * (bar.right - bar.left) for bar in group)


def ticks_below(view: View) -> list[Piece]:
    """The labels along the horizontal axis, from the left."""

    def make() -> list[Piece]:
        found = bars(view)
        base = median(bar.bottom for bar in found) if found else 0.5 * view.height
        rows = [row for row in view.rows if row[0].y > base - 2 and len(row) >= 2]
        if found and rows:
            return rows[0]
        if rows:
            return max(rows, key=len)
        return [piece for piece in view.pieces if found and 0 < piece.top - base + 8 < 0.25 * view.height]

    return view.part("ticks below", make)


def floor(view: View) -> float:
    """Where the horizontal axis lies, pixels from the top: at the bars' feet, or just above the labels."""
    found = bars(view)
    if found:
        return median(bar.bottom for bar in found)
    labels = ticks_below(view)
    return min((p.top - 0.6 * p.height for p in labels), default=0.85 * view.height)


def label(view: View, bar: Bar) -> str:
    """The label below a bar, "" if none stands near."""
    labels = ticks_below(view)
    if not labels:
        return ""
    nearest = min(labels, key=lambda p: abs(p.x - bar.x))
    return nearest.text if abs(nearest.x - bar.x) < 1.6 * (bar.right - bar.left) else ""


def scale(view: View) -> Scale | None:
    """The scale printed left of the chart; None if fewer than three numbers stand there in line."""

    def make() -> Scale | None:
        found = bars(view)
        limit = min((bar.left for bar in found), default=0.3 * view.width)
        marks = []
        for piece in view.pieces:
            text = piece.text.replace("O", "0").replace("o", "0")
            values = words.numbers(text)
            if piece.right < limit + 2 and len(values) == 1 and re.fullmatch(r"[-−–]?[\d.,]+\s?%?", text):
                marks.append((piece.y, values[0], piece.right))
        for right in sorted({mark[2] for mark in marks}, reverse=True):
            line = [mark for mark in marks if abs(mark[2] - right) < 0.025 * view.width]
            if (fitted := _fit(line)) is not None:
                return fitted
        return None

    return view.part("scale", make)


def _fit(marks: Sequence[tuple[float, float, float]]) -> Scale | None:
    """The straight scale through most of the marks, misread ones left out."""
    best: list[tuple[float, float, float]] = []
    for one in marks:
        for other in marks:
            if other[0] - one[0] < 5 or other[1] >= one[1]:
                continue
            slope = (other[1] - one[1]) / (other[0] - one[0])
            near = [m for m in marks if abs(one[1] + slope * (m[0] - one[0]) - m[1]) < abs(slope) * 5]
            if len(near) > len(best):
                best = near
    if len(best) < 3:
        return None
    slope, start = np.polyfit([m[0] for m in best], [m[1] for m in best], 1)
    values = [m[1] for m in best]
    return Scale(float(slope), float(start), min(values), max(values))


def line(view: View) -> list[tuple[float, float]]:
    """(x, y) of the course of a drawn line, from the left; [] if there is none."""

    def make() -> list[tuple[float, float]]:
        from scipy import ndimage

        pixels, factor = _pixels(view)
        mask = ink(view).copy()
        for piece in view.pieces:
            box = [round(v / factor) for v in (piece.left - 3, piece.top - 3, piece.right + 3, piece.bottom + 3)]
            mask[max(0, box[1]) : box[3], max(0, box[0]) : box[2]] = False
        mask = ndimage.binary_opening(mask, np.ones((2, 2)))
        mask[mask.mean(axis=1) > 0.5] = False
        mask[:, mask.mean(axis=0) > 0.5] = False
        labels, count = ndimage.label(ndimage.binary_dilation(mask, iterations=5))
        if not count:
            return []
        places = ndimage.find_objects(labels)
        widest = max(range(count), key=lambda i: places[i][1].stop - places[i][1].start)
        across = places[widest][1]
        if across.stop - across.start < 0.25 * pixels.shape[1]:
            return []
        own = mask & (labels == widest + 1)
        found = []
        for x in range(across.start, across.stop):
            top, bottom = _longest(own[:, x])
            if bottom > top:
                found.append((x * factor, (top + bottom - 1) / 2 * factor))
        return found

    return view.part("line", make)


def slices(view: View) -> list[Slice]:
    """The slices of a pie or ring; [] if there is no disc."""

    def make() -> list[Slice]:
        from scipy import ndimage

        pixels, _ = _pixels(view)
        height, width = pixels.shape[:2]
        labels, _ = ndimage.label(ndimage.binary_opening(ink(view), np.ones((7, 7))))
        sizes = np.bincount(labels.ravel())
        large = [i for i in range(1, len(sizes)) if sizes[i] > 0.002 * height * width]
        if not large:
            return []
        ys, xs = np.nonzero(np.isin(labels, large))
        left, right, top, bottom = int(xs.min()), int(xs.max()), int(ys.min()), int(ys.max())
        if not 0.94 < (right - left) / max(1, bottom - top) < 1.06:
            return []
        radius = (right - left + bottom - top) / 4
        middle = ((left + right) / 2, (top + bottom) / 2)
        # of a square on its side, the corners would lie outside the ring
        outside = _around(pixels, ink(view), middle, radius * 1.05)
        found = _around(pixels, ink(view), middle, radius * _RING[view.judge])
        whole = sum(part.share for part in found) > 0.8 and sum(part.share for part in outside) < 0.12
        return found if whole else []

    return view.part("slices", make)


def _around(pixels: NDArray[np.float64], mask: Mask, middle: tuple[float, float], radius: float) -> list[Slice]:
    """Stretches of one colour along a circle; what interrupts one for a few degrees (a number) does not part it."""
    steps = 1000
    angles = np.arange(steps) / steps * 2 * np.pi
    xs = np.clip((middle[0] + radius * np.cos(angles)).round().astype(int), 0, mask.shape[1] - 1)
    ys = np.clip((middle[1] + radius * np.sin(angles)).round().astype(int), 0, mask.shape[0] - 1)
    on, colours = mask[ys, xs], pixels[ys, xs]
    runs: list[list[int]] = []
    for i in np.flatnonzero(on).tolist():
        last = runs[-1] if runs else []
        if last and i - last[-1] <= 2 and np.abs(colours[i] - np.median(colours[last[-9:]], axis=0)).max() < 45:
            last.append(i)
        else:
            runs.append([i])
    merged: list[list[int]] = []
    for run in (run for run in runs if len(run) > 4):
        if merged and run[0] - merged[-1][-1] <= 45 and _alike(colours, merged[-1], run):
            merged[-1] += run
        else:
            merged.append(run)
    if len(merged) > 1 and merged[0][0] + steps - merged[-1][-1] <= 45 and _alike(colours, merged[0], merged[-1]):
        merged[0] = merged.pop() + merged[0]
    found = []
    for run in merged:
        rgb = np.median(colours[run], axis=0)
        found.append(Slice(len(run) / steps, (float(rgb[0]), float(rgb[1]), float(rgb[2]))))
    return found


def _alike(colours: NDArray[np.float64], one: list[int], other: list[int]) -> bool:
    return float(np.abs(np.median(colours[one], axis=0) - np.median(colours[other], axis=0)).max()) < 40
