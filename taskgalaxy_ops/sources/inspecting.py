"""Looks into an image file: each is decoded to its last pixel, so that an image which passes will not fail later.

Decoding processes do this (``decoder_process``). They are started for every scan, so nothing is imported here that
takes long: no settings, no store.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import simplejpeg
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.depth import changed_levels
from taskgalaxy_ops.models.opening import bare_jpeg, opened, turn_of
from taskgalaxy_ops.models.rendering import flat
from taskgalaxy_ops.records import Image, Reason
from taskgalaxy_ops.sources.whole import absent_coefficients, missing_part, missing_tiles

_DETAIL = 200  # characters of a reject's detail
_BRAND_BYTES = 32  # of a file's beginning, in which the brands of HEIC and AVIF stand
_MOVING = frozenset({"gif", "png", "webp", "avif"})  # formats whose further pictures are frames of an animation

AVIF = frozenset((b"avif", b"avis"))
HEIF = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an image is held to, as ``settings.IngestSettings`` has it."""

    max_pixels: int  # width times height
    min_side: int  # pixels, the shorter side
    animated: str = "first frame"  # or "reject"


class UnfitError(Exception):
    """Ends the look at a file or a page: the reason and the detail of its reject."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.found = reason, detail[:_DETAIL]


def inspect(raw: bytes, bounds: Bounds) -> Image | tuple[Reason, str]:
    """Decode an image file: its record, or the reason and detail of its reject, whatever a decoder raises for it."""
    if not raw:
        return Reason.NOT_AN_IMAGE, "the file is empty"
    if lacking := lacks_decoder(raw):
        return Reason.UNREADABLE, lacking
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of decompression bombs; ingest.max_pixels is our limit
            return _inspected(raw, bounds)
    except Exception as error:  # noqa: BLE001 - decoders raise what their authors did not foresee
        return refusal(error, raw)


def refusal(error: Exception, raw: bytes) -> tuple[Reason, str]:
    """The reason and detail of a reject, by what was raised for a file. raw: the file."""
    if isinstance(error, UnfitError):
        return error.found
    if isinstance(error, MemoryError):
        return Reason.TOO_MUCH_MEMORY, "its decoder asked for more memory than it may have"
    if isinstance(error, Pillow.DecompressionBombError):
        return Reason.TOO_MANY_PIXELS, str(error)[:_DETAIL]
    if isinstance(error, UnidentifiedImageError):
        return Reason.NOT_AN_IMAGE, "no known image format"
    text = str(error)
    cut = "truncated" in text.lower() or "unexpected end" in text.lower() or isinstance(error, EOFError)
    # WebP's decoder does not say why it stopped; its RIFF header says how long the file should be.
    cut = cut or (raw[:4] == b"RIFF" and int.from_bytes(raw[4:8], "little") + 8 > len(raw))
    return (Reason.TRUNCATED_FILE if cut else Reason.UNREADABLE), f"{type(error).__name__}: {text}"[:_DETAIL]


def _inspected(raw: bytes, bounds: Bounds) -> Image:
    """The record of an image file. Raises UnfitError, or whatever a decoder raises."""

    def check(image: Pillow.Image) -> None:
        check_size(image.size, bounds)
        if image.format == "EPS":
            raise UnfitError(Reason.UNREADABLE, "EPS is a program, which Ghostscript would run: convert it to PNG")
        if told := missing_tiles(image):
            raise UnfitError(Reason.TRUNCATED_FILE, told)

    upright, kind, levels = _whole_jpeg(raw, check) or _decoded(raw, check, bounds)
    if bounds.animated == "reject" and kind in _MOVING and (frames := pages(raw)) > 1:
        raise UnfitError(Reason.ANIMATED, f"{frames} frames, ingest.animated is reject")
    if min(upright.size) < bounds.min_side:
        told = f"{upright.width} x {upright.height}, ingest.min_side is {bounds.min_side}"
        raise UnfitError(Reason.TOO_SMALL, told)
    return Image(sha256_hex(raw), *upright.size, kind, len(raw), perceptual_hash(upright), levels)


# An image as models will see it, upright; its format; and the levels of deep grey, as ``Image.levels`` has them.
_Decoded = tuple[Pillow.Image, str, str | None]


def _decoded(raw: bytes, check: Callable[[Pillow.Image], None], bounds: Bounds) -> _Decoded:
    with opened(raw, check) as image:
        check_size(image.size, bounds)  # a container may hold a larger picture than it says
        if told := missing_part(raw, image):
            raise UnfitError(Reason.TRUNCATED_FILE, told)
        # ``flat`` here, so that this conversion cannot fail later.
        return flat(image, raw), (image.format or "unknown").lower(), changed_levels(image, raw)


def _whole_jpeg(raw: bytes, check: Callable[[Pillow.Image], None]) -> _Decoded | None:
    """A JPEG in grey or YCbCr with which nothing is wrong. None: of any other file, ``_decoded`` decides.

    One pass of simplejpeg gives the pixels that Pillow would give (the same library decodes them), and, other than
    Pillow, libjpeg's warnings: so a good file is not decoded a second time for these.
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        with Pillow.open(io.BytesIO(raw)) as image:  # reads only the header
            check(image)
            kind, mode, size, turn = image.format, image.mode, image.size, turn_of(image)
        if kind not in {"JPEG", "MPO"} or mode not in {"RGB", "L"} or absent_coefficients(raw):
            return None
        pixels = simplejpeg.decode_jpeg(bare_jpeg(raw, exif=False) or raw, "RGBX" if mode == "RGB" else "GRAY")
        if pixels.shape[1::-1] != size:
            return None
    except Exception:  # noqa: BLE001 - whatever it is, ``_decoded`` meets it again and tells it
        return None
    form = "RGBX" if mode == "RGB" else "L"
    upright = Pillow.frombuffer(form, size, pixels, "raw", form, 0, 1)  # shares the memory of ``pixels``
    return (upright if turn is None else upright.transpose(turn)), kind.lower(), None


