"""Odd and broken files, each with the outcome that ingest is to give it. ``zoo`` has the good ones of usual kinds.

A name is a format and what is odd, with a colon between. ``table`` is what docs/reliability.md shows of them.
"""

from __future__ import annotations

import base64
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image
from zoo import chunk, deep_png, encoded, picture, ramp, turned, with_chunk, zoo

IMAGE = "image"
NOT, CUT, BAD, MANY, SMALL = "not an image", "truncated", "unreadable", "too many pixels", "too small"

HEIC = base64.b64decode(  # 64 x 48 pixels
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAFwAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    "bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAGRtZGF0AAAAWCgBrxOA5VzyrLL80y/sn8eiZf/FbwcFEErUQCAy"
    "uK4wy6NxGr+Rg7YrEkwBTz/fssEfAY2EC9Fyu22hfBGB/AezH+y9OdbKfQIPRy/7h8kdzd2zOOjakqY="
)


def noise(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """Colours that cannot be compressed away, so that half of a file is half of the picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@cache
def formats() -> dict[str, bytes]:
    """A good file of each format that is read."""
    rgb, grey = noise(), noise().convert("L")
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg, progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg, grey": encoded(grey, "JPEG"),
        "jpeg, cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "png": encoded(rgb, "PNG"),
        "png, 16 bits": deep_png(ramp(65535) + np.random.default_rng(0).integers(0, 99, (64, 96))),
        "png, palette": encoded(rgb.convert("P"), "PNG"),
        "webp": encoded(rgb, "WEBP"),
        "webp, lossless": encoded(rgb, "WEBP", lossless=True),
        "gif": encoded(rgb, "GIF"),
        "bmp": encoded(rgb, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff, lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff, deflate": encoded(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff, jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "avif": encoded(rgb, "AVIF"),
        "heic": HEIC,
        "jpeg 2000": encoded(rgb, "JPEG2000"),
        "jpeg 2000, codestream": encoded(rgb, "JPEG2000", no_jp2=True),
        "ppm": encoded(rgb, "PPM"),
        "tga": encoded(rgb, "TGA"),
    }


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda raw: raw,
    "bytes behind it": lambda raw: raw + b"SECRET" * 9,
    "half of it": lambda raw: raw[: len(raw) // 2],
    "nine tenths of it": lambda raw: raw[: 9 * len(raw) // 10],
    "its first 16 bytes": lambda raw: raw[:16],
    "zeros in its first bytes": lambda raw: bytes(16) + raw[16:],
    "zeros in its second half": lambda raw: raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2),
    "a text before it": lambda raw: b"HTTP/1.1 200 OK\r\n\r\n" + raw,
}


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def head(width: int, height: int, bits: int = 8, colours: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlace))


_END = chunk(b"IEND", b"")


def _rows(width: int = 40, height: int = 40) -> bytes:
    return zlib.compress((b"\0" + bytes(3 * width)) * height)


def tiff(
    entries: dict[int, tuple[int, int, int]], data: bytes = bytes(4800), following: int = 0, order: str = "<"
) -> bytes:
    """A TIFF of one directory: of each tag its type, count and value; 0 in the place of an offset is the data's."""
    begin = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(
        struct.pack(f"{order}HHII", tag, kind, count, begin if tag == 273 and not value else value)
        if order == "<" or kind != 3
        else struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)
        for tag, (kind, count, value) in sorted(entries.items())
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(entries)) + body + struct.pack(f"{order}I", following) + data


def _tags(**changes: tuple[int, int, int] | None) -> dict[int, tuple[int, int, int]]:
    """Tags of 40 x 40 pixels in grey, 8 bits; changes by number, as ``t256``; None: left out."""
    tags: dict[int, tuple[int, int, int] | None] = {
        256: (4, 1, 40), 257: (4, 1, 40), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 0),
        277: (3, 1, 1), 278: (4, 1, 40), 279: (4, 1, 1600),
    }  # fmt: skip
    tags |= {int(name[1:]): value for name, value in changes.items()}
    return {tag: value for tag, value in tags.items() if value is not None}


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(raw: bytes, *segments: bytes) -> bytes:
    """A JPEG with further segments behind its first two bytes."""
    return raw[:2] + b"".join(segments) + raw[2:]


def _sized(jpeg: bytes, width: int, height: int, bits: int = 8) -> bytes:
    """A JPEG whose frame says another size."""
    at = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:at] + struct.pack(">BHH", bits, height, width) + jpeg[at + 5 :]


