"""Naming colours: ``a`` by bins of hue, saturation and value, ``b`` by the nearest of CIELAB prototypes, ``c`` by
grouping the pixels (k-means) and naming each group's middle by its CIELAB lightness, chroma and hue angle.

Names: black, white, grey, red, orange, yellow, green, teal, blue, purple, pink, brown.
"""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SAMPLE = 128  # side of the thumbnail whose pixels are counted
_PROTOTYPES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((10, 10, 10), (32, 32, 32), (25, 18, 14), (16, 18, 30)),
    "white": ((255, 255, 255), (238, 238, 236), (245, 240, 230), (235, 240, 248)),
    "grey": ((128, 128, 128), (80, 80, 80), (170, 170, 170), (200, 200, 200), (110, 105, 100), (120, 128, 138)),
    "red": ((220, 20, 30), (160, 20, 25), (214, 39, 40), (230, 60, 60)),
    "orange": ((255, 140, 0), (255, 127, 14), (235, 120, 40), (225, 130, 60)),
    "yellow": ((255, 255, 0), (240, 210, 40), (250, 235, 120), (200, 180, 40)),
    "green": ((0, 160, 0), (0, 255, 0), (44, 160, 44), (30, 90, 40), (140, 190, 90), (90, 110, 40)),
    "teal": ((0, 128, 128), (23, 190, 207), (0, 200, 200), (70, 150, 150), (120, 215, 215)),
    "blue": ((0, 0, 255), (31, 119, 180), (30, 60, 130), (100, 150, 220), (170, 200, 240), (70, 130, 180)),
    "purple": ((128, 0, 128), (148, 103, 189), (90, 50, 130), (180, 140, 210)),
    "pink": ((255, 150, 190), (227, 119, 194), (240, 90, 150), (250, 190, 205)),
    "brown": ((140, 70, 20), (140, 86, 75), (100, 60, 30), (165, 42, 42), (150, 110, 70), (70, 45, 30)),
}
NAMES = tuple(_PROTOTYPES)
WARM = frozenset({"red", "orange", "yellow", "brown", "pink"})
COOL = frozenset({"green", "teal", "blue", "purple"})
_SAME = {
    "gray": "grey",
    "cyan": "teal",
    "turquoise": "teal",
    "violet": "purple",
    "magenta": "pink",
    "beige": "brown",
    "tan": "brown",
    "silver": "grey",
    "navy": "blue",
    "gold": "yellow",
}
# Names that people give one and the same colour: what lies on such a border is not called wrong.
_NEIGHBOURS = {
    frozenset(pair)
    for pair in (
        ("black", "grey"), ("grey", "white"), ("red", "brown"), ("red", "pink"), ("red", "orange"),
        ("orange", "brown"), ("orange", "yellow"), ("yellow", "green"), ("yellow", "brown"), ("green", "teal"),
        ("teal", "blue"), ("blue", "purple"), ("purple", "pink"), ("brown", "grey"), ("brown", "black"),
        ("blue", "grey"), ("green", "grey"), ("purple", "red"), ("brown", "pink"), ("teal", "grey"),
        ("purple", "grey"), ("pink", "white"), ("yellow", "white"), ("blue", "black"), ("green", "brown"),
    )
}  # fmt: skip
_Rgb = NDArray[np.uint8]


def canonical(name: str) -> str | None:
    """The colour that an answer names, in this module's words ("light gray" gives "grey"); None if it names none."""
    found = named(name)
    return found[0] if found else None


def named(text: str) -> list[str]:
    """The colours that a text names, in order, each once."""
    found: list[str] = []
    for word in "".join(c if c.isalpha() else " " for c in text.lower()).split():
        colour = _SAME.get(word, word)
        if colour in NAMES and colour not in found:
            found.append(colour)
    return found


def neighbours(one: str, other: str) -> bool:
    """Whether two names border on one another."""
    return one == other or frozenset((one, other)) in _NEIGHBOURS


def shares(judge: str, image: Image.Image) -> dict[str, float]:
    """Share of the image that each colour covers by this judge's naming, greatest first; they add up to 1."""
    small = image if max(image.size) <= _SAMPLE else image.resize(_fit(image.size), Image.Resampling.BOX)
    return shares_of(judge, np.asarray(small.convert("RGB")).reshape(-1, 3))


def shares_of(judge: str, pixels: _Rgb) -> dict[str, float]:
    """As ``shares``, of (n, 3) uint8 RGB pixels; {} of none."""
    if not len(pixels):
        return {}
    counted = Counter(dict(_COUNT[judge](pixels)))
    total = sum(counted.values())
    return {name: count / total for name, count in counted.most_common()}


def name_of(judge: str, rgb: tuple[float, float, float]) -> str:
    """What this judge calls one colour (0 to 255 each)."""
    pixel = np.asarray([rgb]).round().clip(0, 255).astype(np.uint8)
    return next(iter(shares_of(judge, pixel)))


def nearly(judge: str, rgb: tuple[float, float, float]) -> set[str]:
    """The names that a colour can go by: this judge's own, and those whose prototypes lie about as near."""
    gaps = distances(np.asarray([rgb], float))[0]
    near = {NAMES[i] for i in np.flatnonzero(gaps <= max(1.35 * gaps.min(), gaps.min() + 4))}
    return near | {name_of(judge, rgb)}


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = _SAMPLE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def lab(pixels: NDArray[np.floating] | _Rgb) -> NDArray[np.float64]:
    """(n, 3) CIELAB (D65) of (n, 3) sRGB values 0 to 255."""
    unit = np.asarray(pixels, float) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