def check_size(size: tuple[int, int], bounds: Bounds) -> None:
    """Raises UnfitError if a picture of this width and height, in pixels, is too large."""
    width, height = size
    if width * height > bounds.max_pixels:
        told = f"{width} x {height}, ingest.max_pixels is {bounds.max_pixels}"
        raise UnfitError(Reason.TOO_MANY_PIXELS, told)


def perceptual_hash(image: Pillow.Image) -> str:
    """160 bits that near-duplicates share, as 40 hex digits. image: in RGB, RGBX or L.

    64 bits: whether brightness rises from one cell to the next on an 8 by 8 grid (difference hash). 96 bits: the
    colours on a 4 by 4 grid, two bits a channel in Gray code, so that neighbours differ by one bit; without them, two
    shapes that differ in colour alone would look the same.
    """
    grey = image.convert("L").resize((9, 8), Pillow.Resampling.BOX).tobytes()
    bits = [int(grey[9 * y + x] < grey[9 * y + x + 1]) for y in range(8) for x in range(8)]
    for value in image.resize((4, 4), Pillow.Resampling.BOX).convert("RGB").tobytes():
        step = value >> 6
        gray = step ^ (step >> 1)
        bits += [gray >> 1, gray & 1]
    return f"{int(''.join(map(str, bits)), 2):040x}"


def brand(head: bytes) -> bytes:
    """The brand of an ISO base media file; b"" for any other."""
    return head[8:12] if head[4:8] == b"ftyp" else b""


def lacks_decoder(raw: bytes) -> str:
    """Why an image of this kind cannot be read here, and the fix; "" if it can be."""
    if brand(raw[:12]) not in HEIF or b"avif" in raw[:_BRAND_BYTES]:
        return ""
    Pillow.init()
    return "" if "HEIF" in Pillow.OPEN else "HEIC needs the extra `heif`: pip install 'taskgalaxy-ops[heif]'"


def pages(raw: bytes) -> int:
    """How many pages or frames an image file has, at least 1. Reads no more than the file's own lists of them."""
    if not raw.startswith((b"\x89PNG", b"GIF8", b"II", b"MM", b"RIFF")) and brand(raw[:12]) not in AVIF | HEIF:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(raw)) as opened:
                return max(1, int(getattr(opened, "n_frames", 1)))
    except Exception:  # noqa: BLE001 - a decoder may raise anything; whether the file is good is decided elsewhere
        return 1
