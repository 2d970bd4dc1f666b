"""Finds pictures of which a part is missing although their decoder is content: it fills the rest, with grey or black.

A repairing downloader appends an end marker to half a JPEG, or closes the stream of half a PNG. Pillow does not pass on
what libjpeg warns of, so JPEGs are decoded a second time, small, by simplejpeg, which does.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import simplejpeg
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from taskgalaxy_ops.models.opening import bare_jpeg, has_its_checksum, png_chunks

# What libjpeg says where pixels are missing or damaged; its other warnings are about headers.
_DAMAGE = re.compile(
    r"corrupt jpeg data|premature end|inconsistent progression|bad huffman|invalid (scan|progressive)", re.I
)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9", re.I)
_COEFFICIENTS = 64  # of a block
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # those of DCT; lossless ones have no bands
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8\x01]", re.DOTALL)
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SAMPLES, _PLANAR, _SEPARATE = 277, 284, 2  # TIFF: SamplesPerPixel; PlanarConfiguration, and its value for planes
_READ_AHEAD = 16  # bytes that libjpeg has read behind the last pixel
_PART = 1 << 20  # bytes that are decompressed at once


def missing_part(raw: bytes, image: Image.Image) -> str:
    """What says that a part of the picture is missing; "" if nothing does. image: opened from ``raw``, and decoded."""
    if image.format in {"JPEG", "MPO"}:
        return _of_jpeg(raw)
    if image.format == "PNG":
        return _of_png(raw)
    return ""


def missing_tiles(image: Image.Image) -> str:
    """The same by the parts that a TIFF lists; image: opened, and not decoded yet."""
    if not isinstance(image, TiffImageFile) or not all(tile[0] == "raw" for tile in image.tile):  # libtiff looks itself
        return ""
    planes = image.tag_v2.get(_SAMPLES, 1) if image.tag_v2.get(_PLANAR) == _SEPARATE else 1
    whole = image.width * image.height * planes
    boxes = [tile[1] or (0, 0, *image.size) for tile in image.tile]
    there = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    return f"strips of {100 * there // whole} % of the picture are there" if there < whole else ""


def _of_jpeg(raw: bytes) -> str:
    if absent := absent_coefficients(raw):
        return absent
    raw = bare_jpeg(raw, exif=False) or raw  # so that warnings are of pixels alone
    small = {"min_height": 1, "min_width": 1}  # an eighth of each side: what matters is that all codes are read
    for _ in range(2):
        try:
            simplejpeg.decode_jpeg(raw, "GRAY", fastdct=True, fastupsample=True, strict=True, **small)
            return ""
        except ValueError as error:
            said = str(error)
            filled = _EXTRANEOUS.search(said)
            if not filled:
                return said if _DAMAGE.search(said) else ""  # what it cannot decode at all, Pillow decoded
            end, count = raw.rfind(b"\xff\xd9"), int(filled[1])
            padding = len(raw[:end]) - len(raw[:end].rstrip(raw[end - 1 : end]))
            if not count <= padding <= count + _READ_AHEAD:
                return said
            raw = raw[: end - padding] + raw[end:]  # a camera's padding: what else is there to say?
    return ""


def absent_coefficients(raw: bytes) -> str:
    """Whether the scans of a JPEG leave out a colour, or a band of its frequencies. ITU-T T.81, B.2.3 and G.1.1.1.1."""
    seen: dict[int, set[int]] = {}
    for kind, body in _jpeg_headers(raw):
        if kind in _FRAMES and len(body) > 5:
            seen = {each: set() for each in body[6 : 6 + 3 * body[5] : 3]}
        elif kind == 0xDA and body and len(body) > 2 * body[0] + 2:
            bands = range(body[1 + 2 * body[0]], body[2 + 2 * body[0]] + 1)
            for component in body[1 : 1 + 2 * body[0] : 2]:
                if component in seen:
                    seen[component].update(bands)
    absent = [component for component, bands in seen.items() if len(bands) < _COEFFICIENTS]
    return f"scans of colour {absent[0]} are missing" if absent else ""


def _jpeg_headers(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the segments of a JPEG's first picture; of a scan, its header."""
    at = 2
    while (found := _MARKER.search(raw, at)) is not None and raw[found.start() + 1] != 0xD9:
        begin = found.start() + 2
        end = begin + int.from_bytes(raw[begin : begin + 2], "big")
        yield raw[begin - 1], raw[begin + 2 : end]
        at = max(end, begin)


def _of_png(raw: bytes) -> str:
    """Whether the pixels' stream ends early or is damaged. PNG (ISO/IEC 15948), 5.3, 8.2 and 10.

    Pillow does not look at their checksums: where the end of a file is zeros, it goes on with what they happen to mean.
    """
    chunks = list(png_chunks(raw))
    head = chunks[0][1][8:21] if chunks and chunks[0][0] == b"IHDR" else b""
    if len(head) < 13 or head[9] not in _PNG_CHANNELS:
        return ""
    width, height, bits = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big"), head[8]
    a_pixel = bits * _PNG_CHANNELS[head[9]]
    passes = _ADAM7 if head[12] else ((0, 0, 1, 1),)
    sizes = [(-(-(width - left) // across), -(-(height - upper) // down)) for left, upper, across, down in passes]
    wanted = sum(rows * (1 + -(-columns * a_pixel // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    there, stream = 0, zlib.decompressobj()
    for kind, chunk in chunks:
        if kind == b"IDAT" and not has_its_checksum(chunk):
            return "the checksum of its pixels is wrong"
        rest = chunk[8:-4] if kind == b"IDAT" else b""
        while rest and there < wanted and not stream.eof:
            there += len(stream.decompress(rest, _PART))
            rest = stream.unconsumed_tail
    return f"{100 * there // wanted} % of the pixels are there" if there < wanted else ""
