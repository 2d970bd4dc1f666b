"""Opens image files for their pixels: what else a file says, and says badly, costs a picture nothing.

Decoders raise whatever they meet: an odd tag of EXIF, a text that is too long, a checksum of a chunk that holds no
pixel. Where a file does not open, it is opened once more without its metadata.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_PIXELS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
_WEBP_SAYS_MORE = 0x20 | 0x08 | 0x04  # flags of VP8X: a colour profile, EXIF, XMP
_EXIF = b"Exif\0\0"


@contextmanager
def opened(raw: bytes, check: Callable[[Image.Image], None] = lambda image: None) -> Iterator[Image.Image]:
    """An image file with its first frame decoded. Raises whatever a decoder raises for it, of any class.

    check: is called before anything is decoded, and may raise.
    """

    def decode(image: Image.Image) -> None:
        check(image)
        image.load()

    with _first_that_opens(raw, decode) as image:
        yield image


@contextmanager
def header(raw: bytes) -> Iterator[Image.Image]:
    """An image file of which nothing is decoded yet. Raises as ``opened``."""
    with _first_that_opens(raw, lambda image: None) as image:
        yield image


def _first_that_opens(raw: bytes, then: Callable[[Image.Image], None]) -> Image.Image:
    """The file, opened as it is, else without its metadata. Raises what the last attempt raised."""
    try:
        return _open(raw, then)
    except Exception:
        attempts = _without_metadata(raw)
        if not attempts:
            raise
    for attempt in attempts[:-1]:
        with suppress(Exception):
            return _open(attempt, then)
    return _open(attempts[-1], then)


def _open(raw: bytes, then: Callable[[Image.Image], None]) -> Image.Image:
    image = Image.open(io.BytesIO(raw))
    try:
        then(image)
    except BaseException:
        image.close()
        raise
    return image


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How EXIF's orientation says that the image is to be turned; None: not at all, or it cannot be read."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken EXIF: whatever Pillow's reader raises for it
        return None


def _without_metadata(raw: bytes) -> list[bytes]:
    """The file with nothing but pixels and, at first, its EXIF; [] for a format whose metadata cannot be left out."""
    if raw.startswith(PNG):
        chunks = list(png_chunks(raw))
        kept = [(kind, whole) for kind, whole in chunks if kind in _PNG_PIXELS]
        exif = [(kind, whole) for kind, whole in chunks if kind == b"eXIf" and has_its_checksum(whole)]
        with_exif = [*kept[:1], *exif, *kept[1:]]
        return [PNG + b"".join(whole for _, whole in part) for part in ([with_exif, kept] if exif else [kept])]
    if raw.startswith(b"\xff\xd8"):
        return [found for exif in (True, False) if (found := bare_jpeg(raw, exif=exif)) not in {None, raw}]
    if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
        return [_bare_webp(raw)]
    return []


def png_chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG: name, and all of its bytes; the last one may be cut off."""
    at = len(PNG)
    while at + 8 <= len(raw):
        end = at + 12 + int.from_bytes(raw[at : at + 4], "big")
        yield raw[at + 4 : at + 8], raw[at:end]
        at = end


def has_its_checksum(chunk: bytes) -> bool:
    """Whether a chunk of a PNG, as ``png_chunks`` has it, is as it was written."""
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def jpeg_segments(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG up to its pixels: kind, where it begins, where it ends. The last one has the pixels."""
    at = 2
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:
            return
        if raw[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        kind, end = raw[at + 1], at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
        if kind == 0xDA:
            yield kind, at, len(raw)
            return
        yield kind, at, end
        at = end


def bare_jpeg(raw: bytes, *, exif: bool) -> bytes | None:
    """A JPEG without comments and applications' segments but those that pixels need: JFIF's and Adobe's."""
    kept = [b"\xff\xd8"]
    for kind, begin, end in jpeg_segments(raw):
        segment = raw[begin:end]
        keep = kind in {0xE0, 0xEE} or (kind == 0xE1 and exif and segment[4:].startswith(_EXIF))
        if keep or not (kind == 0xFE or 0xE0 <= kind <= 0xEF):
            kept.append(segment)
        if kind == 0xDA:
            return b"".join(kept)
    return None


def _bare_webp(raw: bytes) -> bytes:
    kept, at = [], 12
    while at + 8 <= len(raw):
        end = at + 8 + int.from_bytes(raw[at + 4 : at + 8], "little")
        end += end % 2 - at % 2
        chunk = raw[at:end]
        if chunk[:4] == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_SAYS_MORE]) + chunk[9:] if len(chunk) > 8 else chunk
        if chunk[:4] in _WEBP_PIXELS:
            kept.append(chunk)
        at = max(end, at + 8)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def register_heif() -> None:
    """Let Pillow read HEIC, if the package of the extra ``heif`` is installed."""
    with suppress(ImportError):
        from pi_heif import register_heif_opener

        register_heif_opener()
