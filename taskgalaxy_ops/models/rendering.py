"""An image as a model is sent it: upright, RGB, scaled to the longer side that the settings name, as JPEG.

EXIF is not sent on: places where photographs were taken never leave. Units count the parameters, not the bytes, so that
another version of the JPEG encoder asks nothing again.
"""

from __future__ import annotations

import base64
import io
import struct

from PIL import Image, ImageOps

# What decoders raise on hostile or broken files; anything else is our own mistake and must be seen.
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    MemoryError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    ZeroDivisionError,
    RuntimeError,
)


def upright(raw: bytes) -> Image.Image:
    """An image file's first frame, decoded, upright and RGB; transparency is laid on white."""
    with Image.open(io.BytesIO(raw)) as opened:
        return flat(opened)


def flat(opened: Image.Image) -> Image.Image:
    """An opened image as models see it: first frame, upright, RGB, transparency on white."""
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        image = _eight_bits(image)
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey as 8 bits: black to the smallest usual full scale that holds the brightest pixel."""
    deep = image.convert("F")
    brightest: float = deep.getextrema()[1]  # type: ignore[assignment]  # one band
    scales = (65535,) if image.mode.startswith("I;16") else (1, 255, 65535)
    full = next((scale for scale in scales if scale >= brightest), brightest)
    grey = deep.point(lambda value: value * (255 / full)).convert("L")
    grey.info.pop("transparency", None)  # a value of the deep grey
    return grey


def render(raw: bytes, side: int, quality: int) -> str:
    """A data URL of the image, at most ``side`` pixels long; never scaled up."""
    image = upright(raw)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()  # a JPEG's comment would be saved again
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
