"""Measures plots: value axes, upright bars, single lines and pies, from pixels and the text around them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.perception import SURE, Scene, colour_name, hsv
from taskgalaxy_ops.simulator.reading import Segment
from taskgalaxy_ops.simulator.structure import NUMBER

_APART = 36  # of 255: further apart, two pixels have different colours


@dataclass(frozen=True)
class Axis:
    """A vertical axis; ticks are text, value and y (pixels) from the lowest to the highest."""

    ticks: tuple[tuple[str, float, float], ...]
    right: float  # where its labels end

    def value(self, y: float) -> float:
        """The value at a height."""
        (_, low, bottom), (_, high, top) = self.ticks[0], self.ticks[-1]
        return low + (bottom - y) * (high - low) / (bottom - top)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An upright bar; sides in pixels."""

    left: float
    right: float
    top: float
    height: float
    colour: str | None
    label: str  # "" where none stands clearly below it


@dataclass(frozen=True)
class Bars:
    """All bars of a chart from left to right. Touching ones are groups or a histogram."""

    bars: list[Bar]
    axis: Axis | None
    touching: bool


@dataclass(frozen=True)
class Line:
    """A single line; its height (y in pixels) at each label of the horizontal axis, and its highest point's."""

    points: list[tuple[str, float]]
    highest: float


@dataclass(frozen=True)
class Pie:
    """Slices with the name of their colour, if it has one, and their share of the circle."""

    slices: list[tuple[str | None, float]]


def _once(scene: Scene, name: str, value: Any) -> Any:
    if name not in scene.__dict__:
        scene.__dict__[name] = value(scene)
    return scene.__dict__[name]


def value_axis(scene: Scene) -> Axis | None:
    """The vertical axis on the left, if at least three of its numbers lie on one straight scale."""
    found: Axis | None = _once(scene, "value_axis", _value_axis)
    return found


def _value_axis(scene: Scene) -> Axis | None:
    numbers = [
        s for s in scene.segments if NUMBER.fullmatch(s.text) and s.sure >= SURE and s.right < 0.25 * scene.width
    ]
    if len(numbers) < 3:
        return None
    edge = float(np.median([s.right for s in numbers]))
    numbers = sorted((s for s in numbers if abs(s.right - edge) < 5), key=lambda s: -s.middle[1])
    ticks = tuple((s.text, float(s.text.replace(",", "")), s.middle[1]) for s in numbers)
    if len(ticks) < 3 or any(b[1] <= a[1] for a, b in pairwise(ticks)):
        return None
    values, heights = np.array([t[1] for t in ticks]), np.array([t[2] for t in ticks])
    slope, start = np.polyfit(values, heights, 1)
    if np.abs(slope * values + start - heights).max() > 3:
        return None
    step = float(np.diff(values).min())  # a number between may have been missed
    if np.abs(np.diff(values) / step - np.round(np.diff(values) / step)).max() > 1e-6:
        return None
    # A lone 0 is often missed by the detector of text; so the places of the next ticks are looked at.
    gap, letters = float(-slope * step), float(np.median([s.size for s in numbers]))
    if _inked(scene, edge, heights[-1] - gap, letters):
        return None
    if _inked(scene, edge, heights[0] + gap, letters):
        if abs(values[0] - step) > 1e-6 * step:
            return None
        ticks = (("0", 0.0, float(heights[0] + gap)), *ticks)
    return Axis(ticks, edge)


def _inked(scene: Scene, edge: float, y: float, letters: float) -> bool:
    """Whether something is printed at a height, where the axis's labels end."""
    if not letters < y < scene.height - letters / 2:
        return False
    patch = scene.light[
        int(y - letters / 2) : int(y + letters / 2) + 1, max(0, int(edge - letters * 0.7)) : int(edge) + 1
    ]
    return bool(np.ptp(patch) > 60)


def labels_below(scene: Scene) -> list[Segment] | None:
    """The labels under the horizontal axis from left to right: the first row below the value axis's lowest number."""
    axis = value_axis(scene)
    if axis is None:
        return None
    low = axis.ticks[0][2]
    for row in scene.rows:
        segments = [s for s in row.segments if s.middle[0] > axis.right and s.top > low - 4]
        if len(segments) >= 2:
            return segments if all(s.sure >= SURE for s in segments) else None
    return None


