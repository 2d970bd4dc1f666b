"""The pages of a document, a PDF or a TIFF: how many there are, and each as a picture.

Decoding processes do this (``decoder_process``): pdfium is not safe for threads, and a document may crash it, or keep
it busy for ever. So nothing is imported here that takes long, and pypdfium2 where a PDF is first opened.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Protocol

from PIL import Image as Pillow
from PIL import ImageChops

from taskgalaxy_ops.models.rendering import flat
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.sources.inspecting import Bounds, UnfitError, check_size, refusal
from taskgalaxy_ops.sources.whole import missing_tiles

PDF, TIFF = "pdf", "tiff"

_HEAD = 1024  # bytes of a PDF's beginning in which its mark stands. PDF 1.7 (ISO 32000-1), implementation note 13
_NO_PAGES = "the document has no pages"
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LINEARIZED = re.compile(rb"/Linearized\b.{0,200}?/L\s+(\d{1,12})", re.DOTALL)


class Document(Protocol):
    """An opened document."""

    kind: str  # PDF or TIFF
    pages: int

    def picture(self, number: int, pixels: int) -> Pillow.Image:
        """Page ``number``, from 1 on, upright, on white, in RGB; of a PDF with a longer side of ``pixels``.

        Raises UnfitError, or whatever a decoder raises.
        """
        ...


def opened(raw: bytes, bounds: Bounds) -> Document | tuple[Reason, str]:
    """A document, or the reason and detail of its reject."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of decompression bombs; ingest.max_pixels is our limit
            return _opened(raw, bounds)
    except Exception as error:  # noqa: BLE001 - decoders raise what their authors did not foresee
        return refusal(error, raw)


def page(document: Document, number: int, pixels: int) -> bytes | tuple[Reason, str]:
    """A page of a document as a PNG, or the reason and detail of its reject. number: from 1 on."""
    out = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            _fewest_bits(document.picture(number, pixels)).save(out, "PNG")
    except Exception as error:  # noqa: BLE001 - as above
        return refusal(error, b"")
    return out.getvalue()


def _opened(raw: bytes, bounds: Bounds) -> Document:
    if raw.startswith(_TIFF_MARKS):
        document: Document = _Tiff(raw, bounds)
    elif b"%PDF-" in raw[:_HEAD]:
        document = _Pdf(raw, bounds)
    else:
        raise UnfitError(Reason.UNREADABLE, "the file is empty" if not raw else "neither a PDF nor a TIFF")
    if document.pages < 1:
        raise UnfitError(Reason.UNREADABLE, _NO_PAGES)
    return document


class _Pdf:
    kind = PDF

    def __init__(self, raw: bytes, bounds: Bounds) -> None:
        import pypdfium2

        if told := _cut_off(raw):
            raise UnfitError(Reason.TRUNCATED_FILE, told)
        try:
            self._document = pypdfium2.PdfDocument(raw)
            self._document.init_forms()  # so that what a form was filled in with is drawn
        except pypdfium2.PdfiumError as error:
            why = {
                pypdfium2.raw.FPDF_ERR_PASSWORD: "protected by a password: save a copy without it",
                pypdfium2.raw.FPDF_ERR_SECURITY: "encrypted in a way that is not supported: save a copy without that",
                pypdfium2.raw.FPDF_ERR_SUCCESS: _NO_PAGES,  # nothing is wrong with the rest of it
            }
            raise UnfitError(Reason.UNREADABLE, why.get(error.err_code, f"damaged: {error}")) from error
        self._bounds = bounds
        self.pages = len(self._document)

    def picture(self, number: int, pixels: int) -> Pillow.Image:
        one = self._document[number - 1]
        try:
            width, height = one.get_size()
            if not 0 < min(width, height) <= max(width, height) < float("inf"):
                raise UnfitError(Reason.UNREADABLE, f"its size is {width:g} x {height:g} points")
            # Half a pixel less, since pdfium rounds up: the longer side has ``pixels`` then, and not one more.
            scale = (pixels - 0.5) / max(width, height)
            check_size((round(width * scale), round(height * scale)), self._bounds)
            drawn = one.render(scale=scale, rev_byteorder=True)
            try:
                picture: Pillow.Image = drawn.to_pil().copy()  # what was drawn is freed
                return picture
            finally:
                drawn.close()
        finally:
            one.close()


def _cut_off(raw: bytes) -> str:
    """What says that the end of a PDF is missing, of which pdfium would draw the rest; "" if nothing does."""
    stated = _LINEARIZED.search(raw, 0, 2 * _HEAD)
    if stated and int(stated[1]) > len(raw):
        return f"{len(raw):,} of {int(stated[1]):,} bytes are there"
    return "" if b"%%EOF" in raw else "it has no end: it is still being written, or was cut off"


class _Tiff:
    kind = TIFF

    def __init__(self, raw: bytes, bounds: Bounds) -> None:
        self._raw, self._bounds = raw, bounds
        with self._file() as image:
            self.pages = int(getattr(image, "n_frames", 1))

    def _file(self) -> Pillow.Image:
        return Pillow.open(io.BytesIO(self._raw), formats=["TIFF"])

    def picture(self, number: int, pixels: int) -> Pillow.Image:  # noqa: ARG002 - a scan has pixels of its own
        with self._file() as image:  # anew: of a page that was decoded before, Pillow lists no parts any more
            image.seek(number - 1)
            check_size(image.size, self._bounds)
            if told := missing_tiles(image):
                raise UnfitError(Reason.TRUNCATED_FILE, told)
            image.load()
            return flat(image, self._raw)


def _fewest_bits(picture: Pillow.Image) -> Pillow.Image:
    """The same picture, of type RGB, in grey or in black and white where it is."""
    red, green, blue = picture.split()
    if any(ImageChops.difference(red, other).getbbox() for other in (green, blue)):
        return picture
    return red.convert("1") if sum(red.histogram()[1:255]) == 0 else red
