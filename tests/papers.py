"""Documents for tests: PDFs written by hand, so that each can be odd in its own way, and TIFFs of several pages."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

_PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_ID = bytes(16)


class Sheet(NamedTuple):
    """A page of a PDF: its size in points, and the operators that draw it."""

    width: float = 200
    height: float = 100
    drawn: str = ""


def striped(number: int, width: float = 200, height: float = 100) -> Sheet:
    """A page with a red bar, of another place for each number below 50."""
    return Sheet(width, height, f"1 0 0 rg {3 * number} 10 {width / 10:g} {height / 2:g} re f")


def pdf(sheets: Sequence[Sheet], password: str | None = None, count: int | None = None) -> bytes:
    """A PDF. password: that it needs ("": none, but it is encrypted all the same). count: the pages that it states."""
    entry = b"\0" * 32
    key = hashlib.md5(_pad(password or "") + entry + struct.pack("<i", -4) + _ID).digest()[:5]
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(sheets)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(sheets) if count is None else count} >>".encode(),
    ]
    for number, sheet in enumerate(sheets):
        box = f"/MediaBox [0 0 {sheet.width:g} {sheet.height:g}]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {4 + 2 * number} 0 R >>".encode())
        drawn = sheet.drawn.encode()
        if password is not None:
            own = key + (4 + 2 * number).to_bytes(3, "little") + b"\0\0"
            drawn = _rc4(hashlib.md5(own).digest()[:10], drawn)
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
    trailer = b"/Size %d /Root 1 0 R /ID [<%s> <%s>]" % (len(objects) + 1, _ID.hex().encode(), _ID.hex().encode())
    if password is not None:
        user = _rc4(key, _PAD).hex().encode()
        trailer += b" /Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>" % (entry.hex().encode(), user)
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return out + head + b"trailer << %s >>\nstartxref\n%d\n%%%%EOF\n" % (trailer, len(out))


def _pad(password: str) -> bytes:
    return (password.encode() + _PAD)[:32]


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j, out = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def tiff(frames: Sequence[Image.Image], **options: object) -> bytes:
    """A TIFF of several pages."""
    out = io.BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=list(frames[1:]), **options)
    return out.getvalue()
