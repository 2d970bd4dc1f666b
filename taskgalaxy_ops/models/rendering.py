"""An image as a model is sent it: upright, RGB, scaled to the longer side that the settings name, as JPEG.

EXIF is not sent on: places where photographs were taken never leave. Units count the parameters, not the bytes, so that
another version of the JPEG encoder asks nothing again.
"""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageOps


def upright(raw: bytes) -> Image.Image:
    """An image file's first frame, decoded, upright and RGB; transparency is laid on white."""
    with Image.open(io.BytesIO(raw)) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
            image = image.point(lambda value: value / 256).convert("L")
        return image.convert("RGB")


def render(raw: bytes, side: int, quality: int) -> str:
    """A data URL of the image, at most ``side`` pixels long; never scaled up."""
    image = upright(raw)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
