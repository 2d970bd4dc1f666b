"""An image as a model is sent it: upright, RGB, scaled to the longer side that the settings name, as JPEG.

EXIF is not sent on: places where photographs were taken never leave. Units count the parameters, not the bytes, so that
another version of the JPEG encoder asks nothing again.
"""

from __future__ import annotations

import base64
import io
import struct

from PIL import ExifTags, Image, ImageOps

_MOST_BYTES_A_PIXEL = 0.75  # of a JPEG that is sent as it is: about what quality 95 takes

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


def rendered(raw: bytes, side: int, quality: int) -> bytes:
    """The image as JPEG, at most ``side`` pixels long; never scaled up.

    A JPEG that is already as a model is sent one goes as it is, without what it tells besides its picture: decoding and
    encoding it again takes twenty times as long, and makes it no better.
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
    """The same as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(rendered(raw, side, quality)).decode("ascii")


def _bare_jpeg(raw: bytes, side: int) -> bytes | None:
    """A JPEG file without metadata, where it needs nothing else; None if it is to be rendered.

    It is to be where it is too long, too large a file, in other colours than grey or YCbCr, turned by its EXIF, or not
    laid out as usual. Segments: ITU-T T.81, annex B.
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(raw)) as opened:  # reads the head alone
            plain = opened.format == "JPEG" and opened.mode in {"RGB", "L"} and "adobe_transform" not in opened.info
            width, height = opened.size
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except DECODE_ERRORS:
        return None
    if not plain or turned or max(width, height) > side or len(raw) > _MOST_BYTES_A_PIXEL * width * height:
        return None
    kept, at = [b"\xff\xd8"], 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        kind, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        if kind == 0xDA:  # the picture itself, to the end of the file: no second one behind it, with its own EXIF
            alone = raw.find(b"\xff\xd9", at) == len(raw) - 2 and b"\xff\xe1" not in raw[at:]
            return b"".join([*kept, raw[at:]]) if alone else None
        jfif = kind == 0xE0 and length == 16  # as long as it is without a thumbnail
        if jfif or (kind != 0xFE and not 0xE0 <= kind <= 0xEF):  # neither a comment nor an application's
            kept.append(raw[at : at + 2 + length])
        at += 2 + length
    return None
