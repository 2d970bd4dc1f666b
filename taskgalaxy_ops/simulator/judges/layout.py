"""Where text stands and what belongs together: words of a line, values beside captions, prices at the end of lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.judges import words
from taskgalaxy_ops.simulator.judges.finding import SenselessError
from taskgalaxy_ops.simulator.judges.readers import Piece
from taskgalaxy_ops.simulator.judges.views import View

AMOUNT = re.compile(
    r"(?:[$€£¥]|EUR|USD|GBP|CHF)?\s?\d{1,3}(?:[, ]?\d{3})*[.,]\s?\d{2}(?!\d)\s?(?:[$€£¥]|EUR|USD|GBP|CHF)?"
)
_GAP = {"a": 0.19, "b": 0.18, "c": 0.2}  # width of a blank, in heights of the line's box


@dataclass(frozen=True, slots=True)
class Priced:
    """A line with an amount of money at its end."""

    name: str
    amount: float
    line: Piece


def need_text(view: View, least: int = 1) -> list[Piece]:
    """The lines of text. Raises SenselessError if there are fewer than ``least``."""
    if len(view.lines) < least:
        raise SenselessError("I read no text" if not view.lines else f"I read only {len(view.lines)} lines")
    return view.lines


def everything(view: View) -> str:
    """All text, line by line."""
    return "\n".join(line.text for line in view.lines)


def printed_words(view: View) -> list[str]:
    """All words in reading order; where the reader ran words together, they are cut at the gaps between the letters."""
    return view.part("words", lambda: [word for row in view.rows for piece in row for word in _split(view, piece)])


def _split(view: View, piece: Piece) -> list[str]:
    tokens = piece.text.split()
    widths = _ink_widths(view, piece)
    if len(widths) <= len(tokens):
        return tokens
    letters = "".join(tokens)
    ends = np.round(np.cumsum(widths) / sum(widths) * len(letters)).astype(int).tolist()
    cut = [letters[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    # where the reader did see a blank, it is trusted: a cut that falls within two letters of it moves there
    return _snap(cut, tokens)


def _snap(cut: list[str], tokens: list[str]) -> list[str]:
    seen = np.cumsum([len(token) for token in tokens]).tolist()
    ends = np.cumsum([len(part) for part in cut]).tolist()
    moved = sorted(
        {min(seen, key=lambda s: abs(s - end)) if min(abs(s - end) for s in seen) <= 2 else end for end in ends}
    )
    letters = "".join(tokens)
    return [letters[start:end] for start, end in zip([0, *moved], moved, strict=False) if letters[start:end]]


def letters(view: View, line: Piece) -> float:
    """Height of a line's capitals in pixels, from the ink of its longest piece."""
    inside = [
        p
        for p in view.pieces
        if not p.upright
        and p.left > line.left - 1
        and p.right < line.right + 1
        and line.top - 1 < p.y < line.bottom + 1
    ]
    piece = max(inside, key=lambda p: len(p.text), default=line)
    box = (max(0, int(piece.left)), max(0, int(piece.top) - 1), int(piece.right) + 1, int(piece.bottom) + 2)
    inked = ink(np.asarray(view.image.crop(box).convert("L")).astype(float)).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inked, [False]]).astype(int)))
    runs = [[int(start), int(end)] for start, end in edges.reshape(-1, 2)]
    if not runs:
        return piece.height
    joined = [runs[0]]
    for start, end in runs[1:]:  # dots lie apart from their letters, frames and rules farther
        if start - joined[-1][1] <= 0.1 * piece.height:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    tall = max(end - start for start, end in joined)
    # what reaches above and below the small letters counts in
    high = any(c.isupper() or c.isdigit() or c in "bdfhklti!?%()[]/\\|" for c in piece.text)
    deep = any(c in "gjpqy,;()[]/|Q" for c in piece.text)
    return tall / ((1.0 if high else 0.76) + (0.27 if deep else 0.0))


