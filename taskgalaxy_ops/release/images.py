"""The images of a release: the pictures that the teacher was sent, or the sources' files; small ones for its card."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from PIL import Image as Pillow

from taskgalaxy_ops.errors import DamageError, TaskGalaxyError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import altered, rendered_for, upright
from taskgalaxy_ops.records import ImageId, PairId
from taskgalaxy_ops.release.rows import Sample, SampleImage
from taskgalaxy_ops.release.select import Selection

_SIDE = 256  # pixels
_GAP = 8  # pixels
_AT_ONCE = 8  # images that are rendered together at most; decoders and encoders let other threads work
_PART = 1000  # images that wait for a thread


def read_image(plan: Selection, image: ImageId, content: str) -> bytes:
    """Read an image's file. Raises DamageError if ``content`` is not its sha256."""
    raw = plan.inputs.read_image(image)
    if sha256_hex(raw) != content:
        raise DamageError(f"image {image}: its bytes in the store are others (checksum). Run `taskgalaxy verify`.")
    return raw


def released_image(plan: Selection, image: ImageId, content: str) -> tuple[bytes, list[str]]:
    """An image as the release has it, and in what the teacher was shown it otherwise than its file has it.

    content: its file's sha256. Raises DamageError as ``read_image``, and for a file that cannot be decoded any more.
    """
    raw = read_image(plan, image, content)
    teacher = plan.inputs.teacher
    try:
        otherwise = altered(raw, teacher)
        if plan.settings.images == "original":
            return raw, otherwise
        return plan.inputs.rendition(image, raw) if plan.inputs.rendition else rendered_for(raw, teacher), otherwise
    except TaskGalaxyError:
        raise
    except Exception as error:  # a newer decoder refuses what the one took that checked the file
        raise DamageError(
            f"image {image}: its file cannot be decoded any more ({error!r}). Install the versions that the store was "
            "made with, or take the image down."
        ) from error


def fetch(plan: Selection, samples: Iterable[Sample]) -> None:
    """Read the images of these samples that the release contains, several at once, into the plan's database."""
    if plan.inputs.released is not None:
        return
    wanted = {
        each.picture: each.image
        for sample in samples
        if sample.size or sample.further
        for each in sample.images
        if each.size
    }
    there = "SELECT 1 FROM blobs WHERE picture = ?"
    _keep(plan, [each for each in sorted(wanted.items()) if not plan.rows.execute(there, each[:1]).fetchone()])


def _keep(plan: Selection, wanted: Sequence[tuple[int, ImageId]]) -> None:
    contents = [plan.content(picture) for picture, _ in wanted]
    with _threads() as pool:
        made = pool.map(partial(released_image, plan), [image for _, image in wanted], contents)
        for (picture, _), (raw, otherwise) in zip(wanted, made, strict=True):
            plan.rows.execute("INSERT INTO blobs VALUES (?, ?)", (picture, raw))
            plan.rows.executemany("INSERT INTO altered VALUES (?, ?)", [(picture, what) for what in otherwise])


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1))


def copied_image(plan: Selection, picture: int, image: ImageId) -> bytes:
    """An image that the release contains; it is read from the store once, then from the plan's database."""
    if plan.inputs.released is not None:
        return plan.inputs.released(image)
    kept = plan.rows.execute("SELECT raw FROM blobs WHERE picture = ?", (picture,)).fetchone()
    if kept:
        raw: bytes = kept[0]
        return raw
    _keep(plan, [(picture, image)])
    return copied_image(plan, picture, image)


def image_bytes(plan: Selection, sample: Sample) -> list[bytes | None]:
    """A sample's images, in the order of its locations; None: it is only referred to."""
    return [copied_image(plan, each.picture, each.image) if each.size else None for each in sample.images]


def write_referred(plan: Selection) -> None:
    """See to it that the pictures to which the release refers are in the store."""
    if (refer := plan.inputs.refer) is None:
        return
    referred = iter(plan.referred())
    with _threads() as pool:
        while part := list(islice(referred, _PART)):
            for _ in pool.map(refer, part):
                pass


def thumbnail_path(pair: PairId) -> str:
    """The path of a sample's picture on the card, within the release."""
    return f"samples/{pair[:16]}.jpg"


def thumbnail_files(plan: Selection) -> Iterator[tuple[str, bytes]]:
    """Small JPEGs of the card's samples, upright and without EXIF; of a sample about several images, side by side."""
    for pair in plan.shown:
        small = side_by_side([_small(plan, image) for image in pair.images])
        out = io.BytesIO()
        small.save(out, "JPEG", quality=85)
        yield thumbnail_path(pair.pair), out.getvalue()


def _small(plan: Selection, image: SampleImage) -> Pillow.Image:
    if image.size:
        raw = copied_image(plan, image.picture, image.image)
    else:
        raw, _ = released_image(plan, image.image, plan.content(image.picture))
    small = upright(raw)
    small.thumbnail((_SIDE, _SIDE), Pillow.Resampling.LANCZOS)
    small.info.clear()  # a comment would be saved again
    return small


def in_a_row(jpegs: Sequence[bytes]) -> bytes:
    """JPEGs side by side as one; one alone, byte for byte."""
    if len(jpegs) == 1:
        return jpegs[0]
    out = io.BytesIO()
    side_by_side([upright(jpeg) for jpeg in jpegs]).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def side_by_side(images: Sequence[Pillow.Image]) -> Pillow.Image:
    """Pictures in a row, on white; one alone stays as it is."""
    if len(images) == 1:
        return images[0]
    width = sum(image.width for image in images) + _GAP * (len(images) - 1)
    row, left = Pillow.new("RGB", (width, max(image.height for image in images)), "white"), 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + _GAP
    return row
