"""Measuring light: ``a`` by luma (Rec. 601), ``b`` by the mean of the channels, ``c`` by CIELAB lightness of linear
light. Edges: ``a`` by Sobel gradients, ``b`` by the Laplacian, ``c`` by the spread within small windows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.judges import palettes
from taskgalaxy_ops.simulator.judges.views import View

Plane = NDArray[np.float64]


def light(view: View, side: int = 256) -> Plane:
    """(h, w), 0 (black) to 255 (white): how light each pixel of the reduced image is by this judge's measure."""
    return _LIGHT[view.judge](view.pixels(side).astype(float))


def _luma(pixels: Plane) -> Plane:
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114]))


def _intensity(pixels: Plane) -> Plane:
    return np.asarray(pixels.mean(axis=2))


def _lightness(pixels: Plane) -> Plane:
    return palettes.lab(pixels.reshape(-1, 3))[:, 0].reshape(pixels.shape[:2]) * 2.55


_LIGHT: dict[str, Callable[[Plane], Plane]] = {"a": _luma, "b": _intensity, "c": _lightness}


def blown(view: View) -> float:
    """Share of pixels that are pure white or all but."""
    pixels = view.pixels(1024)
    if view.judge == "b":
        return float((pixels.min(axis=2) >= 250).mean())
    return float((light(view, 1024) >= (252 if view.judge == "a" else 251)).mean())


def sunk(view: View) -> float:
    """Share of pixels that are pure black or all but."""
    pixels = view.pixels(1024)
    if view.judge == "b":
        return float((pixels.max(axis=2) <= 9).mean())
    return float((light(view, 1024) <= (6 if view.judge == "a" else 5)).mean())


def spread(view: View) -> float:
    """How far light and dark lie apart, as a standard deviation of 0 to 255."""
    values = light(view)
    if view.judge == "b":  # from the quantiles that lie one deviation either side in a normal distribution
        low, high = np.quantile(values, [0.16, 0.84])
        return max(float(high - low) / 2, 0.8 * float(values.std()))
    return float(values.std())


def edges(view: View) -> NDArray[np.bool_]:
    """(h, w): which pixels of the reduced image lie on an edge, by this judge's measure."""

    def make() -> NDArray[np.bool_]:
        from scipy import ndimage

        grey = light(view, 384)
        if view.judge == "a":
            return np.asarray(np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)) / 4 > 14)
        if view.judge == "b":
            return np.asarray(np.abs(ndimage.gaussian_laplace(grey, 1.0)) > 6)
        mean = ndimage.uniform_filter(grey, 3)
        variance = ndimage.uniform_filter(grey**2, 3) - mean**2
        return np.asarray(variance > 8.0**2)

    return view.part("edges", make)


def sharpness(view: View) -> float:
    """How sharp the image is, 0 (blurred) to about 1: the steepness of its edges against its contrast."""

    def make() -> float:
        from scipy import ndimage

        grey = light(view, 768)
        contrast = max(8.0, float(np.quantile(grey, 0.99) - np.quantile(grey, 0.01)))
        if view.judge == "a":  # the steepest step from pixel to pixel
            steps = np.abs(np.diff(grey, axis=1))
            return float(np.quantile(steps, 0.999)) / contrast
        if view.judge == "b":  # strongest answers to the Laplacian
            answers = np.abs(ndimage.laplace(grey))
            return float(np.quantile(answers, 0.999)) / contrast / 2
        smooth = ndimage.gaussian_filter(grey, 0.6)  # in the direction in which edges are softer: motion blurs one
        return min(float(np.quantile(np.abs(np.diff(smooth, axis=axis)), 0.998)) for axis in (0, 1)) / contrast

    return view.part("sharpness", make)


def mirrored(view: View) -> float:
    """How well the right half mirrors the left, 0 (not at all) to 1 (to the pixel)."""
    grey = light(view, 128)
    if view.judge == "b":
        grey = light(view, 48)
    flipped = grey[:, ::-1]
    deviation = max(1.0, float(grey.std()))
    if view.judge == "c":
        gap = float(np.median(np.abs(grey - flipped))) * 0.5 + float(np.abs(grey - flipped).mean()) * 0.5
        return max(0.0, 1 - gap / deviation)
    if view.judge == "a":
        return max(0.0, 1 - float(np.abs(grey - flipped).mean()) / deviation)
    centred = grey - grey.mean()
    return max(0.0, float((centred * centred[:, ::-1]).mean()) / deviation**2)


def drawn(view: View) -> tuple[bool, float]:
    """Whether the image looks drawn by a computer, and the share of it that is even: high in graphics."""
    from scipy import ndimage

    pixels = view.pixels(1024).astype(float)
    if view.judge == "b":  # even neighbours, and hard steps between what is not even
        steps = np.abs(np.diff(pixels, axis=1))
        gaps = np.maximum(np.maximum(steps[..., 0], steps[..., 1]), steps[..., 2])
        even = float((gaps <= 1).mean())
        return even > 0.7 and float((gaps[gaps > 1] > 40).mean()) > 0.055, even
    grey = light(view, 1024)
    if view.judge == "a":  # blocks of eight by eight
        height, width = (n // 8 * 8 for n in grey.shape)
        blocks = grey[:height, :width].reshape(height // 8, 8, width // 8, 8)
        even = float((blocks.std(axis=(1, 3)) < 0.6).mean())
        return even > 0.47, even
    span = ndimage.maximum_filter(grey, 5) - ndimage.minimum_filter(grey, 5)
    even = float((span <= 1.6).mean())
    return even > 0.5, even


def frame(view: View) -> bool:
    """Whether a band of one colour runs along all four sides, and ends on each at a straight line."""
    pixels = view.pixels(1024).astype(float)
    ring = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    ground = np.median(ring, axis=0) if view.judge != "c" else np.median(pixels[:, :2].reshape(-1, 3), axis=0)
    other = np.abs(pixels - ground).max(axis=2) > {"a": 28, "b": 22, "c": 34}[view.judge]
    depths = [_band(side) for side in (other, other[::-1], other.T, other[:, ::-1].T)]
    return all(0 < depth < 0.15 for depth in depths) and max(depths) - min(depths) < 0.08


def _band(other: NDArray[np.bool_]) -> float:
    """How deep the plain band along the first axis is, as a share of its length; 1 if no straight line ends it."""
    shares = other.mean(axis=1)
    begins = int((shares > 0.02).argmax())
    if shares[begins] <= 0.02 or shares[begins : begins + 5].max() < 0.55:
        return 1.0
    return begins / len(shares)
