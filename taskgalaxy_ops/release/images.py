"""The images of a release: the unchanged files, and a few small ones for its card."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image as Pillow

from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.records import ImageId, PairId
from taskgalaxy_ops.release.select import Selection

_SIDE = 256  # pixels


def read_image(plan: Selection, image: ImageId) -> bytes:
    """Read an image's file. Raises DamageError if its bytes are not those of its id."""
    raw = plan.inputs.read_image(image)
    if sha256_hex(raw) != image:
        raise DamageError(f"image {image}: its bytes in the store are others (checksum). Run `taskgalaxy verify`.")
    return raw


def copied_image(plan: Selection, picture: int, image: ImageId) -> bytes:
    """The file of an image that the release contains; it is read from the store once, then from the plan's database."""
    kept = plan.rows.execute("SELECT raw FROM blobs WHERE picture = ?", (picture,)).fetchone()
    if kept:
        raw: bytes = kept[0]
        return raw
    raw = read_image(plan, image)
    plan.rows.execute("INSERT INTO blobs VALUES (?, ?)", (picture, raw))
    return raw


def thumbnail_path(pair: PairId) -> str:
    """The path of a sample's picture on the card, within the release."""
    return f"samples/{pair[:16]}.jpg"


def thumbnail_files(plan: Selection) -> Iterator[tuple[str, bytes]]:
    """Small JPEGs of the card's samples, upright and without EXIF."""
    for pair in plan.shown:
        small = upright(read_image(plan, pair.image))
        small.thumbnail((_SIDE, _SIDE), Pillow.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=85)
        yield thumbnail_path(pair.pair), out.getvalue()
