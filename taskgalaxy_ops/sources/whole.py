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

from taskgalaxy_ops.models.opening import png_chunks

# What libjpeg says where pixels are missing or damaged; its other warnings are about headers.
_DAMAGE = re.compile(r"corrupt jpeg data|premature end|inconsistent progression|bad huffman|invalid (scan|progressive)", re.I)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9", re.I)
_COEFFICIENTS = 64  # of a block
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # those of DCT; lossless ones have no bands
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8\x01]", re.DOTALL)
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CODES, _MOST_BITS = 4096, 12  # of GIF's LZW
_PART = 1 << 20  # bytes that are decompressed at once


def missing_part(raw: bytes, image: Image.Image) -> str:
    """What says that a part of the picture is missing; "" if nothing does. image: opened from ``raw``, and decoded."""
    if image.format in {"JPEG", "MPO"}:
        return _of_jpeg(raw)
    if image.format == "PNG":
        return _of_png(raw)
    if image.format == "GIF":
        return _of_gif(raw, image)
    return ""


def missing_tiles(image: Image.Image) -> str:
    """The same by the parts that a TIFF lists; image: opened, and not decoded yet."""
    if image.format != "TIFF":
        return ""
    there = sum((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in image.tile)
    planes = len({tile[3][0] if isinstance(tile[3], tuple) else tile[3] for tile in image.tile}) or 1
    whole = image.width * image.height
    return f"strips of {100 * there // (whole * planes)} % of the picture" if there < whole else ""


def _of_jpeg(raw: bytes) -> str:
    if absent := _absent_coefficients(raw):
        return absent
    for _ in range(3):
        try:
            simplejpeg.decode_jpeg(raw, "GRAY", fastdct=True, fastupsample=True, min_height=1, min_width=1, min_factor=1, strict=True)
            return ""
        except ValueError as error:
            said = str(error)
            filled = _EXTRANEOUS.search(said)
            if not filled:
                return said if _DAMAGE.search(said) else ""  # what it cannot decode at all, Pillow decoded
            end = raw.rfind(b"\xff\xd9")
            padding = raw[end - int(filled[1]) : end]
            if len(set(padding)) > 1:
                return said
            raw = raw[: end - int(filled[1])] + raw[end:]  # a camera's padding: what else is there to say?
    return ""


def _absent_coefficients(raw: bytes) -> str:
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
    """Whether the pixels' stream ends early. PNG (ISO/IEC 15948), 8.2 and 10."""
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
        rest = chunk[8:-4] if kind == b"IDAT" else b""
        while rest and there < wanted and not stream.eof:
            there += len(stream.decompress(rest, _PART))
            rest = stream.unconsumed_tail
    return f"{100 * there // wanted} % of the pixels are there" if there < wanted else ""


def _of_gif(raw: bytes, image: Image.Image) -> str:
    """Whether the first frame's codes end early. Counted only where its last rows are of one colour, as if unfilled."""
    at = 13 + _palette(raw[10])
    while at < len(raw) and raw[at] != 0x2C:
        at = _behind_blocks(raw, at + 2) if raw[at] == 0x21 else at + 1
    if at + 11 > len(raw):
        return ""
    left, upper, width, height = (int.from_bytes(raw[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
    tail = image.crop((left, max(upper, upper + height - 2), left + width, upper + height))
    if all(len(set(row)) > 1 for row in (tail.crop((0, n, width, n + 1)).tobytes() for n in range(tail.height))):
        return ""
    begin = at + 10 + _palette(raw[at + 9])
    there = _lzw_pixels(_blocks(raw, begin + 1), raw[begin], width * height)
    return f"{100 * there // (width * height)} % of the pixels are there" if there < width * height else ""


def _palette(flags: int) -> int:
    """Bytes of the palette that these flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_blocks(raw: bytes, at: int) -> int:
    while at < len(raw) and raw[at]:
        at += 1 + raw[at]
    return at + 1


def _blocks(raw: bytes, at: int) -> bytes:
    parts = []
    while at < len(raw) and raw[at]:
        parts.append(raw[at + 1 : at + 1 + raw[at]])
        at += 1 + raw[at]
    return b"".join(parts)


def _lzw_pixels(codes: bytes, bits: int, most: int) -> int:
    """How many pixels GIF's LZW codes stand for (GIF89a, appendix F); it stops at ``most``."""
    clear, room, held, there, before = 1 << bits, 0, 0, 0, 0
    lengths, size = [1] * clear + [0, 0], bits + 1
    for byte in codes:
        held |= byte << room
        room += 8
        while room >= size:
            code = held & ((1 << size) - 1)
            held, room = held >> size, room - size
            if code == clear:
                lengths, size, before = [1] * clear + [0, 0], bits + 1, 0
                continue
            if code == clear + 1 or there >= most:
                return there
            length = lengths[code] if code < len(lengths) else before + 1
            if before and len(lengths) < _CODES:
                lengths.append(before + 1)
                size += len(lengths) == 1 << size and size < _MOST_BITS
            there, before = there + length, length
    return there
