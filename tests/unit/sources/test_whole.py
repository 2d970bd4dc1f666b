"""Half a picture is a broken picture, whatever its decoder fills in; broken metadata costs no good pixel."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from zoo import chunk, deep_png, encoded, odd_exif, picture, ramp, turned, with_chunk, zoo

from taskgalaxy_ops.models.rendering import render, upright
from taskgalaxy_ops.records import Image, Reason
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources import inspecting
from taskgalaxy_ops.sources.inspecting import inspect

SETTINGS = IngestSettings(min_side=8)
NOISE = Pillow.fromarray(np.random.default_rng(3).integers(0, 256, (200, 300, 3), np.uint8))
SOFT = NOISE.resize((30, 20)).resize((300, 200), Pillow.Resampling.BICUBIC)
TRUNCATED = {Reason.TRUNCATED_FILE, Reason.UNREADABLE, Reason.NOT_AN_IMAGE}


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"restart": 4}])
@pytest.mark.parametrize("source", [NOISE, SOFT, SOFT.convert("L"), SOFT.convert("CMYK")])
def test_a_jpeg_of_which_a_part_is_missing_is_truncated(source: Pillow.Image, options: dict, share: float) -> None:
    restart = {"restart_marker_blocks": options["restart"]} if "restart" in options else options
    raw = encoded(source, "JPEG", quality=90, **restart)
    header = raw.index(b"\xff\xda") + 20
    cut = header + int(share * (len(raw) - header))
    for mended in (raw[:cut] + b"\xff\xd9", raw[:cut], raw[:cut] + bytes(200) + b"\xff\xd9"):
        found = inspect(mended, SETTINGS)
        assert isinstance(found, tuple) and found[0] in TRUNCATED, (len(raw), cut, found)
    assert isinstance(inspect(raw, SETTINGS), Image)


def test_a_progressive_jpeg_cut_between_two_scans_is_truncated() -> None:
    raw = encoded(SOFT, "JPEG", progressive=True)
    scans = [at for at in range(len(raw) - 1) if raw[at : at + 2] == b"\xff\xda"]
    tables = raw.index(b"\xff\xc4", scans[0])  # of the second scan
    for end in (scans[1], tables):
        found = inspect(raw[:end] + b"\xff\xd9", SETTINGS)
        assert isinstance(found, tuple) and "missing" in found[1], found


def test_a_jpeg_with_damage_inside_is_truncated() -> None:
    raw = bytearray(encoded(NOISE, "JPEG"))
    middle = len(raw) // 2
    raw[middle : middle + 400] = bytes(400)
    assert isinstance(inspect(bytes(raw), SETTINGS), tuple)


def png_of(rows: bytes, size: tuple[int, int], bits: int = 8, colours: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", *size, bits, colours, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_png_whose_stream_is_closed_early_is_truncated() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(NOISE))
    assert isinstance(inspect(png_of(rows, NOISE.size), SETTINGS), Image)
    for there in (len(rows) // 2, len(rows) - 1):
        found = inspect(png_of(rows[:there], NOISE.size), SETTINGS)
        assert isinstance(found, tuple) and found[0] == Reason.TRUNCATED_FILE, found
    grey = b"".join(b"\0" + bytes(5) for _ in range(40))  # 33 pixels of 1 bit
    assert isinstance(inspect(png_of(grey, (33, 40), 1, 0), SETTINGS), Image)
    assert isinstance(inspect(png_of(grey[:-3], (33, 40), 1, 0), SETTINGS), tuple)


def gif_with_codes_cut(raw: bytes, share: float) -> bytes:
    """A GIF whose first frame's blocks end early, with the end of the blocks and of the file as they must be."""
    at = raw.index(b"\x2c\0\0\0\0") + 10
    at += (3 << ((raw[at - 1] & 7) + 1) if raw[at - 1] & 0x80 else 0) + 1
    blocks = []
    while raw[at]:
        blocks.append(raw[at : at + 1 + raw[at]])
        at += 1 + raw[at]
    begin = raw.index(blocks[0])
    return raw[:begin] + b"".join(blocks[: max(1, int(share * len(blocks)))]) + b"\0\x3b"


@pytest.mark.parametrize("source", [NOISE, SOFT, Pillow.new("RGB", (300, 200), "red")])
@pytest.mark.parametrize("interlace", [False, True])
def test_a_gif_whose_codes_end_early_is_truncated(source: Pillow.Image, interlace: bool) -> None:
    raw = encoded(source.convert("P"), "GIF", interlace=interlace)
    assert isinstance(inspect(raw, SETTINGS), Image)
    for share in (0.2, 0.5, 0.9):
        if (cut := gif_with_codes_cut(raw, share)) != raw:
            assert isinstance(inspect(cut, SETTINGS), tuple), share
            assert isinstance(inspect(cut + raw, SETTINGS), tuple), "its decoder goes on behind its end"


def test_a_tiff_without_all_of_its_strips_is_truncated() -> None:
    raw = encoded(NOISE, "TIFF")
    whole = encoded(NOISE, "TIFF", tiffinfo={278: 20})  # rows a strip
    assert isinstance(inspect(raw, SETTINGS), Image) and isinstance(inspect(whole, SETTINGS), Image)
    with Pillow.open(io.BytesIO(whole)) as image:
        strips = len(image.tag_v2[273])
    fewer = without_strips(whole, strips // 2)
    found = inspect(fewer, SETTINGS)
    assert strips > 2 and isinstance(found, tuple) and found[0] in TRUNCATED, found


def without_strips(raw: bytes, kept: int) -> bytes:
    """A little-endian TIFF whose lists of strips are shortened."""
    found = bytearray(raw)
    at = int.from_bytes(raw[4:8], "little")
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(raw[at : at + 2], "little"), 12):
        if int.from_bytes(raw[entry : entry + 2], "little") in {273, 279}:
            found[entry + 4 : entry + 8] = kept.to_bytes(4, "little")
    return bytes(found)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "BMP", "TIFF", "PNG", "GIF", "JPEG2000", "TGA", "PPM", "PCX", "SGI"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_no_image(kind: str, share: float) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    raw = encoded(NOISE, kind, **options)
    found = inspect(raw[: int(share * len(raw))], SETTINGS)
    assert isinstance(found, tuple) and found[0] in TRUNCATED, found