def _jpegs() -> Iterator[tuple[str, bytes, str]]:
    raw = encoded(noise(), "JPEG")
    soft = encoded(picture(), "JPEG")
    middle = len(raw) // 2
    yield "cut, and an end put behind", raw[:middle] + b"\xff\xd9", CUT
    yield "cut, padded with zeros, and an end", raw[:middle] + bytes(500) + b"\xff\xd9", CUT
    yield "no end, but every pixel", soft[:-2], CUT
    yield "two beginnings", b"\xff\xd8" + raw, BAD
    yield "fill bytes before a segment", raw[:2] + b"\xff\xff\xff" + raw[2:], IMAGE
    yield "its pixels' tables left out", raw.replace(b"\xff\xc4", b"\xff\xfe"), IMAGE
    yield "its quantization left out", raw.replace(b"\xff\xdb", b"\xff\xfe"), BAD
    yield "no frame", raw.replace(b"\xff\xc0", b"\xff\xfe"), NOT
    yield "12 bits a sample", _sized(raw, 96, 64, 12), NOT
    yield "0 pixels high", _sized(raw, 96, 0), NOT
    yield "twice as high as its pixels", _sized(raw, 96, 128), CUT
    yield "65,500 by 65,500 pixels said", _sized(raw, 65_500, 65_500), MANY
    yield "arithmetic coding said", raw.replace(b"\xff\xc0", b"\xff\xc9"), CUT
    yield "lossless said", raw.replace(b"\xff\xc0", b"\xff\xc3"), BAD
    yield "zeros among its pixels", raw[:middle] + bytes(300) + raw[middle + 300 :], CUT
    yield (
        "its last refinement left out",
        (lambda p: p[: p.rindex(b"\xff\xda")] + b"\xff\xd9")(encoded(noise(), "JPEG", progressive=True)),
        IMAGE,
    )
    yield "restart markers", encoded(noise(), "JPEG", restart_marker_blocks=2), IMAGE
    yield "a comment that is a page", jpeg_with(raw, segment(0xFE, b"<script>alert(1)</script>")), IMAGE
    yield "a hundred comments", jpeg_with(raw, *[segment(0xFE, b"x" * 60_000)] * 100), IMAGE
    yield "a segment longer than the file", raw[:2] + b"\xff\xe5\xff\xff" + b"x" * 9, CUT
    yield "EXIF of random bytes", jpeg_with(raw, segment(0xE1, b"Exif\0\0" + noise(8, 8).tobytes())), IMAGE
    yield (
        "EXIF that refers to itself",
        jpeg_with(raw, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0")),
        IMAGE,
    )
    yield "orientation 9", turned(picture(), "JPEG", 9), IMAGE
    yield "orientation 6 of a thin one", turned(picture(96, 31), "JPEG", 6), SMALL
    yield "a colour profile of random bytes", encoded(picture(), "JPEG", icc_profile=noise(40, 40).tobytes()), IMAGE
    yield "XMP that is no XML", encoded(picture(), "JPEG", xmp=b"\xff<<<"), IMAGE
    yield "a list of pictures of random bytes", jpeg_with(raw, segment(0xE2, b"MPF\0" + noise(8, 8).tobytes())), IMAGE
    yield "Adobe's marker cut", jpeg_with(raw, segment(0xEE, b"Adobe")), NOT
    yield "stored as RGB", encoded(noise(), "JPEG", keep_rgb=True), IMAGE
    yield "two pictures", encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=1)]), IMAGE
    yield (
        "two pictures, the second cut",
        encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])[:-2000],
        IMAGE,
    )


