"""Comparing what was read with what was answered: tolerant of a reader's slips, strict on what matters.

Letters may differ a little, since text recognition drops blanks and confuses look-alikes. Numbers may not: a digit
that differs is another number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

# What text recognition takes for one another, in words; digits stay what they are (see ``numbers``).
_LOOK_ALIKES = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "!": "l", "5": "s", "8": "b", "€": "e", "$": "s"})
_NUMBER = re.compile(r"(?<![\d.,])[-+−–]?\d{1,3}(?:[,' ]\d{3})+(?:\.\d+)?|(?<![\d])[-−–]?\d+(?:[.,]\d+)?")
_NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]


def squash(text: str) -> str:
    """Lower case, accents and everything but letters and digits left out: "Café No. 5" gives "cafeno5"."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if c.isalnum())


def likeness(one: str, other: str) -> float:
    """How alike two texts are, 0 to 1, blanks, case, punctuation and look-alike letters apart."""
    first, second = squash(one).translate(_LOOK_ALIKES), squash(other).translate(_LOOK_ALIKES)
    if not first or not second:
        return float(unicodedata.normalize("NFKC", one.strip()) == unicodedata.normalize("NFKC", other.strip()))
    if first == second:
        return 1.0
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def digits(text: str) -> str:
    """The digits of a text, in order, with the letters that stand among digits read as such ("1O0" gives "100")."""
    mended = re.sub(r"(?<=\d)[oO]+(?=[\d.,:%]|\b)", lambda m: "0" * len(m.group()), text)
    mended = re.sub(r"(?<=\d)[lI|]+(?=[\d.,:%]|\b)", lambda m: "1" * len(m.group()), mended)
    return "".join(c for c in mended if c.isdigit())


def same_text(one: str, other: str, least: float = 0.84) -> bool:
    """Whether two texts say the same: alike to ``least``, with the same digits, and no three letters in a row else."""
    if likeness(one, other) < least or not (same_words(one, other) and same_words(other, one)):
        return False
    first, second = squash(one).translate(_LOOK_ALIKES), squash(other).translate(_LOOK_ALIKES)
    changes = SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    if any(tag != "equal" and max(i2 - i1, j2 - j1) >= 3 for tag, i1, i2, j1, j2 in changes):
        return False
    mine, theirs = digits(one), digits(other)
    # in a text that is mostly letters, one may have been read as a digit
    return mine == theirs or (max(len(mine), len(theirs)) <= 1 and len(squash(one)) > 8)


def same_words(claimed: str, seen: str, least: float = 0.72) -> bool:
    """Whether each word of four letters or more stands in another text, a few letters misread at most."""
    return all(within(word, seen, least) for word in claimed.split() if len(squash(word)) >= 4)


def within(part: str, whole: str, least: float = 0.86) -> bool:
    """Whether ``part`` stands somewhere in ``whole``, a few letters misread at most; its digits exactly."""
    small, large = squash(part), squash(whole)
    if not small:
        return False
    if small in large:
        return True
    if digits(part) not in digits(whole):
        return False
    small, large = small.translate(_LOOK_ALIKES), large.translate(_LOOK_ALIKES)
    size = len(small)
    if size < 4 or size > len(large) + 2:
        return small in large
    step = max(1, size // 8)
    windows = (large[i : i + size] for i in range(0, max(1, len(large) - size + 1), step))
    return max(SequenceMatcher(None, small, w, autojunk=False).ratio() for w in windows) >= least


def best(text: str, candidates: Sequence[str]) -> tuple[int, float]:
    """Index and likeness of the candidate most like ``text``; (-1, 0.0) if there is none."""
    scores = [likeness(text, candidate) for candidate in candidates]
    if not scores:
        return -1, 0.0
    top = max(range(len(scores)), key=scores.__getitem__)
    return top, scores[top]


def numbers(text: str) -> list[float]:
    """The numbers printed in a text, in order; "1,250.50" is one, and so is "12,5" (a decimal comma)."""
    found = []
    for match in _NUMBER.finditer(text):
        raw = match.group().replace("−", "-").replace("–", "-").lstrip("+")
        if re.fullmatch(r"-?\d{1,3}([,' ]\d{3})+(\.\d+)?", raw):
            raw = re.sub(r"[,' ]", "", raw)
        found.append(float(raw.replace(",", ".")))
    return found


def number(text: str) -> float | None:
    """The first number in an answer, in figures or in words up to twenty; None if it has none."""
    found = numbers(text)
    if found:
        return found[0]
    said = [w for w in re.findall(r"[a-z]+", text.lower()) if w in _NUMBER_WORDS]
    return float(_NUMBER_WORDS.index(said[0])) if said else None


def close(one: float, other: float, tolerance: float = 0.005) -> bool:
    """Whether two numbers are the same to ``tolerance`` (absolute)."""
    return abs(one - other) <= tolerance + 1e-9


def same_items(said: Iterable[str], seen: Sequence[str], least: float = 0.8) -> tuple[list[str], list[str]]:
    """Entries said that were not seen, and entries seen that were not said (each matched once)."""
    left = list(seen)
    unseen = []
    for item in said:
        index, score = best(item, left)
        if index >= 0 and score >= least and digits(item) == digits(left[index]):
            left.pop(index)
        else:
            unseen.append(item)
    return unseen, left


def same_sequence(said: Sequence[str], seen: Sequence[str]) -> bool:
    """Whether entries are, in order, what was read, wherever the reader cut it into pieces."""
    told, printed = " ".join(said), " ".join(seen)
    if likeness(told, printed) < 0.86 or not all(within(part, told, 0.72) for part in seen if len(squash(part)) > 2):
        return False
    place = 0
    large = squash(printed)
    for entry in said:
        small = squash(entry)
        found = large.find(small, place)
        if found >= 0:
            place = found + len(small)
        elif not within(entry, large[max(0, place - 2) : place + 2 * len(small) + 4], 0.72):
            return False
    return True


def yes_no(text: str) -> bool | None:
    """Whether an answer begins with yes or no; None if with neither."""
    word = re.match(r"\W*(yes|no|true|false)\b", text.strip(), re.IGNORECASE)
    return word.group(1).lower() in {"yes", "true"} if word else None
