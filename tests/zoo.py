"""Image files of every kind that ingest takes: orientations, alphas, depths, palettes, CMYK, frames, thin, tiny."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

SIZE = (96, 64)


def picture(width: int = SIZE[0], height: int = SIZE[1], seed: int = 0) -> Image.Image:
    """Soft colours with a corner that tells how it is turned."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    found = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    found.paste("white", (0, 0, width // 4, height // 4))
    return found


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(image: Image.Image, kind: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "taken at home"
    return encoded(image, kind, exif=exif, **options)


def ramp(top: int, bottom: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    """Grey values from ``bottom`` to ``top``, left to right."""
    return np.tile(np.linspace(bottom, top, size[0]), (size[1], 1))


def deep_png(values: np.ndarray[Any, Any], significant: int | None = None) -> bytes:
    """A PNG of 16-bit grey; ``significant``: what its sBIT says."""
    raw = encoded(Image.fromarray(values.astype(np.uint16)), "PNG")
    return raw if significant is None else with_chunk(raw, b"sBIT", bytes([significant]))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with a further chunk behind its header."""
    return png[:33] + chunk(name, body) + png[33:]


def odd_exif(jpeg: bytes, tag: int, kind: int) -> bytes:
    """A JPEG with orientation 6 and an EXIF tag of a type that it does not have."""
    entries = sorted(
        [struct.pack("<HHI4s", 0x0112, 3, 1, b"\x06\0\0\0"), struct.pack("<HHI4s", tag, kind, 1, struct.pack("<I", 60))]
    )
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + b"".join(entries) + b"\0\0\0\0" + b"\1\0\0\0" * 20
    payload = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


@cache
def zoo() -> dict[str, bytes]:
    """Files by what is special about them, each good."""
    rgb = picture()
    clear = rgb.copy()
    clear.putalpha(Image.linear_gradient("L").resize(SIZE))

    def more() -> list[Image.Image]:
        return [picture(seed=1), picture(seed=2)]

    files = {kind: encoded(rgb, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")}
    files |= {
        f"{kind}, turned {n}": turned(rgb, kind, n) for kind in ("JPEG", "PNG", "WEBP", "TIFF") for n in range(1, 9)
    }
    files |= {
        "jpeg, progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg, grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg, cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg, stored as rgb": encoded(rgb, "JPEG", keep_rgb=True),
        "jpeg, two pictures": encoded(rgb, "MPO", save_all=True, append_images=more()),
        "jpeg, make as a rational": odd_exif(encoded(rgb, "JPEG"), 0x010F, 5),
        "jpeg, resolution unit as a text": odd_exif(encoded(rgb, "JPEG"), 0x0128, 2),
        "jpeg, bytes behind it": encoded(rgb, "JPEG") + b"SECRET" * 9,
        "tiff, cmyk": encoded(rgb.convert("CMYK"), "TIFF"),
        "tiff, lab": encoded(rgb.convert("LAB"), "TIFF"),
        "tiff, two pages": encoded(rgb, "TIFF", save_all=True, append_images=more()),
        "tiff, lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff, 16 bits": encoded(Image.fromarray(ramp(65535).astype(np.uint16)), "TIFF"),
        "tiff, 16 bits, 12 of them used": encoded(Image.fromarray(ramp(4095).astype(np.uint16)), "TIFF"),
        "tiff, float": encoded(Image.fromarray(ramp(1000).astype(np.float32)), "TIFF"),
        "tiff, float of 1": encoded(Image.fromarray((ramp(1000) / 1000).astype(np.float32)), "TIFF"),
        "tiff, below zero": encoded(Image.fromarray(ramp(3000, -1000).astype(np.int32)), "TIFF"),
        "png, rgba": encoded(clear, "PNG"),
        "png, grey with alpha": encoded(clear.convert("LA"), "PNG"),
        "png, one colour clear": encoded(rgb, "PNG", transparency=rgb.getpixel((50, 50))),
        "png, palette": encoded(rgb.convert("P"), "PNG"),
        "png, palette, half clear": encoded(rgb.convert("P"), "PNG", transparency=bytes(range(256))),
        "png, black and white": encoded(rgb.convert("1"), "PNG"),
        "png, 16 bits": deep_png(ramp(65535)),
        "png, 16 bits, 12 of them used": deep_png(ramp(4095)),
        "png, 16 bits, 12 of them said": deep_png(ramp(3000), 12),
        "png, 16 bits, turned": turned(Image.fromarray(ramp(1000).astype(np.uint16)), "PNG", 6),
        "png, interlaced": _interlaced(rgb),
        "png, animated": encoded(rgb, "PNG", save_all=True, append_images=more()),
        "gif, clear": encoded(rgb.convert("P"), "GIF", transparency=3),
        "gif, animated": encoded(rgb, "GIF", save_all=True, append_images=more()),
        "webp, clear": encoded(clear, "WEBP"),
        "webp, lossless": encoded(rgb, "WEBP", lossless=True),
        "webp, animated": encoded(rgb, "WEBP", save_all=True, append_images=more()),
        "avif, clear": encoded(clear, "AVIF"),
        "thin": encoded(picture(1600, 40), "PNG"),
        "thin, jpeg": encoded(picture(40, 1600), "JPEG"),
        "thin, turned": turned(picture(1600, 40), "JPEG", 6),
        "tiny": encoded(picture(20, 24), "PNG"),
        "tiny, jpeg": encoded(picture(20, 24), "JPEG", quality=60),
        "large": encoded(picture(900, 700), "PNG"),
        "large, jpeg": encoded(picture(900, 700), "JPEG"),
    }
    return files


def _interlaced(image: Image.Image) -> bytes:
    """A PNG in Adam7's seven passes, which Pillow does not write."""
    pixels = np.asarray(image)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [b"\0" + row.tobytes() for left, upper, across, down in passes for row in pixels[upper::down, left::across]]
    head = struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
