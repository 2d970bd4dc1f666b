"""Finding shapes on a plain ground: what differs from the border, named by ``a`` from the corners of its outline, by
``b`` from the share of its box that it fills, by ``c`` from how its width changes from row to row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgalaxy_ops.simulator.judges import palettes
from taskgalaxy_ops.simulator.judges.views import View

_SIDE = 320  # pixels to which images are scaled, so that outlines of small shapes are smooth
_LEAST = 0.0015  # share of the image under which a patch is dirt

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A patch that differs from the ground; places and sizes are shares of the image's width and height."""

    shape: str  # circle, rectangle or triangle
    rgb: tuple[float, float, float]  # 0 to 255
    x: float  # middle of its box
    y: float
    box: tuple[float, float, float, float]  # left, top, right, bottom
    area: float
    centre: tuple[float, float]  # middle of its pixels


def plain(view: View) -> bool:
    """Whether the border has one colour, so that things on it can be told apart."""
    pixels = view.pixels()
    ring = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(float)
    return float((np.abs(ring - np.median(ring, axis=0)).max(axis=1) < 28).mean()) > 0.75


def figures(view: View) -> list[Figure]:
    """All figures, greatest first."""

    def make() -> list[Figure]:
        from scipy import ndimage

        scale = _SIDE / max(view.image.size)
        size = (max(8, round(view.width * scale)), max(8, round(view.height * scale)))
        kind = Image.Resampling.BICUBIC if view.judge != "b" else Image.Resampling.BILINEAR
        pixels = np.asarray(view.image.resize(size, kind)).astype(float)
        labels, count = ndimage.label(ndimage.binary_opening(_differs(view, pixels), iterations=1))
        found = []
        for number in range(1, count + 1):
            mask = ndimage.binary_fill_holes(labels == number)
            if mask.mean() >= _LEAST:
                found.append(_figure(view.judge, mask, pixels))
        return sorted(found, key=lambda f: -f.area)

    return view.part("figures", make)


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom), 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    both = sum(max(0.0, b[2] - b[0]) * max(0.0, b[3] - b[1]) for b in (one, other)) - shared
    return shared / both if both > 0 else 0.0


def _differs(view: View, pixels: NDArray[np.float64]) -> Mask:
    ring = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(ring, axis=0)
    if view.judge == "a":
        return np.asarray(np.sqrt(((pixels - ground) ** 2).sum(axis=2)) > 48)
    if view.judge == "b":
        offset = palettes.lab(pixels.reshape(-1, 3)) - palettes.lab(ground[None])
        return np.asarray(np.sqrt((offset**2).sum(axis=1)).reshape(pixels.shape[:2]) > 18)
    return np.asarray(np.abs(pixels - ground).max(axis=2) > 40)


def _figure(judge: str, mask: Mask, pixels: NDArray[np.float64]) -> Figure:
    from scipy import ndimage

    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    top, bottom, left, right = int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1
    core = ndimage.binary_erosion(mask, iterations=3)
    inside = pixels[core if core.sum() > 8 else mask]
    rgb = np.median(inside, axis=0) if judge != "c" else inside.mean(axis=0)
    patch = mask[top:bottom, left:right]
    return Figure(
        shape={"a": _by_corners, "b": _by_extent, "c": _by_widths}[judge](patch),
        rgb=(float(rgb[0]), float(rgb[1]), float(rgb[2])),
        x=(left + right) / 2 / width,
        y=(top + bottom) / 2 / height,
        box=(left / width, top / height, right / width, bottom / height),
        area=float(mask.mean()),
        centre=(float(xs.mean()) / width, float(ys.mean()) / height),
    )


def _by_corners(patch: Mask) -> str:
    from skimage import measure  # its functions carry no types

    tools: Any = measure
    outline = max(tools.find_contours(np.pad(patch.astype(float), 3), 0.5), key=len)
    farthest = int(((outline - outline.mean(axis=0)) ** 2).sum(axis=1).argmax())  # surely a corner, if there are any
    outline = np.concatenate([outline[farthest:-1], outline[: farthest + 1]])
    corners = len(tools.approximate_polygon(outline, 0.065 * float(np.hypot(*patch.shape)))) - 1
    if corners in {4, 5} and patch.mean() < 0.86:  # a small triangle's corners are blunt
        return "circle" if patch.mean() > 0.68 else "triangle"
    return {3: "triangle", 4: "rectangle", 5: "rectangle"}.get(corners, "circle")


def _by_extent(patch: Mask) -> str:
    filled = float(patch.mean())
    return "triangle" if filled < 0.64 else "circle" if filled < 0.88 else "rectangle"


def _by_widths(patch: Mask) -> str:
    widths = patch.sum(axis=1)
    full = float((widths >= 0.9 * widths.max()).mean())
    return "rectangle" if full > 0.8 else "triangle" if full < 0.27 else "circle"
