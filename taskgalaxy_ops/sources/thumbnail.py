"""Thumbnails, by which pictures are compared whose hashes are noise (symmetric figures, thin drawings), or near each
other although the pictures are not one (pages of one layout)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

SIDE = 16  # pixels, of one in colour
LENGTH = SIDE * SIDE * 3
BRIGHTNESS_SIDE = 32  # of one in grey

_FAINT = 1.5  # steps of 256 from the mean; what differs by less everywhere is a sheet of one colour
_GREATEST = 127


def thumbnail(image: Pillow.Image) -> str:
    """The thumbnail of a picture in RGB, upright: 16 by 16 pixels row by row, in base64."""
    small = image.convert("RGB").resize((SIDE, SIDE), Pillow.Resampling.BILINEAR, reducing_gap=4.0)
    return base64.b64encode(small.tobytes()).decode()


def fine_thumbnail(image: Pillow.Image, side: int, mode: Literal["L", "RGB"]) -> str:
    """The same of another size, in grey (L) or RGB, and sharper, so that edges stay."""
    small = image.convert(mode).resize((side, side), Pillow.Resampling.HAMMING, reducing_gap=4.0)
    return base64.b64encode(small.tobytes()).decode()


def pixels_of(thumbnails: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Thumbnails as ``(n, *shape)``; 0 where there is none."""
    none = bytes(prod(shape))
    raw = b"".join(base64.b64decode(each) if each else none for each in thumbnails)
    return np.frombuffer(raw, np.uint8).reshape(len(thumbnails), *shape)


def shapes_of(thumbnails: Iterable[str]) -> NDArray[np.int8]:
    """What is compared of thumbnails, ``(n, 768)``: each channel less its mean, scaled to 127 at most.

    So neither brightness nor contrast counts. A row of nothing but 0 is of one colour. The products of two rows are
    whole numbers below 2^24, which float32 adds up exactly in any order.
    """
    raw = np.frombuffer(b"".join(map(base64.b64decode, thumbnails)), np.uint8).reshape(-1, SIDE * SIDE, 3)
    shapes = (raw - raw.mean(axis=1, keepdims=True)).reshape(-1, LENGTH)
    greatest = np.abs(shapes).max(axis=1, keepdims=True)
    scale = np.where(greatest < _FAINT, 0, _GREATEST / np.maximum(greatest, _FAINT))
    found: NDArray[np.int8] = np.round(shapes * scale).astype(np.int8)
    return found
