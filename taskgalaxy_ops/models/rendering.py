"""Renders an image for a model: upright, RGB, on white, scaled so that its longer side is at most the settings' size,
as JPEG. What teacher and judges are sent is what is released, trained on and scored on: one function makes it.

EXIF is removed, so that the place where a photograph was taken is not sent. A unit's key depends on the rendering's
parameters and not on its bytes, so that a new version of the JPEG encoder makes no model be asked again. What came to
the rendering later is a parameter of those images alone whose picture it changed (``Shown.apart``).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from taskgalaxy_ops.models.depth import changed_levels, eight_bits, is_deep
from taskgalaxy_ops.models.opening import header, opened, turn_of

if TYPE_CHECKING:  # settings take long to import, and processes that only decode have none
    from taskgalaxy_ops.settings import Model

MOST_BYTES_A_PIXEL = 0.75  # of a JPEG that is sent unchanged; quality 95 takes about as much


_CLEAR = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})  # modes with transparency
ENCODED = "the same size and colours, encoded as JPEG"


class Shown(NamedTuple):
    """What decides of an image whether it is rendered otherwise than version 1 of the rendering did."""

    width: int  # pixels, upright
    height: int
    levels: str | None = None  # of deep grey, where they are others than version 1 took

    def apart(self, model: Model) -> dict[str, Any]:
        """The parameters that this image's rendering for a model has beside those that all have; {}: none."""
        found: dict[str, Any] = {}
        if self.levels is not None:
            found["levels"] = self.levels
        if min(scaled(self.width, self.height, model.image_side)) < model.image_min_side:
            found["min_side"] = model.image_min_side
        return found


def upright(raw: bytes) -> Image.Image:
    """An image file's first frame, upright, in RGB, on white where it is transparent.

    Raises whatever a decoder raises for the file, of any class.
    """
    with opened(raw) as image:
        return flat(image, raw)


def flat(image: Image.Image, raw: bytes) -> Image.Image:
    """An opened image's first frame, upright, in RGB, on white where it is transparent. raw: the image's file."""
    if (turn := turn_of(image)) is not None:
        image = image.transpose(turn)
    if is_deep(image):
        image = eight_bits(image, raw)
    if image.mode in _CLEAR or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def shown(raw: bytes) -> Shown:
    """What is to be known of an image file beside its id to make its units' keys. Raises as ``upright``."""
    with opened(raw) as image:
        width, height = image.size
        if (turn := turn_of(image)) is not None and turn in _ON_ITS_SIDE:
            width, height = height, width
        return Shown(width, height, changed_levels(image, raw))


_ON_ITS_SIDE = frozenset(
    {Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270}
)


def rendered(raw: bytes, side: int, quality: int, min_side: int = 1) -> bytes:
    """The image as JPEG, its longer side at most ``side`` pixels. Raises as ``upright``.

    An image is scaled up only where its shorter side would be under ``min_side``; one that is too long for that gets
    white margins. A JPEG that fits already is not decoded; only its metadata is removed. Encoding it again would take
    twenty times as long and lose quality.
    """
    if (bare := _bare_jpeg(raw, side, min_side)) is not None:
        return bare
    image = upright(raw)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image = _at_least(image, min_side, side)
    image.info.clear()  # a JPEG's comment would be saved again
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def rendered_for(raw: bytes, model: Model) -> bytes:
    """The image as ``rendered`` returns it, by a model's settings: the bytes that the model is sent."""
    return rendered(raw, model.image_side, model.image_quality, model.image_min_side)


def altered(raw: bytes, model: Model) -> list[str]:
    """In what a model is shown an image otherwise than its file has it, by the file's header; [] if in nothing."""
    with header(raw) as image:
        turn, deep = turn_of(image), is_deep(image)
        clear = not deep and (image.mode in _CLEAR or "transparency" in image.info)
        few = getattr(image, "n_frames", 1) > 1
        size = image.size
        scaled_to = scaled(*size, model.image_side)
        told = {
            "turned upright, as EXIF says": turn is not None,
            "set on white where they are transparent": clear,
            "deep grey, as 8 bits": deep,
            "other colours (palette, CMYK …), as RGB": not (deep or clear) and image.mode not in {"RGB", "L"},
            "the first of several pages or frames": few,
            "scaled down": scaled_to != size,
            "scaled up, or with white margins, because they are thin or tiny": min(scaled_to) < model.image_min_side,
        }
        found = [what for what, it_is in told.items() if it_is]
        return found or ([] if image.format in {"JPEG", "MPO"} else [ENCODED])


def data_url(jpeg: bytes) -> str:
    """A rendered image as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def render(raw: bytes, side: int, quality: int, min_side: int = 1) -> str:
    """The image as ``rendered`` returns it, as a data URL."""
    return data_url(rendered(raw, side, quality, min_side))


def scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """The size to which Pillow's ``thumbnail`` scales an image so that its longer side is at most ``side``."""
    if max(width, height) <= side:
        return width, height
    aspect = width / height
    if aspect <= 1:
        return _nearest(side * aspect, lambda n: abs(aspect - n / side)), side
    return side, _nearest(side / aspect, lambda n: 0 if n == 0 else abs(aspect - side / n))


def _nearest(number: float, apart: Callable[[int], float]) -> int:
    return max(min(math.floor(number), math.ceil(number), key=apart), 1)


def _at_least(image: Image.Image, min_side: int, side: int) -> Image.Image:
    """The image with no side under ``min_side``: scaled up as far as ``side`` lets it, then with white margins."""
    short, long = sorted(image.size)
    if short >= min_side:
        return image
    factor = min(min_side / short, side / long)
    if factor > 1:
        width, height = (max(1, round(factor * each)) for each in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    size = max(image.width, min_side), max(image.height, min_side)
    if size == image.size:
        return image
    whole = Image.new("RGB", size, "white")
    whole.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return whole


def _bare_jpeg(raw: bytes, side: int, min_side: int) -> bytes | None:
    """The JPEG file without metadata; None if it must be decoded and rendered.

    It must be if its side or file is too large or too small, its colours are neither grey nor YCbCr, its EXIF turns
    it, or its layout is unusual. Segments: ITU-T T.81, annex B.
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(raw)) as head:  # reads only the header
            simple = head.format == "JPEG" and head.mode in {"RGB", "L"} and "adobe_transform" not in head.info
            width, height = head.size
            turned = turn_of(head) is not None
    except Exception:  # noqa: BLE001 - a broken header: what is wrong is told where the file is decoded
        return None
    if not simple or turned or max(width, height) > side or min(width, height) < min_side:
        return None
    if len(raw) > MOST_BYTES_A_PIXEL * width * height:
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
