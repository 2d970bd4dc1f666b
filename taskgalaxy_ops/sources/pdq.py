"""PDQ, the perceptual hash of 256 bits that Meta published with ThreatExchange, of decoded pictures.

It is made here and not by the package ``pdqhash``, which has no wheels for Linux, so that each worker would need a C++
compiler; a test holds this module against that package. All steps up to the bits are linear, so that they are two
matrix products: a box filter applied twice along each axis, decimation to 64 by 64, and 16 by 16 cosine coefficients
(https://github.com/facebook/ThreatExchange, pdq/; Davis and Rosen, "PDQ and TMK+PDQF", 2019).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

BITS = 256

_SIDE = 64  # of the decimated picture
_KEPT = 16  # coefficients an axis
_SIZES_KEPT = 64  # lengths of sides, whose filters are in memory
_LARGE = 512  # pixels; of longer sides, so many are averaged that fewer than twice as many are left
_LEAST = 5  # pixels a side; smaller pictures have no hash
_LUMA = np.array([0.299, 0.587, 0.114])
# Below the rounding of the coefficients lies arithmetic alone, which another machine may do in another order.
_DECIMALS = 3
_FULL_QUALITY = 90  # steps of brightness between neighbours, in hundredths, for one of a hundred points of quality

_Matrix = NDArray[np.float64]


class Pdq(NamedTuple):
    """A picture's hash."""

    bits: str  # 64 hex digits, written as ThreatExchange writes them
    quality: int  # 0..100; below 50 the picture has so few edges that its hash says little


def pdq(image: Pillow.Image) -> Pdq:
    """The PDQ of a picture in RGB, upright. A picture under 5 pixels a side has the hash 0 of quality 0."""
    if min(image.size) < _LEAST:
        return Pdq("0" * (BITS // 4), 0)
    # Whole blocks of pixels are averaged, which moves no edge as another scaling would.
    image = image.convert("RGB").reduce((max(1, image.width // _LARGE), max(1, image.height // _LARGE)))
    luma = np.asarray(image, np.float64) @ _LUMA
    height, width = luma.shape
    small = luma if luma.shape == (_SIDE, _SIDE) else _decimation(height) @ luma @ _decimation(width).T
    coefficients = np.round(_cosines() @ small @ _cosines().T, _DECIMALS).reshape(-1)
    median = np.partition(coefficients, len(coefficients) // 2 - 1)[len(coefficients) // 2 - 1]
    return Pdq(np.packbits((coefficients > median)[::-1]).tobytes().hex(), _quality(small))


def unpacked(hashes: list[str]) -> NDArray[np.uint8]:
    """Hashes as bytes ``(n, 32)``."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), BITS // 8)


@lru_cache(_SIZES_KEPT)
def _decimation(length: int) -> _Matrix:
    """From ``length`` pixels to 64: a box filter of a 128th of the length, twice, and then each 64th pixel's centre."""
    window = -(-length // (2 * _SIDE))
    behind = (window + 2) // 2  # pixels from the present one on; the window ends at the picture's edges
    at = np.arange(length)
    first, end = np.maximum(at + behind - window, 0), np.minimum(at + behind, length)
    box = ((at >= first[:, None]) & (at < end[:, None])) / (end - first)[:, None]
    centres = ((np.arange(_SIDE) + 0.5) * length / _SIDE).astype(int)
    found: _Matrix = box[centres] @ box
    return found


@lru_cache(1)
def _cosines() -> _Matrix:
    """The second to seventeenth rows of the cosine transform of 64 points, ``(16, 64)``."""
    row, column = np.arange(1, _KEPT + 1)[:, None], 2 * np.arange(_SIDE) + 1
    found: _Matrix = np.sqrt(2 / _SIDE) * np.cos(np.pi / 2 / _SIDE * row * column)
    return found


def _quality(small: NDArray[Any]) -> int:
    """How much edge there is in the decimated picture, 0..100."""
    # Rounded as the coefficients are, for the same reason: the steps are cut to whole hundredths.
    steps = sum(np.abs(np.trunc(np.round(np.diff(small, axis=axis) * 100 / 255, 6))).sum() for axis in (0, 1))
    return min(100, int(steps) // _FULL_QUALITY)
