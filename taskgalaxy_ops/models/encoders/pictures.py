"""From an image's file to the square that an encoder's network takes."""

from __future__ import annotations

import math

from PIL import Image

from taskgalaxy_ops.models.encoders.base import Recipe
from taskgalaxy_ops.models.opening import header, turn_of
from taskgalaxy_ops.models.rendering import upright

_PAD = (128, 128, 128)  # about the middle of what networks are trained on


def picture(raw: bytes, recipe: Recipe, side: int) -> Image.Image:
    """An image file's picture for a network, upright, in RGB. Raises as ``upright``.

    side: pixels that its shorter side is to have (its longer one, where the recipe pads): with ``decode: quick`` or
    ``device``, a JPEG is decoded at the smallest of libjpeg's scales (eighths) that gives as many.
    """
    if recipe.decode is None:
        return upright(raw)
    with header(raw) as image:
        plain = image.format == "JPEG" and image.mode in {"RGB", "L"}
        turn, ends = turn_of(image), image.size
    if not plain:
        return upright(raw)
    import simplejpeg

    scale = min(1.0, side / (max(ends) if recipe.fit == "pad" else min(ends)))
    height, width = (math.ceil(end * scale) for end in reversed(ends))
    try:
        pixels = simplejpeg.decode_jpeg(raw, "RGB", min_height=height, min_width=width, min_factor=1)
    except ValueError:  # libjpeg's own reading is stricter than Pillow's
        return upright(raw)
    decoded = Image.fromarray(pixels)
    return decoded if turn is None else decoded.transpose(turn)


def padded(image: Image.Image, side: int) -> Image.Image:
    """The whole image, its longer side scaled to ``side`` pixels (bicubic), in the middle of a grey square."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side, side), _PAD)
    square.paste(image.resize(size, Image.Resampling.BICUBIC), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square