def _pngs() -> Iterator[tuple[str, bytes, str]]:
    raw, rows = encoded(noise(), "PNG"), chunk(b"IDAT", _rows())
    yield "bomb over the bound", png(head(8000, 8000), rows, _END), MANY
    yield "bomb that Pillow refuses to open", png(head(60_000, 60_000), rows, _END), MANY
    yield "2,147,483,647 pixels wide", png(head(2**31 - 1, 40), rows, _END), MANY
    yield "no pixels at all", png(head(40, 40), _END), BAD
    yield "0 pixels wide", png(head(0, 40), rows, _END), NOT
    yield "no end", raw[:-12], IMAGE
    yield "one byte short of its pixels", raw[:-21], CUT
    yield "a stream that is closed early", png(head(40, 80), rows, _END), CUT
    yield "a stream with more than the pixels", png(head(40, 40), chunk(b"IDAT", _rows(40, 400)), _END), IMAGE
    yield (
        "a stream with 128 MB more",
        png(head(40, 40), chunk(b"IDAT", zlib.compress(bytes(121 * 40) + bytes(1 << 27))), _END),
        IMAGE,
    )
    yield "a wrong checksum of pixels", raw[:60] + bytes([raw[60] ^ 255]) + raw[61:], BAD
    yield "a wrong checksum of its header", raw[:29] + bytes(4) + raw[33:], NOT
    yield "a chunk of 4 GB said", raw[:33] + b"\xff\xff\xff\xffIDAT" + raw[41:], CUT
    yield "no header", png(rows, _END), NOT
    yield "two headers", png(head(40, 40), head(90, 90), rows, _END), CUT
    yield "no palette", png(head(40, 40, 8, 3), chunk(b"IDAT", zlib.compress(bytes(41 * 40))), _END), IMAGE
    yield (
        "a palette of one colour",
        png(
            head(40, 40, 8, 3),
            chunk(b"PLTE", b"abc"),
            chunk(b"IDAT", zlib.compress((b"\0" + bytes([9] * 40)) * 40)),
            _END,
        ),
        IMAGE,
    )
    yield "5 bits a sample", png(head(40, 40, 5, 0), rows, _END), NOT
    yield "colours of type 7", png(head(40, 40, 8, 7), rows, _END), NOT
    yield "a row's filter of type 9", png(head(40, 40), chunk(b"IDAT", zlib.compress(b"\x09" * 121 * 40)), _END), BAD
    yield "a text of 100 MB, compressed", with_chunk(raw, b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20))), IMAGE
    yield "a colour profile of 100 MB", with_chunk(raw, b"iCCP", b"a\0\0" + zlib.compress(bytes(100 << 20))), IMAGE
    yield "a text with a wrong checksum", raw[:33] + chunk(b"tEXt", b"a\0b")[:-4] + bytes(4) + raw[33:], IMAGE
    yield "an unknown chunk that matters", with_chunk(raw, b"ABCD", b"?"), IMAGE
    yield "half clear", encoded(_clear(), "PNG"), IMAGE
    yield "grey with alpha", encoded(_clear().convert("LA"), "PNG"), IMAGE
    yield "1 bit a pixel", encoded(noise().convert("1"), "PNG"), IMAGE
    yield "animated", encoded(noise(), "PNG", save_all=True, append_images=[noise(seed=1)]), IMAGE
    yield "frames said, and none there", with_chunk(raw, b"acTL", struct.pack(">II", 99, 0)), IMAGE
    yield "4,000 by 32 pixels", encoded(noise(4000, 32), "PNG"), IMAGE
    yield "31 pixels high", encoded(noise(100, 31), "PNG"), SMALL
    yield "one pixel", encoded(noise(1, 1), "PNG"), SMALL


