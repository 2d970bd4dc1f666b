"""Renders an image for a model: upright, RGB, scaled so that its longer side is at most the settings' size, as JPEG.

EXIF is removed, so that the place where a photograph was taken is not sent. A unit's key depends on the rendering's
parameters and not on its bytes, so that a new version of the JPEG encoder makes no model be asked again.
"""

from __future__ import annotations

import base64
import io
import struct

from PIL import ExifTags, Image, ImageOps

_MOST_BYTES_A_PIXEL = 0.75  # of a JPEG that is sent unchanged; quality 95 takes about as much

# What decoders raise on hostile or broken files. Any other exception is a bug of ours and must surface.
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
    """An image file's first frame, upright, in RGB, on white where it is transparent. Raises ``DECODE_ERRORS``."""
    with Image.open(io.BytesIO(raw)) as opened:
        return flat(opened)


def flat(opened: Image.Image) -> Image.Image:
    """An opened image's first frame, upright, in RGB, on white where it is transparent."""
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        image = _eight_bits(image)
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey as 8 bits. White is the smallest usual full scale (1, 255, 65535) that holds the brightest pixel."""
    deep = image.convert("F")
    brightest: float = deep.getextrema()[1]  # type: ignore[assignment]  # one band
    scales = (65535,) if image.mode.startswith("I;16") else (1, 255, 65535)
    full = next((scale for scale in scales if scale >= brightest), brightest)
    grey = deep.point(lambda value: value * (255 / full)).convert("L")
    grey.info.pop("transparency", None)  # it is a value on the old scale
    return grey


def rendered(raw: bytes, side: int, quality: int) -> bytes:
    """The image as JPEG, its longer side at most ``side`` pixels; never scaled up. Raises ``DECODE_ERRORS``.

    A JPEG that fits already is not decoded; only its metadata is removed. Encoding it again would take twenty times as
    long and lose quality.
    """
    if (bare := _bare_jpeg(raw, side)) is not None:
        return bare
    image = upright(raw)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()  # a JPEG's comment would be saved again
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def render(raw: bytes, side: int, quality: int) -> str:
    """The image as ``rendered`` returns it, as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(rendered(raw, side, quality)).decode("ascii")


def _bare_jpeg(raw: bytes, side: int) -> bytes | None:
    """The JPEG file without metadata; None if it must be decoded and rendered.

    It must be if its side or file is too large, its colours are neither grey nor YCbCr, its EXIF turns it, or its
    layout is unusual. Segments: ITU-T T.81, annex B.
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(raw)) as opened:  # reads only the header
            simple = opened.format == "JPEG" and opened.mode in {"RGB", "L"} and "adobe_transform" not in opened.info
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except DECODE_ERRORS:
        return None
    if not simple or turned or max(width, height) > side or len(raw) > _MOST_BYTES_A_PIXEL * width * height:
        return None
    kept, at = [b"\xff\xd8"], 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        kind, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        if kind == 0xDA:  # the pixels, up to the end of the file; a second picture behind them may have EXIF
            alone = raw.find(b"\xff\xd9", at) == len(raw) - 2 and b"\xff\xe1" not in raw[at:]
            return b"".join([*kept, raw[at:]]) if alone else None
        jfif = kind == 0xE0 and length == 16  # the length of a header without a thumbnail
        if jfif or (kind != 0xFE and not 0xE0 <= kind <= 0xEF):  # drop comments and applications' segments
            kept.append(raw[at : at + 2 + length])
        at += 2 + length
    return None
