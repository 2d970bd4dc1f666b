"""Random damage to metadata and bytes, over all formats: no file ends a scan or hangs it; each is an image or a reject.

FUZZ_FILES: how many files; `make fuzz` tries 10,000.
"""

from __future__ import annotations

import os
import random
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from zoo import chunk, encoded, picture, zoo

from taskgalaxy_ops.models.rendering import rendered, shown
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources import inspecting
from taskgalaxy_ops.sources.checking import scan
from taskgalaxy_ops.sources.inspecting import inspect
from taskgalaxy_ops.sources.listing import SourceFile
from taskgalaxy_ops.storage.scan_staging import ScanStaging

FILES = int(os.environ.get("FUZZ_FILES", "500"))
SETTINGS = IngestSettings(max_pixels=2_000_000, min_side=8)
LONGEST = 30  # seconds a file; a small one takes milliseconds

_FORMATS = (
    "PPM",
    "TGA",
    "PCX",
    "SGI",
    "ICO",
    "DIB",
    "IM",
    "MSP",
    "SPIDER",
    "XBM",
    "BLP",
    "DDS",
    "ICNS",
    "QOI",
    "PDF",
    "EPS",
)


def originals() -> list[bytes]:
    """Files of every format that Pillow writes, and the zoo's."""
    found = [raw for kind, raw in zoo().items() if not kind.startswith(("large", "thin"))]
    for kind in _FORMATS:
        for mode in ("RGB", "RGBA", "P", "L", "1", "F"):
            try:
                found.append(encoded(picture(64, 64).convert(mode), kind))
                break
            except (OSError, KeyError, ValueError):
                continue
    return found


def damaged(raw: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """The file with one or several kinds of damage."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        raw = rng.choice((_bytes, _bytes, _header, _cut, _spliced, _exif, _chunk, _segment, _doubled))(raw, rng, others)
    return raw


def _bytes(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    found = bytearray(raw or b"\0")
    for _ in range(rng.choice((1, 2, 8, 40))):
        found[rng.randrange(len(found))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(found)


def _header(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    found = bytearray(raw or b"\0")
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(min(len(found), rng.choice((40, 200, 1000))))
        found[at : at + 4] = rng.choice(
            (b"\xff\xff\xff\xff", b"\0\0\0\0", struct.pack("<I", rng.randrange(2**32)), b"\x7f")
        )
    return bytes(found)


def _cut(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    end = rng.randrange(len(raw) + 1)
    return raw[:end] + rng.choice((b"", b"\xff\xd9", b"\0\x3b", chunk(b"IEND", b""), rng.randbytes(30)))


def _spliced(raw: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    return raw[: rng.randrange(len(raw) + 1)] + other[rng.randrange(len(other)) :]


def _doubled(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    begin, length = rng.randrange(len(raw) + 1), rng.choice((1, 12, 100))
    return raw[: begin + length] + raw[begin:]


def _tiff(rng: random.Random) -> bytes:
    """EXIF of random tags, types and counts, most of them known ones."""
    order = rng.choice("<>")
    entries = b"".join(
        struct.pack(
            f"{order}HHI4s",
            rng.choice((0x112, 0x10F, 0x128, 0x8769, 0x8825, 0x11A, 0x132, 0x9286, 0xA005, rng.randrange(65536))),
            rng.randrange(20),
            rng.choice((0, 1, 2, 5, 1000, 2**31, 2**32 - 1)),
            rng.randbytes(4) if rng.random() < 0.5 else struct.pack(f"{order}I", rng.choice((6, 8, 40, 2**31))),
        )
        for _ in range(rng.randrange(9))
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return (
        head
        + struct.pack(f"{order}H", rng.choice((len(entries) // 12, 65535)))
        + entries
        + rng.randbytes(rng.randrange(60))
    )


def _exif(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    if raw.startswith(b"\x89PNG"):
        return raw[:33] + chunk(b"eXIf", _tiff(rng)) + raw[33:]
    if raw.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + _tiff(rng)
        return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + raw[2:]
    if raw.startswith(b"RIFF"):
        body = _tiff(rng)
        return raw + b"EXIF" + struct.pack("<I", len(body)) + body
    return raw


def _chunk(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    names = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"tRNS")
    body = rng.choice((b"", b"\0", b"name\0\0", rng.randbytes(30), b"x\0\0x\x9c" + rng.randbytes(9)))
    return (
        raw[:33] + chunk(rng.choice((*names, b"sBIT", b"PLTE")), body) + raw[33:] if raw.startswith(b"\x89PNG") else raw
    )


def _segment(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    heads = (
        b"MPF\0" + _tiff(rng),
        b"ICC_PROFILE\0" + rng.randbytes(9),
        b"Photoshop 3.0\x008BIM" + rng.randbytes(9),
        b"Adobe",
    )
    body = rng.choice((b"", rng.randbytes(40), *heads))
    kind = rng.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE))
    whole = bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body
    return raw[:2] + whole + raw[2:] if raw.startswith(b"\xff\xd8") else raw


@contextmanager
def at_most(seconds: int, number: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise KeyboardInterrupt(
            f"file {number} is still being decoded after {seconds} s"
        )  # no Exception: nobody catches it

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
def test_every_damaged_file_is_an_image_or_a_reject() -> None:
    others = originals()
    outcomes: Counter[str] = Counter()

    def file(number: int) -> bytes:
        rng = random.Random(f"fuzz {number}")
        return damaged(rng.choice(others), rng, others)

    for number in range(FILES):
        raw = file(number)
        with at_most(LONGEST, number):
            found = inspect(raw, SETTINGS)
            if raw.startswith(b"\xff\xd8"):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(inspecting, "_whole_jpeg", lambda *_: None)
                    assert inspect(raw, SETTINGS) == found, f"{number}: Pillow's decoder says otherwise"
            if isinstance(found, Image):
                outcomes["image"] += 1
                told = shown(raw)
                assert (told.width, told.height, told.levels) == (found.width, found.height, found.levels), number
                assert rendered(raw, 128, 80, 28), number
            else:
                outcomes[found[0]] += 1
                assert found[1] and len(found[1]) <= 200, number
    assert outcomes["image"] > FILES // 20 and outcomes.total() - outcomes["image"] > FILES // 5, outcomes

    with ScanStaging("mine") as staged:
        files = [SourceFile(name=str(number), read=partial(file, number)) for number in range(min(FILES, 60))]
        scan(files, staged, (), (), SETTINGS, lambda image, raw: None)
        assert staged.claims + staged.rejects == len(files)
