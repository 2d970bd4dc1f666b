"""Planted leaks: a benchmark's pictures and questions as they turn up elsewhere, by rules whose draws hang on a seed.

Whoever tunes the thresholds of ``release.decontaminate`` uses ``TUNING`` seeds; the figures use ``MEASURED`` ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from taskgalaxy_ops.models.rendering import upright

TUNING = range(0, 10)
MEASURED = range(100, 110)

# --- pictures ----------------------------------------------------------------------------------------------------


def picture_leaks(raw: bytes, seed: object) -> dict[str, bytes]:
    """A picture's file in each way, by its kind."""
    image = upright(raw).convert("RGB")
    return {kind: way(image, Random(f"{kind}/{seed}")) for kind, way in _PICTURE_WAYS.items()}


def _encoded(image: Image.Image, form: str = "PNG", **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def _reencoded(image: Image.Image, draw: Random) -> bytes:
    """A JPEG or WebP of low to high quality."""
    return _encoded(image, draw.choice(["JPEG", "WEBP"]), quality=draw.randint(30, 90))


def _resized(image: Image.Image, draw: Random) -> bytes:
    """Two fifths to one and a half of its sides."""
    scale = draw.uniform(0.4, 1.5)
    size = (max(24, round(image.width * scale)), max(24, round(image.height * scale)))
    return _encoded(image.resize(size, draw.choice([Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])))


def _recoloured(image: Image.Image, draw: Random) -> bytes:
    """Other colours and brightness: grey, or another saturation and temperature; contrast, brightness, gamma."""
    image = ImageEnhance.Color(image).enhance(draw.choice([0.0, 0.5, 1.6]))
    image = ImageEnhance.Brightness(image).enhance(draw.uniform(0.75, 1.2))
    image = ImageEnhance.Contrast(image).enhance(draw.uniform(0.75, 1.3))
    pixels = np.asarray(image, np.float64) / 255
    tint = np.array([draw.uniform(0.85, 1.0) for _ in range(3)])
    pixels = pixels ** draw.uniform(0.8, 1.25) * tint
    return _encoded(Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8)))


def _cropped(image: Image.Image, draw: Random) -> bytes:
    """Nine tenths of each side, anywhere: a fifth of the picture is gone."""
    width, height = max(1, round(0.9 * image.width)), max(1, round(0.9 * image.height))
    x, y = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return _encoded(image.crop((x, y, x + width, y + height)))


def _mirrored(image: Image.Image, draw: Random) -> bytes:
    return _encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=draw.randint(60, 90))


def _overlaid(image: Image.Image, draw: Random) -> bytes:
    """A line of text across it, as of an agency."""
    image = image.copy()
    size = max(10, min(image.size) // 10)
    place = (draw.uniform(0.05, 0.3) * image.width, draw.uniform(0.1, 0.8) * image.height)
    ImageDraw.Draw(image).text(place, draw.choice(["SAMPLE", "stock photo", "Example 12"]), "red", font_size=size)
    return _encoded(image)


_PICTURE_WAYS: Mapping[str, Callable[[Image.Image, Random], bytes]] = {
    "re-encoded": _reencoded,
    "resized": _resized,
    "recoloured": _recoloured,
    "cropped": _cropped,
    "mirrored": _mirrored,
    "overlaid": _overlaid,
}
