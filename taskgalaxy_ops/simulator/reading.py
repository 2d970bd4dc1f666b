"""Reads the text of an image for the simulated teacher: lines with their boxes, and how sure each is.

The detector and recogniser are RapidOCR's (PP-OCRv4). Its recogniser was trained on Chinese and drops many blanks
between words; so the place of each character is kept, and blanks are set where the pixels between two characters
show a gap wide enough.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEIGHT = 48  # pixels: what the recogniser takes
_LEAST_WIDTH = 160  # narrower crops are padded: half of what it was trained with, for it costs half
_LONGEST = 3200
_IN_NUMBER = re.compile(r"\d[.:/-]$")  # what follows another digit without a blank
_SMALL_L = re.compile(r"\bl(?=[cdfghjkmnpqrstvwxz])")  # no word begins so: it is a capital I
_TICK = re.compile(r" [-~]$")  # of an axis
_PLAIN = str.maketrans("‘’“”–—。、", "''\"\"--.,")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of text at one height, as it was found; sides are pixels of the image."""

    text: str
    sure: float  # 0 to 1: the least sure of its characters counts half, their mean half
    left: float
    top: float
    right: float
    bottom: float
    letters: float  # height of the inked rows in pixels: of capitals, or with ascenders and descenders
    colour: tuple[int, int, int]  # of the paper behind it

    @property
    def size(self) -> float:
        """Height of a capital in pixels, whichever letters the text has: comparable between lines."""
        high = any(c.isupper() or c.isdigit() or c in "bdfhklt" for c in self.text)
        low = any(c in "gjpqyQ,;()" for c in self.text)
        return self.letters * 0.73 / (0.53 + 0.2 * high + 0.2 * low)

    @property
    def middle(self) -> tuple[float, float]:
        """x and y of the box's middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@lru_cache(maxsize=1)
def _engine() -> tuple[Any, threading.Lock]:
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
    engine.text_det.postprocess_op.box_thresh = 0.3  # lone digits score low
    # Detection keeps settings on itself; recognition does not. The lock guards the first.
    return engine, threading.Lock()


def read(rgb: NDArray[np.uint8]) -> tuple[list[Segment], int]:
    """The level text of an (h, w, 3) image from top to bottom, left to right; and how many texts were left out, since
    they stand upright or aslant, or are too small."""
    engine, lock = _engine()
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    with lock:
        boxes, _ = engine.text_det(bgr)
    found, left_out = [], 0
    usual = float(np.median([np.ptp(box[:, 1]) for box in boxes])) if boxes is not None and len(boxes) else 0.0
    for box in boxes if boxes is not None else ():
        (left, top), (right, bottom) = box.min(axis=0), box.max(axis=0)
        slant = abs(float(box[1][1] - box[0][1])) / max(1.0, float(box[1][0] - box[0][0]))
        upright = bottom - top > 1.5 * (right - left) and bottom - top > 1.6 * usual  # not a single narrow letter
        if upright or slant > 0.1 or bottom - top < 6:
            left_out += 1
            continue
        sides = max(0, int(left) - 2), max(0, int(top)), int(right) + 3, int(bottom) + 1
        segment = _recognise(engine, bgr[sides[1] : sides[3], sides[0] : sides[2]], sides)
        if segment is not None:
            found.append(segment)
    return sorted(found, key=lambda s: (s.middle[1], s.left)), left_out


def _recognise(engine: Any, crop: NDArray[np.uint8], sides: tuple[int, int, int, int]) -> Segment | None:
    import cv2

    width = min(_LONGEST, max(8, round(crop.shape[1] * _HEIGHT / crop.shape[0])))
    method = cv2.INTER_CUBIC if crop.shape[0] < _HEIGHT else cv2.INTER_AREA
    line = np.asarray(cv2.resize(crop, (width, _HEIGHT), interpolation=method), np.uint8)
    padded = np.zeros((1, 3, _HEIGHT, max(width, _LEAST_WIDTH)), np.float32)
    padded[0, :, :, :width] = line.transpose(2, 0, 1) / 127.5 - 1
    scores = engine.text_rec.session(padded)[0][0]  # (steps, characters)
    best = scores.argmax(axis=1)
    starts = np.flatnonzero((best != 0) & (np.diff(best, prepend=0) != 0))
    if not len(starts):
        return None
    characters = [engine.text_rec.postprocess_op.character[best[step]] for step in starts]
    certainty = scores[starts, best[starts]]
    step = padded.shape[3] / len(best)
    ink = _ink(line)
    places = (starts + 0.5) * step
    text = _spaced(characters, places, ink)
    rows = np.flatnonzero(ink.sum(axis=1) >= 2)
    if not text or not len(rows):
        return None
    scale = crop.shape[0] / _HEIGHT
    columns = np.flatnonzero(ink.any(axis=0))
    paper = np.median(np.concatenate([crop[0], crop[-1], crop[:, 0], crop[:, -1]]), axis=0)[::-1]
    return Segment(
        text=text,
        sure=0.0 if _passed_over(places, ink) else float(certainty.mean() + certainty.min()) / 2,
        left=sides[0] + float(columns[0]) * scale,
        top=sides[1] + float(rows[0]) * scale,
        right=sides[0] + float(columns[-1] + 1) * scale,
        bottom=sides[1] + float(rows[-1] + 1) * scale,
        letters=float(rows[-1] + 1 - rows[0]) * scale,
        colour=(int(paper[0]), int(paper[1]), int(paper[2])),
    )


def _ink(line: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(height, width): where a line's pixels differ from its paper, rules across it left out."""
    pixels = line.astype(np.float32)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance = np.abs(pixels - np.median(edge, axis=0)).max(axis=2)
    ink = distance > 0.45 * np.percentile(distance, 99)
    ink[ink.mean(axis=1) > 0.9] = False  # a rule
    result: NDArray[np.bool_] = ink
    return result


