"""Reading: each judge shows the text engine another version of the image, and groups what comes back in its own way.

``a`` reads the image as it is; rows are pieces whose heights overlap. ``b`` reads it in grey, contrast stretched and
enlarged; rows are pieces on one baseline. ``c`` reads it with a margin and sharpened, keeping fainter pieces; rows are
clusters of centres.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

SMALLEST = 100  # pixels of the longer side; a smaller image carries no text that could be read
_LONGEST = 2000  # pixels to which an enlarged image may grow
_MARGIN = 24  # pixels that judge c puts around


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of text in one stretch: its box in pixels of the image, and how sure the engine was (0 to 1)."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    sure: float = 1.0
    upright: bool = False  # set along the vertical or aslant, as labels of axes may be
    size: float = 0.0  # height of the line, pixels

    @property
    def x(self) -> float:
        """Centre, pixels from the left."""
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        """Centre, pixels from the top."""
        return (self.top + self.bottom) / 2

    @property
    def height(self) -> float:
        """Height of the letters' box, pixels."""
        return self.size or self.bottom - self.top

    @property
    def width(self) -> float:
        """Width of the box, pixels."""
        return self.right - self.left


def join(pieces: Sequence[Piece]) -> Piece:
    """Pieces of one row as one piece, their texts joined by blanks from left to right."""
    ordered = sorted(pieces, key=lambda p: p.left)
    return Piece(
        text=" ".join(p.text for p in ordered),
        left=min(p.left for p in ordered),
        top=min(p.top for p in ordered),
        right=max(p.right for p in ordered),
        bottom=max(p.bottom for p in ordered),
        sure=min(p.sure for p in ordered),
        size=max(p.height for p in ordered),
    )


class _Engine:
    """A judge's text engine, opened at the first use; one image at a time, for it keeps state between calls."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._engine: Any = None

    def read(self, image: Image.Image) -> list[tuple[Any, str, float]]:
        """(four corners, text, score) of each piece found in an RGB image."""
        with self._lock:
            if self._engine is None:
                from rapidocr_onnxruntime import RapidOCR

                self._engine = RapidOCR(
                    intra_op_num_threads=1,
                    inter_op_num_threads=1,
                    width_height_ratio=-1,
                    # A line at a time, padded to half of what is usual: on a CPU both together halve the time, and
                    # lines that are padded to the longest of six are read worse.
                    rec_batch_num=1,
                    rec_img_shape=[3, 48, 160],
                    **self._options,
                )
            found, _ = self._engine(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
        return [(corners, str(text), float(score)) for corners, text, score in found or []]


_ENGINES = {
    "a": _Engine(text_score=0.5, det_limit_side_len=640),
    "b": _Engine(text_score=0.55, det_limit_side_len=512, det_unclip_ratio=1.8, use_cls=False),
    "c": _Engine(text_score=0.4, det_limit_side_len=512, det_box_thresh=0.4, det_unclip_ratio=1.5, use_cls=False),
}


def read(judge: str, image: Image.Image) -> list[Piece]:
    """The pieces of text that a judge reads, from the top; none in an image under 100 pixels."""
    if max(image.size) < SMALLEST:
        return []
    shown, scale, shift = _PREPARE[judge](image)
    pieces = []
    for corners, text, score in _ENGINES[judge].read(shown):
        points = (np.asarray(corners, float) - shift) / scale
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        if text.strip():
            size, upright = _size(points, text.strip())
            pieces.append(
                Piece(
                    text=text.strip(),
                    left=float(left),
                    top=float(top),
                    right=float(right),
                    bottom=float(bottom),
                    sure=score,
                    upright=upright,
                    size=size,
                )
            )
    return sorted(pieces, key=lambda p: (p.top, p.left))


def _size(corners: NDArray[np.float64], text: str) -> tuple[float, bool]:
    """A line's height in pixels and whether it is not level, from its four corners (clockwise from the upper left)."""
    along, across = corners[1] - corners[0], corners[3] - corners[0]
    width, height = float(np.hypot(*along)), float(np.hypot(*across))
    if height > (1.5 if len(text) > 2 else 2.4) * width:
        return width, True
    return height, abs(float(along[1])) > 0.12 * abs(float(along[0])) + 3


def rows(judge: str, pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces that stand in one row each, from the top; within a row from the left. Upright pieces are left out."""
    return [sorted(row, key=lambda p: p.left) for row in _ROWS[judge]([p for p in pieces if not p.upright])]


def _as_it_is(image: Image.Image) -> tuple[Image.Image, float, float]:
    return image, 1.0, 0.0


def _grey_enlarged(image: Image.Image) -> tuple[Image.Image, float, float]:
    scale = min(1.2, _LONGEST / max(image.size))
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=0.5)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return grey.resize(size, Image.Resampling.LANCZOS).convert("RGB"), scale, 0.0


def _sharpened_with_margin(image: Image.Image) -> tuple[Image.Image, float, float]:
    scale = min(1.1, _LONGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    larger = image.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.UnsharpMask(1.5, 60, 2))
    edge = np.asarray(image)[[0, -1]].reshape(-1, 3)
    colour = tuple(int(v) for v in np.median(edge, axis=0))
    return ImageOps.expand(larger, _MARGIN, colour), scale, float(_MARGIN)


_PREPARE: dict[str, Callable[[Image.Image], tuple[Image.Image, float, float]]] = {
    "a": _as_it_is,
    "b": _grey_enlarged,
    "c": _sharpened_with_margin,
}


def _by_overlap(pieces: Sequence[Piece]) -> list[list[Piece]]:
    found: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: p.y):
        for row in reversed(found[-3:]):
            last = row[-1]
            overlap = min(piece.bottom, last.bottom) - max(piece.top, last.top)
            if overlap > 0.5 * min(piece.height, last.height):
                row.append(piece)
                break
        else:
            found.append([piece])
    return found


def _by_baseline(pieces: Sequence[Piece]) -> list[list[Piece]]:
    found: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: p.bottom):
        if found:
            base = median(p.bottom for p in found[-1])
            size = median(p.height for p in (*found[-1], piece))
            if abs(piece.bottom - base) <= 0.42 * size:
                found[-1].append(piece)
                continue
        found.append([piece])
    return found


def _by_centres(pieces: Sequence[Piece]) -> list[list[Piece]]:
    found: list[list[Piece]] = []
    usual = median(p.height for p in pieces) if pieces else 0.0
    for piece in sorted(pieces, key=lambda p: p.y):
        if found and piece.y - found[-1][-1].y <= 0.38 * min(max(piece.height, usual), 1.6 * usual):
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


_ROWS: dict[str, Callable[[Sequence[Piece]], list[list[Piece]]]] = {
    "a": _by_overlap,
    "b": _by_baseline,
    "c": _by_centres,
}