# The other way round: good pixels, and metadata that is broken


def with_segment(jpeg: bytes, kind: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def broken_checksum(png: bytes, name: bytes) -> bytes:
    at = png.index(name)
    length = int.from_bytes(png[at - 4 : at], "big")
    found = bytearray(png)
    found[at + 4 + length] ^= 0xFF
    return bytes(found)


PNG, JPEG = encoded(SOFT, "PNG"), encoded(SOFT, "JPEG")
LONG = zlib.compress(bytes(3_000_000))
HARMLESS = {
    "png, broken eXIf": with_chunk(PNG, b"eXIf", b"no TIFF at all"),
    "png, eXIf cut off": with_chunk(PNG, b"eXIf", b"II*\0\x08\0\0\0\x09\0"),
    "png, a long text": with_chunk(PNG, b"zTXt", b"Comment\0\0" + LONG),
    "png, a long text of another kind": with_chunk(PNG, b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "png, a hundred long texts": PNG[:33]
    + 100 * chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000)))
    + PNG[33:],
    "png, a checksum of a text": broken_checksum(with_chunk(PNG, b"tEXt", b"Comment\0hello"), b"tEXt"),
    "png, a checksum of eXIf": broken_checksum(with_chunk(PNG, b"eXIf", b"II*\0\x08\0\0\0\0\0"), b"eXIf"),
    "png, a profile that is none": with_chunk(PNG, b"iCCP", b"x\0\0" + b"no zlib"),
    "png, a profile of another method": with_chunk(PNG, b"iCCP", b"x\0\7" + zlib.compress(b"y")),
    "png, a short gAMA": with_chunk(PNG, b"gAMA", b"\0"),
    "png, a short pHYs": with_chunk(PNG, b"pHYs", b"\0"),
    "png, a wrong acTL": with_chunk(PNG, b"acTL", b"\0"),
    "png, bytes behind it": PNG + b"and more" * 99,
    "jpeg, broken exif": with_segment(JPEG, 0xE1, b"Exif\0\0no TIFF at all"),
    "jpeg, exif cut off": with_segment(JPEG, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\x09\0"),
    "jpeg, broken profile": with_segment(JPEG, 0xE2, b"ICC_PROFILE\0\1\2nothing"),
    "jpeg, broken list of pictures": with_segment(
        JPEG, 0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0\1\xb0\x04\0\1\0\0\0\xff\xff\xff\xff"
    ),
    "jpeg, broken photoshop": with_segment(JPEG, 0xED, b"Photoshop 3.0\x008BIM\xff\xff\xff"),
    "jpeg, short adobe": with_segment(JPEG, 0xEE, b"Ad"),
    "jpeg, make as a rational": odd_exif(JPEG, 0x010F, 5),
    "jpeg, unit as a text": odd_exif(JPEG, 0x0128, 2),
    "jpeg, bytes behind it": JPEG + b"and more" * 99,
    "jpeg, another one behind it": JPEG + JPEG,
    "jpeg, padded before its end": JPEG[:-2] + bytes(300) + b"\xff\xd9",
    "webp, broken exif": encoded(SOFT, "WEBP", exif=b"no TIFF at all"),
    "webp, broken profile": encoded(SOFT, "WEBP", icc_profile=b"nothing"),
    "gif, bytes behind it": encoded(SOFT, "GIF") + b"and more" * 99,
    "bmp, bytes behind it": encoded(SOFT, "BMP") + b"and more" * 99,
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_broken_metadata_rejects_no_good_pixels(kind: str) -> None:
    found = inspect(HARMLESS[kind], SETTINGS)
    assert isinstance(found, Image), found
    assert (found.width, found.height) == upright(HARMLESS[kind]).size
    assert render(HARMLESS[kind], 64, 90, 28)


def test_orientation_survives_what_is_odd_beside_it() -> None:
    assert upright(odd_exif(JPEG, 0x010F, 5)).size == (200, 300)
    png = turned(SOFT, "PNG", 6)
    assert upright(broken_checksum(with_chunk(png, b"tEXt", b"Comment\0hello"), b"tEXt")).size == (200, 300)


@pytest.mark.parametrize("kind", zoo())
def test_all_of_the_zoo_is_taken(kind: str) -> None:
    found = inspect(zoo()[kind], SETTINGS)
    assert isinstance(found, Image), found


def test_an_image_says_at_which_levels_it_is_shown() -> None:
    assert inspect(deep_png(ramp(4095)), SETTINGS).levels == "0:4095"
    assert inspect(deep_png(ramp(65535)), SETTINGS).levels is inspect(PNG, SETTINGS).levels is None


class OddError(Exception):
    """What a decoder may raise that nobody foresaw."""


@pytest.mark.parametrize(
    "error", [OddError("?"), AttributeError("x"), RecursionError("deep"), AssertionError(), KeyError()]
)
def test_whatever_a_decoder_raises_is_the_files_reject(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(inspecting, "flat", fail)
    found = inspect(encoded(picture(), "PNG"), SETTINGS)
    assert isinstance(found, tuple) and found[0] == Reason.UNREADABLE and type(error).__name__ in found[1]
