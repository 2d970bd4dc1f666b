"""Helpers of both pictures: escaping, numbers, and text cut to a width."""

from __future__ import annotations

import html
import re

# Characters that are invisible, end a document or change its reading direction: control characters, bidirectional
# overrides, lone surrogates.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")


def esc(text: object) -> str:
    """Text escaped for an element of HTML or SVG, or an attribute in double quotes; invisible characters: U+FFFD."""
    return html.escape(_INVISIBLE.sub("\ufffd", str(text)))


def count(number: int) -> str:
    """``12,345``."""
    return f"{number:,}"


def share(part: int, whole: int) -> str:
    """``part`` of ``whole`` as ``12 %``, or ``<1 %``; 100 % only for all; empty where ``whole`` is 0."""
    if not whole or not part:
        return "0 %" if whole else ""
    percent = 100 * part / whole
    if percent < 1:
        return "<1 %"
    return f"{min(round(percent), 99) if part < whole else 100} %"


def fitting(text: str, width: float, size: float) -> str:
    """The text, cut with an ellipsis to about ``width`` pixels at a font size of ``size`` pixels; may be empty."""
    if sum(map(_em, text)) * size <= width:
        return text
    room = width - _em("…") * size
    kept = ""
    for char in text:
        room -= _em(char) * size
        if room < 0:
            break
        kept += char
    return f"{kept.rstrip()}…" if len(kept) > 2 else ""


def _em(char: str) -> float:
    """The approximate width of a character, in units of the font size."""
    if ord(char) > 0x2E80:
        return 1.0
    if char in "ijlftr.,:;'|!()[] ":
        return 0.34
    return 0.85 if char in "mwMW@%…—&" else 0.68 if char.isupper() else 0.58
