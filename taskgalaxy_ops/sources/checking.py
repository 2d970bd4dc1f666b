"""Check the files of a source: each is decoded to its last pixel, so that an image which passes will not fail later.

A file that does not pass becomes a reject with a reason; it never stops the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterable

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from taskgalaxy_ops.errors import NotFoundError, SourceError, StoreError, UnreadableError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.depth import changed_levels
from taskgalaxy_ops.models.opening import opened
from taskgalaxy_ops.models.rendering import flat
from taskgalaxy_ops.records import Claim, FileReject, Image, ImageId, Reason
from taskgalaxy_ops.settings import IngestSettings
from taskgalaxy_ops.sources.content import HEAD_BYTES, lacks_decoder, pages
from taskgalaxy_ops.sources.listing import SourceFile
from taskgalaxy_ops.sources.whole import missing_part, missing_tiles
from taskgalaxy_ops.storage.scan_staging import ScanStaging
from taskgalaxy_ops.text import shown

_DETAIL = 200  # characters of a reject's detail


def scan(
    files: Iterable[SourceFile],
    found: ScanStaging,
    known: Container[ImageId],
    denied: Container[ImageId],
    settings: IngestSettings,
    keep: Callable[[ImageId, bytes], None],
    progress: Callable[[bool], None] = lambda rejected: None,
) -> None:
    """Read and check a source's files, and add a claim or a reject of each to ``found``: files = claims + rejects.

    known: images that have an image shard. denied: images that were taken down: a claim of one is not stored, and
    registration makes it a reject. keep: stores the bytes of a new image. progress: is called for each file, with True
    if it is rejected. A file that ``found`` remembers from the last scan, with the same version, is not read again if
    its image is known.
    """
    for file in files:
        image = _checked(file, found, known, denied, settings, keep)
        if isinstance(image, Image):
            found.claim(_claim(found.source, file, image.image), image)
        elif isinstance(image, str):
            found.claim(_claim(found.source, file, image))
        else:
            found.reject(FileReject(found.source, file.name, *image))
        progress(isinstance(image, tuple) or image in denied)


def _checked(
    file: SourceFile,
    found: ScanStaging,
    known: Container[ImageId],
    denied: Container[ImageId],
    settings: IngestSettings,
    keep: Callable[[ImageId, bytes], None],
) -> Image | ImageId | tuple[Reason, str]:
    """Check a file. Returns a new image; the id of one that is known or was taken down; or the reason of a reject."""
    same = found.unchanged(file.name, file.version)
    if same is not None and same in known and found.file_of(same) is None:
        found.note_pages(file.name)
        return same
    try:
        raw = file.read()
    except UnreadableError as error:  # archived, encrypted, forbidden
        return Reason.UNREADABLE, shown(error.why)[:200]
    except NotFoundError as error:  # removed since it was listed
        return Reason.UNREADABLE, shown(error)[:200]
    except (SourceError, StoreError):  # none of the source's files can be read any more
        raise
    except Exception as error:  # noqa: BLE001 - whatever a kind of source raises for a file is this file's reject
        return Reason.UNREADABLE, shown(str(error) or type(error).__name__)[:200]
    sha = sha256_hex(raw)
    if (first := found.file_of(sha)) is not None:
        return Reason.DUPLICATE_FILE, f"of {first}"
    if sha in denied or sha in known:
        found.note_pages(file.name, pages(raw))
        return sha
    if lacking := lacks_decoder(raw[:HEAD_BYTES]):
        return Reason.UNREADABLE, lacking
    image = inspect(raw, settings)
    if isinstance(image, Image):
        found.note_pages(file.name, pages(raw))
        keep(sha, raw)
    return image


def _claim(source: str, file: SourceFile, image: ImageId) -> Claim:
    return Claim(source, image, file.name, file.origin, file.licence, file.attribution)


class _UnfitError(Exception):
    """Ends the look at a file: the reason and the detail of its reject."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.found = reason, detail[:_DETAIL]


def inspect(raw: bytes, settings: IngestSettings) -> Image | tuple[Reason, str]:
    """Decode an image file: its record, or the reason and detail of its reject, whatever a decoder raises for it."""
    if not raw:
        return Reason.NOT_AN_IMAGE, "the file is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of decompression bombs; ingest.max_pixels is our limit
            return _inspected(raw, settings)
    except _UnfitError as unfit:
        return unfit.found
    except Pillow.DecompressionBombError as error:
        return Reason.TOO_MANY_PIXELS, str(error)[:_DETAIL]
    except UnidentifiedImageError:
        return Reason.NOT_AN_IMAGE, "no known image format"
    except Exception as error:  # noqa: BLE001 - decoders raise what their authors did not foresee
        text = str(error)
        cut = "truncated" in text.lower() or "unexpected end" in text.lower() or isinstance(error, EOFError)
        # WebP's decoder does not say why it stopped; its RIFF header says how long the file should be.
        cut = cut or (raw[:4] == b"RIFF" and int.from_bytes(raw[4:8], "little") + 8 > len(raw))
        return (Reason.TRUNCATED_FILE if cut else Reason.UNREADABLE), f"{type(error).__name__}: {text}"[:_DETAIL]


def _inspected(raw: bytes, settings: IngestSettings) -> Image:
    """The record of an image file. Raises _UnfitError, or whatever a decoder raises."""

    def check(image: Pillow.Image) -> None:
        _check_size(image, settings)
        if image.format == "EPS":
            raise _UnfitError(Reason.UNREADABLE, "EPS is a program, which Ghostscript would run: convert it to PNG")
        if told := missing_tiles(image):
            raise _UnfitError(Reason.TRUNCATED_FILE, told)

    with opened(raw, check) as image:
        _check_size(image, settings)  # a container may hold a larger picture than it says
        if told := missing_part(raw, image):
            raise _UnfitError(Reason.TRUNCATED_FILE, told)
        levels = changed_levels(image, raw)
        upright = flat(image, raw)  # the image as models will see it, so that this conversion cannot fail later
        kind = (image.format or "unknown").lower()
    if min(upright.size) < settings.min_side:
        told = f"{upright.width} x {upright.height}, ingest.min_side is {settings.min_side}"
        raise _UnfitError(Reason.TOO_SMALL, told)
    phash = perceptual_hash(upright)
    return Image(sha256_hex(raw), upright.width, upright.height, kind, len(raw), phash, levels)


def _check_size(image: Pillow.Image, settings: IngestSettings) -> None:
    width, height = image.size
    if width * height > settings.max_pixels:
        told = f"{width} x {height}, ingest.max_pixels is {settings.max_pixels}"
        raise _UnfitError(Reason.TOO_MANY_PIXELS, told)


def perceptual_hash(image: Pillow.Image) -> str:
    """160 bits that near-duplicates share, as 40 hex digits.

    64 bits: whether brightness rises from one cell to the next on an 8 by 8 grid (difference hash). 96 bits: the
    colours on a 4 by 4 grid, two bits a channel in Gray code, so that neighbours differ by one bit; without them, two
    shapes that differ in colour alone would look the same.
    """
    grey = image.convert("L").resize((9, 8), Pillow.Resampling.BOX).tobytes()
    bits = [int(grey[9 * y + x] < grey[9 * y + x + 1]) for y in range(8) for x in range(8)]
    for value in image.resize((4, 4), Pillow.Resampling.BOX).tobytes():
        step = value >> 6
        gray = step ^ (step >> 1)
        bits += [gray >> 1, gray & 1]
    return f"{int(''.join(map(str, bits)), 2):040x}"
