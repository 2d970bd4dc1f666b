"""Deep grey (more than 8 bits a pixel) as 8 bits: which of its values becomes black, and which white.

A scanner of 12 bits fills 16 with a sixteenth of their range. So white is what the file says (PNG's significant bits,
TIFF's bits a sample and largest value), else the end of a usual scale that the brightest pixel nearly reaches, else the
brightest pixel itself: an image is never nearly black because its container is deep.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from PIL import Image

from taskgalaxy_ops.models.opening import PNG, png_chunks

_USUAL = (1.0, *(float(2**bits - 1) for bits in range(8, 33)))  # ends of scales: of shares, and of whole numbers
_FILLED = 0.8  # share of a usual scale from which a picture is taken to be on it
_SHARE = 0.25  # of the scale: what a file says is not believed below it, and a narrower range is spread
_BITS, _PHOTOMETRIC_SAMPLES = 258, ((280, 281), (340, 341))  # TIFF: BitsPerSample; Min- and Max-, SMin- and SMax…


class Levels(NamedTuple):
    """The values that become black and white."""

    black: float
    white: float

    def __str__(self) -> str:
        return f"{self.black:.9g}:{self.white:.9g}"


def is_deep(image: Image.Image) -> bool:
    """Whether an image is deep grey, as Pillow decodes it."""
    return image.mode.startswith("I;16") or image.mode in {"I", "F"}


def levels(image: Image.Image, raw: bytes) -> Levels:
    """The levels of deep grey. image: as it was decoded from the file ``raw``."""
    low, high = _extrema(image)
    if low == high:
        return levels_before(image)  # one grey, which has no range of its own
    said = _said(image, raw)
    if said is not None and said.black <= low < high <= said.white and _fills(high, said):
        return said
    white = next((end for end in _USUAL if end >= high), high)
    if high < _FILLED * white:
        white = high
    spread = low < 0 or high - low < _SHARE * white
    if spread and low < high:
        return Levels(low, high)
    return Levels(min(low, 0.0), white if white > 0 else 1.0)


def _fills(high: float, said: Levels) -> bool:
    return high - said.black >= _SHARE * (said.white - said.black)


def levels_before(image: Image.Image) -> Levels:
    """The levels that version 1 of the rendering takes: the smallest of few scales that holds the brightest pixel."""
    _, high = _extrema(image)
    scales = (65535.0,) if image.mode.startswith("I;16") else (1.0, 255.0, 65535.0)
    return Levels(0.0, next((end for end in scales if end >= high), high))


def changed_levels(image: Image.Image, raw: bytes) -> str | None:
    """The levels of deep grey where they are not those of version 1, for the keys of what is asked about it."""
    if not is_deep(image):
        return None
    now = levels(image, raw)
    return None if now == levels_before(image) else str(now)


def eight_bits(image: Image.Image, raw: bytes) -> Image.Image:
    """Deep grey in 8 bits."""
    black, white = levels(image, raw)
    scale = 255 / (white - black)
    deep = image.convert("F")
    grey = (
        deep.point(lambda value: value * scale + -black * scale) if black else deep.point(lambda value: value * scale)
    )
    grey = grey.convert("L")
    grey.info.pop("transparency", None)  # it is a value on the old scale
    return grey


def _extrema(image: Image.Image) -> tuple[float, float]:
    deep = image if image.mode == "F" else image.convert("F")
    low, high = (float(value) for value in deep.getextrema())  # type: ignore[arg-type]
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (0.0, 1.0)


def _said(image: Image.Image, raw: bytes) -> Levels | None:
    """The levels that the file itself states; None: it states none, or only the depth of its container."""
    if raw.startswith(PNG):
        for kind, chunk in png_chunks(raw):
            if kind == b"sBIT" and 1 <= chunk[8] < 16:
                return Levels(0.0, float(2 ** chunk[8] - 1))
            if kind == b"IDAT":
                return None
        return None
    tags = getattr(image, "tag_v2", {})
    for least, most in _PHOTOMETRIC_SAMPLES:
        if (white := _number(tags, most)) is not None:
            black = _number(tags, least) or 0.0
            return Levels(black, white) if black < white else None
    bits = _number(tags, _BITS)
    return Levels(0.0, 2**bits - 1) if bits is not None and 8 < bits < 16 else None


def _number(tags: Any, tag: int) -> float | None:
    try:
        value = tags.get(tag)
        number = float(value[0] if isinstance(value, tuple) else value)
    except Exception:  # noqa: BLE001 - no such tag, or one of an odd type
        return None
    return number if math.isfinite(number) else None