def _clear() -> Image.Image:
    image = noise()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _gifs() -> Iterator[tuple[str, bytes, str]]:
    raw = encoded(noise().convert("P"), "GIF")
    frames = [noise(seed=seed) for seed in range(1, 9)]
    yield "no frame", raw[: raw.index(b"\x2c\0\0\0\0")] + b"\x3b", NOT
    yield "a screen of 65,535 by 65,535", raw[:6] + b"\xff\xff\xff\xff" + raw[10:], MANY
    yield "codes of 15 bits", raw.replace(b"\x08\xff", b"\x0f\xff", 1), BAD
    yield "a clear colour", encoded(noise().convert("P"), "GIF", transparency=3), IMAGE
    yield "interlaced", encoded(noise().convert("P"), "GIF", interlace=True), IMAGE
    yield "animated", encoded(noise(), "GIF", save_all=True, append_images=frames), IMAGE
    yield (
        "animated, cut in its third frame",
        (lambda whole: whole[: len(whole) // 3])(encoded(noise(), "GIF", save_all=True, append_images=frames)),
        IMAGE,
    )
    yield (
        "a thousand frames",
        encoded(
            noise(40, 40).convert("P"),
            "GIF",
            save_all=True,
            append_images=[noise(40, 40, seed).convert("P") for seed in (1, 2, 3)] * 333,
        ),
        IMAGE,
    )


def _webps() -> Iterator[tuple[str, bytes, str]]:
    raw = encoded(noise(), "WEBP")
    yield "its frame's start code broken", raw.replace(b"\x9d\x01\x2a", b"\0\0\0"), BAD
    yield "a container with no frame", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x3f\0\0\x3f\0\0", BAD
    yield "a length longer than the file", raw[:4] + struct.pack("<I", len(raw) + 900) + raw[8:], IMAGE
    yield "a canvas of 16,384 by 16,384", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0", MANY
    yield "half clear", encoded(_clear(), "WEBP"), IMAGE
    yield "animated", encoded(noise(), "WEBP", save_all=True, append_images=[noise(seed=1)]), IMAGE


def _bmps() -> Iterator[tuple[str, bytes, str]]:
    raw = encoded(noise(), "BMP")
    yield "100,000 by 100,000 pixels said", raw[:18] + struct.pack("<ii", 100_000, 100_000) + raw[26:], MANY
    yield "upside down", raw[:22] + struct.pack("<i", -64) + raw[26:], IMAGE
    yield "1 bit a pixel", encoded(noise().convert("1"), "BMP"), IMAGE
    yield "a palette", encoded(noise().convert("P"), "BMP"), IMAGE
    yield "3 bits a pixel", raw[:28] + b"\x03\0" + raw[30:], BAD
    yield "an unknown compression", raw[:30] + b"\x09\0\0\0" + raw[34:], BAD
    yield "a header of 7 bytes", raw[:14] + b"\x07\0\0\0" + raw[18:], BAD


def _tiffs() -> Iterator[tuple[str, bytes, str]]:
    yield "written by hand", tiff(_tags()), IMAGE
    yield "big-endian", tiff(_tags(), order=">"), IMAGE
    yield "a million by a million pixels", tiff(_tags(t256=(4, 1, 10**6), t257=(4, 1, 10**6))), MANY
    yield "0 pixels wide", tiff(_tags(t256=(4, 1, 0))), NOT
    yield "no width", tiff(_tags(t256=None)), NOT
    yield "no strips", tiff(_tags(t273=None, t279=None)), NOT
    yield "a strip behind the end", tiff(_tags(t273=(4, 1, 900_000))), CUT
    yield "half of the rows in strips", tiff(_tags(t278=(4, 1, 20), t279=(4, 1, 800))), CUT
    yield "an unknown compression", tiff(_tags(t259=(3, 1, 999))), NOT
    yield "99 bits a sample", tiff(_tags(t258=(3, 1, 99))), NOT
    yield "a directory that follows itself", tiff(_tags(), following=8), IMAGE
    yield "a directory behind the end", tiff(_tags(), following=900_000), IMAGE
    yield "a directory of 65,535 entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(100), NOT
    yield "no directory", b"II*\0\0\0\0\0" + bytes(50), NOT
    yield "fax, group 4", encoded(noise().convert("1"), "TIFF", compression="group4"), IMAGE
    yield "12 of 16 bits", encoded(Image.fromarray(ramp(4095).astype(np.uint16)), "TIFF"), IMAGE
    yield "floats", encoded(Image.fromarray(ramp(1).astype(np.float32)), "TIFF"), IMAGE
    yield "nothing but NaN", encoded(Image.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF"), IMAGE
    yield "Lab", encoded(noise().convert("LAB"), "TIFF"), IMAGE
    yield "CMYK", encoded(noise().convert("CMYK"), "TIFF"), IMAGE
    yield "several pages", encoded(noise(), "TIFF", save_all=True, append_images=[noise(50, 90)]), IMAGE
    yield (
        "several pages, the second cut",
        (lambda whole: whole[: len(whole) * 3 // 4])(
            encoded(noise(), "TIFF", save_all=True, append_images=[noise(seed=1)])
        ),
        IMAGE,
    )


def _others() -> Iterator[tuple[str, bytes, str]]:
    """What is no image, or of a kind that is not wanted; the name is the whole name."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", encoded(noise(), "PNG"))
    yield "nothing: an empty file", b"", NOT
    yield "nothing: zeros", bytes(5000), NOT
    yield "nothing: random bytes", noise().tobytes(), NOT
    yield "text: plain", b"this is a text that somebody called photo.jpg", NOT
    yield "text: a page of errors", b"<!doctype html><title>404</title>", NOT
    yield "text: JSON", b'{"error": "rate limited"}', NOT
    yield "text: a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", NOT
    yield "svg: a drawing", b"<svg xmlns='http://www.w3.org/2000/svg'/>", NOT
    yield "svg: one that refers to itself", b"<!DOCTYPE x [<!ENTITY a '&a;'>]><svg>&a;</svg>", NOT
    yield "pdf: a document", b"%PDF-1.7\n%%EOF", NOT
    yield "eps: a program", encoded(noise(), "EPS"), BAD
    yield "zip: with an image inside", archive.getvalue(), NOT
    yield "mp4: a film", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(500), NOT
    yield "ico: an icon", encoded(noise(64, 64), "ICO"), IMAGE
    yield "pcx: old", encoded(noise(), "PCX"), IMAGE
    yield "qoi: new", encoded(noise(), "QOI"), IMAGE
    yield "dds: a texture", encoded(noise(64, 64), "DDS"), IMAGE
    yield "ppm: 999,999 by 999,999 pixels said", b"P6 999999 999999 255\n" + bytes(99), MANY
    yield "jpeg 2000: 100,000 by 100,000 pixels said", _large_jp2(), MANY
    yield "jpeg 2000: half clear", encoded(_clear(), "JPEG2000"), IMAGE
    yield "jpeg 2000: 16 bits", encoded(Image.fromarray(ramp(65535).astype(np.uint16)), "JPEG2000"), IMAGE
    yield "avif: half clear", encoded(_clear(), "AVIF"), IMAGE
    yield "avif: animated", encoded(noise(), "AVIF", save_all=True, append_images=[noise(seed=1)]), IMAGE


def _large_jp2() -> bytes:
    raw = encoded(noise(), "JPEG2000")
    at = raw.index(b"ihdr") + 4
    return raw[:at] + struct.pack(">II", 100_000, 100_000) + raw[at + 8 :]


# What damage does to a file.
_USUAL = {
    "whole": IMAGE,
    "bytes behind it": IMAGE,
    "half of it": CUT,
    "nine tenths of it": CUT,
    "its first 16 bytes": CUT,
    "zeros in its first bytes": NOT,
    "zeros in its second half": CUT,
    "a text before it": NOT,
}
# What it does to files of a format, where it is something else. Formats without any checksum do not tell zeros from
# black; a TIFF, AVIF or HEIC may have its directory in the part that is lost; OpenJPEG does not say why it stops.
_ELSE: dict[str, dict[str, str]] = {
    "half of it": dict.fromkeys(("tiff, lzw", "tiff, deflate", "tiff, jpeg", "avif", "heic"), NOT)
    | dict.fromkeys(("jpeg 2000", "jpeg 2000, codestream"), BAD),
    "its first 16 bytes": dict.fromkeys(
        ("gif", "bmp", "tga", "webp", "webp, lossless", "avif", "heic", "jpeg 2000, codestream"), NOT
    )
    | dict.fromkeys(("tiff", "tiff, lzw", "tiff, deflate", "tiff, jpeg"), NOT)
    | {"jpeg 2000": BAD},
    "zeros in its second half": dict.fromkeys(("webp", "webp, lossless", "bmp", "tiff", "avif", "ppm", "tga"), IMAGE)
    | dict.fromkeys(("tiff, lzw", "tiff, deflate", "tiff, jpeg", "heic"), NOT)
    | dict.fromkeys(("png", "jpeg 2000", "jpeg 2000, codestream"), BAD),
}
_ELSE["nine tenths of it"] = _ELSE["half of it"] | {"heic": CUT}


@cache
def odd_files() -> dict[str, tuple[bytes, str]]:
    """Files by what is odd about them, each with the outcome that it is to have: "image", or the reject's reason."""
    found = {f"{kind}: as usual": (raw, IMAGE) for kind, raw in zoo().items() if "tiny" not in kind}
    for kind, raw in formats().items():
        for damage, damaged in _DAMAGE.items():
            found[f"{kind}: {damage}"] = damaged(raw), _ELSE.get(damage, {}).get(kind, _USUAL[damage])
    groups = {"jpeg": _jpegs, "png": _pngs, "gif": _gifs, "webp": _webps, "bmp": _bmps, "tiff": _tiffs}
    for kind, group in groups.items():
        found |= {f"{kind}: {what}": (raw, outcome) for what, raw, outcome in group()}
    return found | {name: (raw, outcome) for name, raw, outcome in _others()}


def table() -> str:
    """What docs/reliability.md shows: a row for each oddity and outcome, with the formats that it was tried on."""
    rows: dict[str, dict[str, list[str]]] = {}
    for name, (_, outcome) in odd_files().items():
        kind, _, what = name.partition(": ")
        if what != "as usual":
            rows.setdefault(what, {}).setdefault(outcome, []).append(kind)
    lines = [
        f"| {what} | {'; '.join(kinds)} | {outcome} |"
        for what, outcomes in rows.items()
        for outcome, kinds in outcomes.items()
    ]
    return "\n".join(["| what is odd | in | outcome |", "|---|---|---|", *lines])