def _plot(scene: Scene) -> tuple[Axis, float, NDArray[np.int16], NDArray[np.bool_]] | None:
    """Axis, baseline (y), pixels, and where the plot's pixels differ from its ground."""
    axis = value_axis(scene)
    if axis is None or scene.flat < 0.4:
        return None
    pixels = scene.rgb.astype(np.int16)
    left, top = int(axis.right) + 12, max(0, int(axis.ticks[-1][2]))
    inside = pixels[top : int(axis.ticks[0][2]) - 2, left:]
    if inside.size == 0:
        return None
    ground = _commonest(inside)
    return axis, axis.ticks[0][2], pixels, np.abs(pixels - ground).max(axis=2) > _APART


def _commonest(pixels: NDArray[np.int16]) -> NDArray[np.float64]:
    flat = pixels.reshape(-1, 3)
    keys = (flat >> 3) @ np.array([1, 32, 1024])
    codes, counts = np.unique(keys, return_counts=True)
    result: NDArray[np.float64] = np.median(flat[keys == codes[counts.argmax()]], axis=0)
    return result


def bars(scene: Scene) -> Bars | None:
    """The upright bars on a labelled value axis; None where they are stacked, or not surely bars."""
    found: Bars | None = _once(scene, "bars", _bars)
    return found


def _bars(scene: Scene) -> Bars | None:
    plot = _plot(scene)
    if plot is None:
        return None
    axis, base, pixels, ink = plot
    probe = int(base) - 5
    runs = [run for run in _runs(pixels[probe], ink[probe], int(axis.right) + 4) if run[1] - run[0] >= 8]
    widths = [right - left for left, right in runs]
    if len(runs) < 2 or max(widths) > 1.25 * min(widths) + 3 or max(widths) > 0.35 * scene.width:
        return None
    found = []
    for left, right in runs:
        tops = [_top(pixels[:, x], probe) for x in np.linspace(left + 2, right - 3, 5).astype(int)]
        if max(tops) - min(tops) > 3:
            return None
        middle = (left + right) // 2
        above = ink[max(0, tops[2] - 8) : max(1, tops[2] - 4), left + 2 : right - 2]
        if above.size and above.mean() > 0.85:
            return None  # another part lies on top: stacked
        patch = pixels[tops[2] + 3 : probe, middle - 2 : middle + 3]
        colour = colour_name(np.median(patch.reshape(-1, 3), axis=0)) if patch.size else None
        found.append((left, right, float(min(tops)), colour))
    gaps = [b[0] - a[1] for a, b in pairwise(found)]
    labels = labels_below(scene) or []
    touching = min(gaps) < 4
    named = [_label(labels, left, right, touching) for left, right, _, _ in found]
    return Bars(
        [
            Bar(left=le, right=ri, top=to, height=base - to, colour=co, label=na)
            for (le, ri, to, co), na in zip(found, named, strict=True)
        ],
        axis,
        touching or len(labels) != len(found),
    )


def _runs(row: NDArray[np.int16], ink: NDArray[np.bool_], start: int) -> list[tuple[int, int]]:
    """Stretches of ink of one colour along a row of pixels."""
    runs: list[tuple[int, int]] = []
    begin: int | None = None
    for x in range(start, len(row) + 1):
        same = x < len(row) and bool(ink[x]) and (begin is None or np.abs(row[x] - row[x - 1]).max() <= _APART)
        if begin is not None and not same:
            runs.append((begin, x))
            begin = None
        if x < len(row) and ink[x] and begin is None:
            begin = x
    return runs


def _top(column: NDArray[np.int16], start: int) -> int:
    """Up to which y a column of pixels keeps the colour that it has at the start."""
    differs = np.flatnonzero(np.abs(column[:start] - column[start]).max(axis=1) > _APART)
    return int(differs[-1]) + 1 if len(differs) else 0


def _label(labels: list[Segment], left: float, right: float, touching: bool) -> str:
    near = [s for s in labels if left - 4 < s.middle[0] < right + 4]
    clear = len(near) == 1 and abs(near[0].middle[0] - (left + right) / 2) < 0.25 * (right - left) + 3
    return near[0].text if clear and not touching else ""


def line(scene: Scene) -> Line | None:
    """The one coloured line of a chart, with its height at each label; None for several lines or filled areas."""
    found: Line | None = _once(scene, "line", _line)
    return found