_PROTOTYPE_LAB = {name: lab(np.asarray(values, float)) for name, values in _PROTOTYPES.items()}


def distances(pixels: NDArray[np.floating] | _Rgb) -> NDArray[np.float64]:
    """(n, 12): distance in CIELAB of each pixel from the nearest prototype of each name; lightness counts less."""
    mine = lab(pixels) * (0.7, 1, 1)
    columns = []
    for prototypes in _PROTOTYPE_LAB.values():
        offsets = mine[:, None, :] - prototypes[None] * (0.7, 1, 1)
        columns.append(np.sqrt((offsets**2).sum(axis=2)).min(axis=1))
    return np.stack(columns, axis=1)


def _count_by_hsv(pixels: _Rgb) -> Counter[str]:
    counted: Counter[str] = Counter()
    # like pixels are named once: a thumbnail holds a few hundred different ones
    quantised, counts = np.unique((pixels / 255 * 31).round().astype(int), axis=0, return_counts=True)
    for (red, green, blue), count in zip(quantised.tolist(), counts.tolist(), strict=True):
        counted[hsv_name(red / 31, green / 31, blue / 31)] += int(count)
    return counted


def hsv_name(red: float, green: float, blue: float) -> str:
    """The name of a colour (0 to 1 each) by bins of hue, saturation and value."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    degrees = hue * 360
    if value < 0.16 or (value < 0.24 and saturation < 0.4):
        return "black"
    if saturation * value < 0.08 or saturation < 0.12:
        return "white" if value > 0.86 else "grey"
    if degrees < 16 or degrees >= 340:
        if saturation < 0.45 and value > 0.75:
            return "pink"
        return "brown" if value < 0.72 and saturation < 0.8 else "red"
    if degrees < 44:
        if value < 0.72 or saturation < 0.42:
            return "brown"
        return "orange"
    if degrees < 68:
        return "yellow" if value > 0.5 else "green" if degrees > 56 else "brown"
    for limit, name in ((160, "green"), (196, "teal"), (256, "blue"), (292, "purple")):
        if degrees < limit:
            return name
    return "pink" if value > 0.6 else "purple"


def _count_by_prototype(pixels: _Rgb) -> Counter[str]:
    nearest = distances(pixels).argmin(axis=1)
    return Counter({NAMES[i]: int(n) for i, n in enumerate(np.bincount(nearest, minlength=len(NAMES))) if n})


def groups(pixels: _Rgb, count: int = 12) -> list[tuple[tuple[float, float, float], int]]:
    """(mean RGB, pixels) of up to ``count`` groups of like colours (k-means in CIELAB), greatest first."""
    points = lab(pixels)
    distinct, first = np.unique(points.round(1), axis=0, return_index=True)
    count = min(count, len(distinct))
    centres = [points[first[0]]]  # spread out: each next centre lies farthest from those before
    gaps = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < count and gaps.max() > 9:
        centres.append(points[gaps.argmax()])
        gaps = np.minimum(gaps, ((points - centres[-1]) ** 2).sum(axis=1))
    middle = np.stack(centres)
    for _ in range(8):
        owner = ((points[:, None, :] - middle[None]) ** 2).sum(axis=2).argmin(axis=1)
        middle = np.stack([points[owner == k].mean(axis=0) if (owner == k).any() else m for k, m in enumerate(middle)])
    sizes = np.bincount(owner, minlength=len(middle))
    means = [tuple(float(v) for v in pixels[owner == k].mean(axis=0)) for k in range(len(middle)) if sizes[k]]
    kept = [int(n) for n in sizes if n]
    return sorted(((m, n) for m, n in zip(means, kept, strict=True) if len(m) == 3), key=lambda g: -g[1])


def _count_by_groups(pixels: _Rgb) -> Counter[str]:
    counted: Counter[str] = Counter()
    for mean, size in groups(pixels):
        counted[lch_name(mean)] += size
    return counted


def lch_name(rgb: tuple[float, float, float]) -> str:
    """The name of a colour (0 to 255 each) by lightness, chroma and hue angle in CIELAB."""
    lightness, a, b = lab(np.asarray([rgb]))[0].tolist()
    chroma, angle = math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360
    if lightness < 14 or (lightness < 20 and chroma < 12):
        return "black"
    if chroma < 9 or (chroma < 17 and lightness > 90):
        return "white" if lightness > 89 else "grey"
    if angle < 12 or angle >= 345:
        return "pink" if lightness > 50 else "purple" if angle >= 345 else "red"
    if angle < 48:
        if chroma < 36 or (lightness < 42 and chroma < 58):
            return "pink" if lightness > 75 else "brown"
        return "pink" if lightness > 68 else "red"
    if angle < 76:
        return "orange" if chroma > 52 and lightness > 52 else "brown"
    if angle < 108:
        return "yellow" if lightness > 68 and chroma > 28 else "brown" if angle < 98 else "green"
    for limit, name in ((170, "green"), (228, "teal"), (308, "blue"), (328, "purple")):
        if angle < limit:
            return name
    return "pink" if lightness > 55 else "purple"


_COUNT: dict[str, Callable[[_Rgb], Counter[str]]] = {
    "a": _count_by_hsv,
    "b": _count_by_prototype,
    "c": _count_by_groups,
}
