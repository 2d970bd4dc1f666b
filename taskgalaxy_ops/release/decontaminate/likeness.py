"""Whether two pictures are one, by the edges in their thumbnails: where brightness changes, and by how much.

Pages of one layout have near hashes and near embeddings, and so have simple figures; the edges in 32 by 32 pixels part
them, since every line of text is one. They do not change with brightness, contrast or colour. Of two copies they
correlate by 0.98 and more, of recoloured ones by 0.95, of two pages of one layout mostly by less than 0.9.
All sums are of whole numbers, so that no machine decides otherwise than another.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture
from taskgalaxy_ops.sources.thumbnail import BRIGHTNESS_SIDE, SIDE, pixels_of

CROP_STEPS = 120  # crops begin at whole 120ths of a side
CROP_LAST = 12  # that many of them at most, since nine tenths are left
FINE, FINE_COLOURS = 2 * BRIGHTNESS_SIDE, 2 * SIDE  # pixels, of an item's thumbnails, of which its crops are taken

_PATCH = 4  # pixels a side
_PATCHES = (BRIGHTNESS_SIDE // _PATCH) ** 2
_COVERED = 8  # patches of 64 that may differ: a line of text across a picture covers as many
_REMAINING = 0.3  # of the edges at least, in either picture; what lies in a few patches alone says nothing without them
_STRONG = 40  # steps of 256 between the channels of a pixel that has a hue
_SAME_HUE = 0.5  # cosine of two hues
_OTHER_HUES = 0.12  # of the pixels that have a hue in both pictures, the part that may be of another one
_FAINT = 12  # steps of 256 between the darkest and the brightest pixel; below, edges are noise
_AT_ONCE = 1 << 12  # pairs whose edges are in memory, 24 KB each
# Steps beside a crop at which its edges are looked for: lines of text that lie half a step off have other edges.
_BESIDE = (-1.0, -0.5, 0.0, 0.5, 1.0)
_DECIMALS = 6

Bytes = NDArray[np.uint8]
_Numbers = NDArray[np.int64]
Scores = NDArray[np.float64]


class Likeness(NamedTuple):
    """How far the edges of pairs of pictures correlate, each ``(n,)``, -1..1, whichever of the two is mirrored."""

    whole: Scores
    patched: Scores  # without the few patches in which they differ most


def concentration(brightness: Bytes) -> Scores:
    """Which part of the edges of pictures ``(n, 32, 32)`` lies in an eighth of their area: ``(n,)``, 0..1.

    Of a figure on an empty ground it is nearly 1, and many of these have nearly the same crops.
    """
    energy = np.square(_edges(brightness)).sum(axis=2, dtype=np.int64)
    found: Scores = np.sort(energy, axis=1)[:, -_COVERED:].sum(axis=1) / np.maximum(1, energy.sum(axis=1))
    return found


class ItemThumbnails:
    """The thumbnails of a benchmark's pictures."""

    def __init__(self, rows: Sequence[BenchmarkPicture]) -> None:
        self._rows = rows
        self.known = np.array([bool(row.brightness) for row in rows], bool)
        self._small = np.zeros((len(rows), BRIGHTNESS_SIDE, BRIGHTNESS_SIDE), np.uint8)
        self._colours = np.zeros((len(rows), SIDE, SIDE, 3), np.uint8)
        for number, row in enumerate(rows):  # one at a time: the fine ones are four times as large
            if row.brightness:
                fine = pixels_of([row.brightness], (BRIGHTNESS_SIDE, 2, BRIGHTNESS_SIDE, 2))[0]
                self._small[number] = (fine.sum(axis=(1, 3), dtype=np.uint16) + 2) // 4
                self._colours[number] = _view(_fine_colours(row), (0, 0, 1, 1), SIDE, Pillow.Resampling.BILINEAR)

        self._coarse = _coarse(self._small)

    def compared(self, places: NDArray[np.int64], at: NDArray[np.int64], brightness: Bytes) -> Likeness:
        """Pairs of an item, by its place, and a picture, by its place among the thumbnails ``(n, 32, 32)``."""
        parts = [
            self._compared(places[start : start + _AT_ONCE], brightness[at[start : start + _AT_ONCE]])
            for start in range(0, len(places), _AT_ONCE)
        ]
        if not parts:
            return Likeness(np.empty(0), np.empty(0))
        return Likeness(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _compared(self, places: NDArray[np.int64], brightness: Bytes) -> Likeness:
        items = _edges(self._small[places])
        upright = _likeness(items, _edges(brightness))
        mirrored = _likeness(items, _edges(brightness[:, :, ::-1]))
        faint = np.ptp(brightness.reshape(len(places), -1), axis=1) < _FAINT
        faint |= np.ptp(self._small[places].reshape(len(places), -1), axis=1) < _FAINT
        whole, patched = (np.where(faint, 0, np.maximum(a, b)) for a, b in zip(upright, mirrored, strict=True))
        return Likeness(whole, patched)

    def roughly(self, places: NDArray[np.int64], at: NDArray[np.int64], brightness: Bytes) -> Scores:
        """How far pairs as in ``compared`` correlate in 8 by 8 pixels, by brightness: many at once."""
        views = [_coarse(brightness), _coarse(brightness[:, :, ::-1])]
        own = self._coarse[places]
        found: Scores = np.maximum(*(np.einsum("ij,ij->i", own, view[at], dtype=np.float64) for view in views))
        return found

    def coloured(self, places: NDArray[np.int64], colours: Bytes) -> Scores:
        """How far the colours of each item and of a picture ``(n, 16, 16, 3)`` correlate, whichever is mirrored."""
        own = self._colours[places]
        return np.maximum(_alike(own, colours), _alike(own, colours[:, :, ::-1]))

    def other_hues(self, place: int, brightness: Bytes, colours: Bytes) -> bool:
        """Whether a picture that has an item's edges has other colours in their place: a red arrow, and a green one.

        Grey, faint and richer colours are none other. brightness: ``(32, 32)``. colours: ``(16, 16, 3)``.
        """
        item = _edges(self._small[place][None])
        upright, mirrored = (_likeness(item, _edges(each[None])).whole[0] for each in (brightness, brightness[:, ::-1]))
        own, other = _hues(self._colours[place]), _hues(colours if upright >= mirrored else colours[:, ::-1])
        strong = (np.hypot(*own) >= _STRONG) & (np.hypot(*other) >= _STRONG)
        apart = (own * other).sum(axis=0) < _SAME_HUE * np.hypot(*own) * np.hypot(*other)
        return bool((strong & apart).sum() > _OTHER_HUES * strong.sum())

    def cropped(
        self, place: int, crop: tuple[float, float, float], brightness: Bytes, colours: Bytes
    ) -> tuple[float, float]:
        """How far the edges and the colours of a picture correlate with those of an item's crop, or of one beside it.

        brightness: ``(32, 32)``. colours: ``(16, 16, 3)``.
        """
        row = self._rows[place]
        if np.ptp(brightness) < _FAINT:
            return 0.0, 0.0
        boxes = _boxes(crop)
        fine = Pillow.frombytes("L", (FINE, FINE), base64.b64decode(row.brightness))
        views = np.stack([_view(fine, box, BRIGHTNESS_SIDE, Pillow.Resampling.HAMMING) for box in boxes])
        edges = _likeness(_edges(views), np.repeat(_edges(brightness[None]), len(views), axis=0)).whole
        best = int(edges.argmax())
        own = _view(_fine_colours(row), boxes[best], SIDE, Pillow.Resampling.BILINEAR)
        return float(edges[best]), float(_alike(own[None], colours[None])[0])


def _fine_colours(row: BenchmarkPicture) -> Pillow.Image:
    return Pillow.frombytes("RGB", (FINE_COLOURS, FINE_COLOURS), base64.b64decode(row.colours))


def _boxes(crop: tuple[float, float, float]) -> list[tuple[float, float, float, float]]:
    """The crop and those that begin up to a step beside it, in parts of the sides; each once, also at a border."""
    part, *begin = crop
    lefts, tops = (
        sorted({min(CROP_LAST, max(0, round(each * CROP_STEPS) + by)) / CROP_STEPS for by in _BESIDE}) for each in begin
    )
    return [(left, top, left + part, top + part) for left in lefts for top in tops]


def _view(image: Pillow.Image, box: tuple[float, float, float, float], side: int, how: Pillow.Resampling) -> Bytes:
    scaled = tuple(each * image.width for each in box)
    return np.asarray(image.resize((side, side), how, box=scaled))  # type: ignore[arg-type]


def _coarse(brightness: Bytes) -> NDArray[np.float32]:
    """Means of blocks, less their mean, ``(n, 64)`` of length 1; 0 of a picture of one colour."""
    side = BRIGHTNESS_SIDE // _PATCH
    blocks = brightness.reshape(-1, side, _PATCH, side, _PATCH).mean(axis=(2, 4), dtype=np.float32)
    blocks = blocks.reshape(len(brightness), side * side)
    blocks -= blocks.mean(axis=1, keepdims=True)
    found: NDArray[np.float32] = blocks / np.maximum(1, np.linalg.norm(blocks, axis=1, keepdims=True))
    return found


def _edges(brightness: Bytes) -> NDArray[np.int32]:
    """The steps between neighbouring pixels along both axes, ``(n, patches, values)``."""
    number, side = len(brightness), BRIGHTNESS_SIDE // _PATCH
    pixels = brightness.astype(np.int32)
    steps = np.zeros((number, 2, BRIGHTNESS_SIDE, BRIGHTNESS_SIDE), np.int32)
    steps[:, 0, :-1] = np.diff(pixels, axis=1)
    steps[:, 1, :, :-1] = np.diff(pixels, axis=2)
    patches = steps.reshape(number, 2, side, _PATCH, side, _PATCH).transpose(0, 2, 4, 1, 3, 5)
    return patches.reshape(number, _PATCHES, 2 * _PATCH * _PATCH)


def _likeness(a: NDArray[np.int32], b: NDArray[np.int32]) -> Likeness:
    """Of edges ``(n, patches, values)``."""
    both, own, other = (np.einsum("ijk,ijk->ij", x, y).astype(np.int64) for x, y in ((a, b), (a, a), (b, b)))
    whole = _correlation(both.sum(axis=1), own.sum(axis=1), other.sum(axis=1))
    # How far each patch differs once the other picture has the same contrast.
    scale = both.sum(axis=1, keepdims=True) / np.maximum(1, other.sum(axis=1, keepdims=True))
    differing = np.round(own - 2 * scale * both + scale**2 * other, _DECIMALS)
    kept = np.argsort(differing, axis=1, kind="stable")[:, : _PATCHES - _COVERED]
    rest = [np.take_along_axis(each, kept, axis=1).sum(axis=1) for each in (both, own, other)]
    enough = (rest[1] >= _REMAINING * own.sum(axis=1)) & (rest[2] >= _REMAINING * other.sum(axis=1))
    return Likeness(whole, np.where(enough, _correlation(*rest), 0))


def _correlation(both: _Numbers, own: _Numbers, other: _Numbers) -> Scores:
    """0 where either has no edges."""
    size = np.sqrt(own.astype(np.float64) * other)
    found: Scores = np.round(both / np.maximum(size, 1), _DECIMALS)
    return found


def _hues(colours: Bytes) -> NDArray[np.float64]:
    """Of each pixel, how much more red than green, and yellow than blue, it has: ``(2, h, w)``."""
    red, green, blue = np.moveaxis(colours.astype(np.float64), -1, 0)
    return np.stack([red - green, (red + green) / 2 - blue])


def _alike(a: Bytes, b: Bytes) -> Scores:
    """How far the colours of thumbnails ``(n, 16, 16, 3)`` correlate, each channel less its mean: ``(n,)``."""
    x, y = (each.reshape(len(each), SIDE * SIDE, 3).astype(np.int64) for each in (a, b))
    number = SIDE * SIDE

    def product(one: _Numbers, two: _Numbers) -> _Numbers:
        found: _Numbers = number * (one * two).sum(axis=(1, 2)) - (one.sum(axis=1) * two.sum(axis=1)).sum(axis=1)
        return found

    return _correlation(product(x, y), product(x, x), product(y, y))