def _line(scene: Scene) -> Line | None:
    plot = _plot(scene)
    labels = labels_below(scene)
    if plot is None or not labels or len(labels) < 3 or bars(scene) is not None:
        return None
    axis, base, pixels, ink = plot
    top = max(0, int(axis.ticks[-1][2]) - 12)
    left, right = int(labels[0].middle[0]), int(labels[-1].middle[0])
    area = pixels[top : int(base) + 3, left : right + 1]
    vivid = (area.max(axis=2) - area.min(axis=2) > 50) & ink[top : int(base) + 3, left : right + 1]
    if vivid.mean() > 0.12 or (vivid.any(axis=0)).mean() < 0.98:
        return None
    hues = hsv(area[vivid])[:, 0]
    turned = np.abs(hues - np.median(hues)) % 360
    if (np.minimum(turned, 360 - turned) > 25).mean() > 0.03:
        return None  # more than one colour
    counts = [_pieces(vivid[:, x]) for x in range(2, vivid.shape[1] - 2, 3)]
    if np.mean([c == 1 for c in counts]) < 0.97:
        return None  # more than one line
    rows = np.arange(vivid.shape[0])[:, None]
    heights = (vivid * rows).sum(axis=0) / np.maximum(1, vivid.sum(axis=0)) + top
    points = []
    for label in labels:
        x = min(heights.size - 1, max(0, int(label.middle[0]) - left))
        points.append((label.text, float(np.median(heights[max(0, x - 1) : x + 2]))))
    if len({text for text, _ in points}) < len(points):
        return None
    return Line(points, float(heights.min()))


def _pieces(column: NDArray[np.bool_]) -> int:
    return int((np.diff(np.concatenate([[0], column.astype(np.int8), [0]])) == 1).sum())


def pie(scene: Scene) -> Pie | None:
    """The slices of the only pie or ring on the page; None if there is no clear one."""
    found: Pie | None = _once(scene, "pie", _pie)
    return found


def _pie(scene: Scene) -> Pie | None:
    from scipy import ndimage

    if scene.flat < 0.4 or value_axis(scene) is not None or len(scene.segments) < 3:
        return None
    pixels = scene.rgb.astype(np.int16)
    ground = _commonest(pixels)
    ink = ndimage.binary_closing(np.abs(pixels - ground).max(axis=2) > _APART, iterations=3)
    labels, count = ndimage.label(ink)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    part = ndimage.find_objects(labels)[int(sizes.argmax())]
    height, width = part[0].stop - part[0].start, part[1].stop - part[1].start
    disc = ndimage.binary_fill_holes(labels[part] == sizes.argmax() + 1)
    if (
        not 0.93 < width / height < 1.07
        or not 0.74 < disc.mean() < 0.83
        or width < 0.25 * min(scene.width, scene.height)
    ):
        return None
    centre = part[1].start + width / 2, part[0].start + height / 2
    angles = np.arange(0, 2 * np.pi, 2 * np.pi / 1440)
    radius = 0.46 * (width + height) / 2
    xs = (centre[0] + radius * np.cos(angles)).astype(int)
    ys = (centre[1] + radius * np.sin(angles)).astype(int)
    slices = _arcs(pixels[ys, xs], ground)
    return Pie(slices) if slices is not None and 2 <= len(slices) <= 12 else None


def _arcs(ring: NDArray[np.int16], ground: NDArray[np.float64]) -> list[tuple[str | None, float]] | None:
    """Stretches of one colour around a ring of pixels; the lines between slices are not counted."""
    starts = np.flatnonzero(np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1) > _APART)
    if not len(starts):
        return None
    found: list[tuple[NDArray[np.float64], int]] = []
    for begin, end in zip(starts, [*starts[1:], starts[0] + len(ring)], strict=True):
        if end - begin < 9:
            continue  # a border between two slices
        colour = np.median(ring.take(range(begin, end), axis=0, mode="wrap"), axis=0)
        if np.abs(colour - ground).max() < _APART:
            return None  # a gap: no whole circle
        if found and np.abs(found[-1][0] - colour).max() < _APART / 2:
            found[-1] = colour, found[-1][1] + int(end - begin)
        else:
            found.append((colour, int(end - begin)))
    if len(found) > 1 and np.abs(found[0][0] - found[-1][0]).max() < _APART / 2:
        colour, length = found.pop()
        found[0] = colour, found[0][1] + length
    total = sum(length for _, length in found)
    return [(colour_name(colour), length / total) for colour, length in found] if total > 0.9 * len(ring) else None
