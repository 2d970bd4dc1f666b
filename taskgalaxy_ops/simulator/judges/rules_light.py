"""Rules on light, sharpness and format: pixels alone decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from taskgalaxy_ops.simulator.judges import finding, tones, words
from taskgalaxy_ops.simulator.judges.finding import REGIONS, Found, SenselessError
from taskgalaxy_ops.simulator.judges.tones import Plane
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]


def _brightness(view: View, _: Params) -> Found:
    mean = float(tones.light(view).mean())
    fits = [("dark", mean < 98), ("medium", 86 < mean < 178), ("bright", mean > 160)]
    ordered = sorted(
        (name for name, ok in fits if ok), key=lambda n: abs(mean - {"dark": 50, "medium": 130}.get(n, 215))
    )
    return finding.choice(f"mean brightness is {mean:.0f} of 255", *ordered)


def _contrast(view: View, _: Params) -> Found:
    spread = tones.spread(view)
    return finding.choice(f"brightness spreads by {spread:.0f}", "low" if spread < 44 else "high")


def _overexposed(view: View, _: Params) -> Found:
    share = tones.blown(view)
    return finding.yes_no(f"{share:.1%} of the pixels are white", share > 0.03)


def _underexposed(view: View, _: Params) -> Found:
    share = tones.sunk(view)
    return finding.yes_no(f"{share:.1%} of the pixels are black", share > 0.04)


def _cells(plane: Plane) -> dict[str, float]:
    """Mean of each cell of the three by three grid."""
    rows = np.array_split(plane, 3, axis=0)
    return {
        name: float(cell.mean())
        for row, names in zip(rows, REGIONS, strict=True)
        for cell, name in zip(np.array_split(row, 3, axis=1), names, strict=True)
    }


def _extreme(view: View, sign: int, what: str) -> Found:
    cells = _cells(tones.light(view) * sign)
    top = max(cells.values())
    slack = max(2.0, 0.06 * (top - min(cells.values())))
    right = sorted((name for name in cells if cells[name] >= top - slack), key=lambda n: -cells[n])
    return finding.choice(f"{what} part", *right)


def _sharp(view: View, _: Params) -> Found:
    value = tones.sharpness(view)
    low, high = {"a": (0.12, 0.20), "b": (0.17, 0.20), "c": (0.09, 0.14)}[view.judge]
    if low <= value <= high:
        return finding.choice(f"edges are middling ({value:.2f})", "sharp", "blurred")
    return finding.choice(f"edge strength is {value:.2f}", "sharp" if value > high else "blurred")


def _resolution(view: View, _: Params) -> Found:
    said = f"it is {view.width} × {view.height} pixels"
    return Found(said, lambda answer: words.numbers(answer)[:2] == [view.width, view.height])


def _orientation(view: View, _: Params) -> Found:
    ratio = view.width / view.height
    right = "square" if abs(ratio - 1) < 0.03 else "landscape" if ratio > 1 else "portrait"
    return finding.choice(f"{view.width} by {view.height} pixels", right)


def _ratio(view: View, _: Params) -> Found:
    ratio = view.width / view.height

    def agrees(said: str) -> bool:
        sides = words.numbers(said.replace(":", " "))
        return len(sides) == 2 and sides[1] > 0 and abs(sides[0] / sides[1] / ratio - 1) < 0.015

    return Found(f"width to height is {ratio:.3f}", agrees)


def _mirror(view: View, _: Params) -> Found:
    value = tones.mirrored(view)
    return finding.yes_no(
        f"the halves mirror each other to {value:.0%}", value > {"a": 0.8, "b": 0.86, "c": 0.82}[view.judge]
    )


def _detail(view: View, _: Params) -> Found:
    share = float(tones.edges(view).mean())
    low, high = {"a": (0.06, 0.13), "b": (0.06, 0.13), "c": (0.06, 0.14)}[view.judge]
    right = ["plain"] * (share < high) + ["full of detail"] * (share > low)
    return finding.choice(f"{share:.0%} of the pixels lie on edges", *right)


def _frame(view: View, _: Params) -> Found:
    there = tones.frame(view)
    return finding.yes_no("a plain frame runs around" if there else "I see no plain frame all around", there)


def _photo(view: View, _: Params) -> Found:
    graphic, even = tones.drawn(view)
    return finding.choice(f"{even:.0%} of it is even", "graphic" if graphic else "photograph")


def _halves(names: tuple[str, str], axis: int, plane: Plane, what: str, slack: float) -> Found:
    first, second = (float(half.mean()) for half in np.array_split(plane, 2, axis=axis))
    if abs(first - second) < slack:
        return Found(f"{what} hardly differ", lambda said: None)
    return finding.choice(f"{what} are {first:.3g} and {second:.3g}", names[0] if first > second else names[1])


def _page(view: View, _: Params) -> Found:
    if abs(view.width / view.height - 1) < 0.02:
        raise SenselessError("the page is square")
    return finding.choice("by its sides", "portrait" if view.height > view.width else "landscape")


def _brighter(view: View, _: Params) -> Found:
    return _halves(("left", "right"), 1, tones.light(view), "mean brightnesses", 0.5)


def _brighter_above(view: View, _: Params) -> Found:
    return _halves(("upper", "lower"), 0, tones.light(view), "mean brightnesses", 0.5)


def _detailed(view: View, _: Params) -> Found:
    return _halves(("left", "right"), 1, tones.edges(view).astype(float), "shares of edges", 0.002)


RULES: dict[str, Rule] = {
    "brightness level": _brightness,
    "contrast level": _contrast,
    "overexposure check": _overexposed,
    "underexposure check": _underexposed,
    "brightest region location": lambda view, _: _extreme(view, 1, "brightest"),
    "darkest region location": lambda view, _: _extreme(view, -1, "darkest"),
    "sharpness assessment": _sharp,
    "resolution assessment": _resolution,
    "image orientation": _orientation,
    "aspect ratio estimation": _ratio,
    "mirror symmetry check": _mirror,
    "detail density": _detail,
    "border presence": _frame,
    "photo or drawing": _photo,
    "brighter half identification": _brighter,
    "top and bottom brightness comparison": _brighter_above,
    "more detailed half identification": _detailed,
    "page orientation": _page,
}