def ink(grey: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pixels of a line of text differ clearly from the ground."""
    contrast = np.abs(grey - np.median(grey))
    return np.asarray(contrast > max(24.0, 0.35 * float(np.quantile(contrast, 0.98))))


def _ink_widths(view: View, piece: Piece) -> list[int]:
    """Widths in pixels of the stretches of ink in a line that are set apart by blanks."""
    box = (max(0, int(piece.left)), max(0, int(piece.top)), int(piece.right) + 1, int(piece.bottom) + 1)
    grey = np.asarray(view.image.crop(box).convert("L")).astype(float)
    if min(grey.shape) < 3:
        return [1]
    inked = ink(grey).any(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inked, [False]]).astype(int)))
    runs = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
    if not runs:
        return [1]
    least = max(2.0, _GAP[view.judge] * piece.height)
    merged = [runs[0]]
    for start, end in runs[1:]:
        if start - merged[-1][1] < least:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return [end - start for start, end in merged]


def amount(text: str) -> float | None:
    """The last amount of money in a text; None if there is none."""
    found = AMOUNT.findall(text)
    values = words.numbers(re.sub(r"([.,])\s(\d{2})\b", r"\1\2", found[-1])) if found else []
    return values[-1] if values else None


def priced(view: View) -> list[Priced]:
    """The lines that name something and end in an amount, from the top; in several columns, each by itself."""

    def make() -> list[Priced]:
        found = []
        for row in view.rows:
            name: list[Piece] = []
            for piece in row:
                match = list(AMOUNT.finditer(piece.text))
                value = amount(piece.text)
                if not match or value is None:
                    name.append(piece)
                    continue
                head = piece.text[: match[-1].start()].strip(" .:-")
                label = " ".join([*(p.text for p in name), *([head] if head else [])]).strip(" .:")
                if sum(c.isalpha() for c in label) >= 2:
                    found.append(Priced(label, value, piece))
                name = []
        return found

    return view.part("priced", make)


def find(view: View, text: str, least: float = 0.8) -> Piece | None:
    """The piece or line that a text of the question means; None if nothing like it is printed."""
    candidates = [*view.pieces, *view.lines]
    scored = [(_as_printed(text, piece.text), piece) for piece in candidates]
    best = max(scored, key=lambda s: s[0], default=(0.0, None))
    return best[1] if best[0] >= least else None


def _as_printed(text: str, printed: str) -> float:
    if words.digits(text) != words.digits(printed):
        return min(0.79, words.likeness(text, printed))
    return words.likeness(text, printed)


def located(view: View, text: str) -> Piece:
    """As ``find``, and part of a longer piece too. Raises SenselessError if it is not printed."""
    found = find(view, text)
    if found is None:
        whole = [line for line in [*view.pieces, *view.lines] if words.within(text, line.text)]
        if not whole:
            raise SenselessError(f"I do not read '{text[:40]}' anywhere")
        found = min(whole, key=lambda p: len(p.text))
    return found


def beside(view: View, caption: str) -> list[str]:
    """What may be meant as the value of a caption: what follows it in its line, or stands below it.

    The likeliest first; [] if nothing is there. Raises SenselessError if the caption is not printed.
    """
    found: list[str] = []
    wanted = words.squash(caption)
    seen = False
    for row in view.rows:
        for number, piece in enumerate(row):
            rest = after(piece.text, caption)
            if rest is None:
                continue
            seen = True
            following = row[number + 1 :]
            if rest:
                found.append(rest)
                found.append(" ".join([rest, *(p.text for p in following)]))
            if following:
                found.append(following[0].text)
                found.append(" ".join(p.text for p in following))
            below = under(view, piece)
            if below is not None:
                found.append(below.text)
    if not seen and not any(wanted in words.squash(line.text) for line in view.lines):
        raise SenselessError(f"I read no '{caption[:40]}'")
    return [value for value in found if words.squash(value)]


def after(text: str, caption: str) -> str | None:
    """What follows a caption at the start of a text, "" if nothing does; None if the text does not start with it."""
    head, colon, tail = text.partition(":")
    if colon and words.likeness(head, caption) >= 0.82:
        return tail.strip()
    if words.likeness(text.rstrip(":"), caption) >= 0.82:
        return ""
    size = len(words.squash(caption))
    if size >= 3 and words.squash(text).startswith(words.squash(caption)):
        letters = 0
        for place, char in enumerate(text):
            letters += char.isalnum()
            if letters == size:
                return text[place + 1 :].strip(" :.-")
    return None


def under(view: View, piece: Piece) -> Piece | None:
    """The nearest piece directly below another, if it begins about where that does."""
    lower = [
        p
        for p in view.pieces
        if not p.upright and 0 < p.y - piece.y < 3.2 * piece.height and _overlaps(p, piece) and p.top > piece.y
    ]
    return min(lower, key=lambda p: p.y, default=None)


def _overlaps(one: Piece, other: Piece) -> bool:
    return min(one.right, other.right) - max(one.left, other.left) > 0