def _spaced(characters: list[str], places: NDArray[np.float64], ink: NDArray[np.bool_]) -> str:
    """The text with a blank wherever two neighbouring characters are a word's gap apart."""
    kept = [(c, x) for c, x in zip(characters, places, strict=True) if c.strip()]
    if not kept:
        return ""
    said = _blanks(characters)
    gaps = np.array([_gap(ink, a, b) for (_, a), (_, b) in pairwise(kept)])
    limit = _limit(gaps, ink, bool(said))
    text = kept[0][0]
    for number, (character, _) in enumerate(kept[1:]):
        before = kept[number][0]
        share = 0.7 if number in said else 1.3 if (before.isdigit() or before == ",") and character.isdigit() else 1.0
        share *= 1.4 if not said and len(kept) < 7 else 1.0
        inside = character.isdigit() and _IN_NUMBER.search(text) is not None  # 12.50, 14:30
        inside = inside or (before == "." and character.islower())  # setup.py
        wide = gaps[number] > limit * share and character not in ",.;:!?" and not inside
        text += (" " if wide else "") + character
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    text = _SMALL_L.sub("I", _TICK.sub("", text))
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _passed_over(places: NDArray[np.float64], ink: NDArray[np.bool_]) -> bool:
    """Whether ink as wide as a character lies between two characters, such as a currency sign it does not know."""
    rows = np.flatnonzero(ink.any(axis=1))
    least = 0.3 * (rows[-1] - rows[0] + 1) if len(rows) else _HEIGHT
    usual = float(np.median(np.diff(places))) if len(places) > 2 else 0.0
    for left, right in pairwise(places):
        if right - left < 1.7 * usual:
            continue
        columns: NDArray[np.bool_] = np.any(ink[:, int(left) : int(right) + 1], axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], columns.astype(np.int8), [0]])))
        runs = list(zip(edges[::2], edges[1::2], strict=True))
        if any(start > 0 and end < len(columns) and end - start >= least for start, end in runs):
            return True
    return False


def _blanks(characters: list[str]) -> set[int]:
    """After which characters (blanks not counted) the recogniser itself set a blank."""
    said, count = set(), 0
    for character in characters:
        if character.strip():
            count += 1
        else:
            said.add(count - 1)
    return said


def _gap(ink: NDArray[np.bool_], left: float, right: float) -> int:
    """The widest run of columns without ink between two characters' places."""
    empty = ~ink[:, max(0, int(left) - 4) : int(right) + 5].any(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _limit(gaps: NDArray[np.int64], ink: NDArray[np.bool_], said: bool) -> float:
    """How many empty columns make a word's gap: the middle of the widest jump among the line's gaps that lies about
    where blanks begin, or, where none is clear, a share of the line's height. Less will do where the recogniser itself
    ``said`` that there is a blank."""
    rows = np.flatnonzero(ink.any(axis=1))
    height = float(rows[-1] - rows[0] + 1) if len(rows) else _HEIGHT
    ordered = np.sort(gaps)
    jumps = [
        (above - below, (above + below) / 2)
        for below, above in pairwise(ordered.tolist())
        if below < 0.38 * height and above > (0.18 if said else 0.36) * height
    ]
    jump, middle = max(jumps, default=(0, 0.0))
    return float(middle) if jump > 0.09 * height else (0.26 if said else 0.36) * height
