"""What a judge says of a pair, and how what it found is compared with an answer, by the answer's kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from taskgalaxy_ops.simulator.judges import palettes, words

REGIONS = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)


@dataclass(frozen=True)
class Finding:
    """One judge's opinion of a question and answer."""

    right: bool | None  # None: this judge cannot tell
    reason: str  # at most twenty words, naming what it found


class SenselessError(Exception):
    """The question makes no sense for this image; its text says why."""


class UnsureError(Exception):
    """The judge cannot make out what the question is about; its text says what."""


@dataclass(frozen=True)
class Found:
    """What a judge found in answer to a question, and which answers it takes for right."""

    said: str  # for the reason: "the total is 24.50"
    agrees: Callable[[str], bool | None]
    values: tuple[float, ...] = ()  # of a number: those that it may be


def text(what: str, *seen: str, least: float = 0.84) -> Found:
    """Right is any of the texts that were seen (the first is the likeliest), small slips of reading apart."""
    if not seen:
        raise UnsureError(f"I cannot make out {what}")
    return Found(f"{what} reads '{short(seen[0])}'", lambda said: any(words.same_text(said, s, least) for s in seen))


def number(what: str, *seen: float, tolerance: float = 0.005) -> Found:
    """Right is any number within ``tolerance`` of one that was seen."""
    if not seen:
        raise UnsureError(f"I cannot make out {what}")

    def agrees(said: str) -> bool:
        value = words.number(said)
        return value is not None and any(words.close(value, s, tolerance) for s in seen)

    return Found(f"{what} is {seen[0]:.10g}", agrees, seen)


def choice(what: str, *right: str) -> Found:
    """Right is any of these choices, word for word apart from case."""
    allowed = {words.squash(r) for r in right}
    return Found(f"{what}: {right[0]}", lambda said: words.squash(said) in allowed)


def yes_no(what: str, value: bool) -> Found:
    """Right is "Yes" or "No" accordingly."""
    return Found(what, lambda said: words.yes_no(said) is value)


def colour(what: str, *names: str) -> Found:
    """Right is any of the colours (the first is the likeliest)."""
    if not names:
        raise UnsureError(f"I cannot make out the colour of {what}")
    return Found(f"{what} is {names[0]}", lambda said: palettes.canonical(said) in names)


def region(what: str, x: float, y: float, slack: float = 0.03) -> Found:
    """Right is the cell of the grid in which (x, y), 0 to 1 each, lies; within ``slack`` of a line, both cells."""
    cells = {
        REGIONS[_third(y + dy)][_third(x + dx)] for dx in (-slack, 0, slack) for dy in (-slack, 0, slack)
    }  # fmt: skip
    here = REGIONS[_third(y)][_third(x)]
    return Found(f"{what} lies {here}", lambda said: said.strip().lower() in cells)


def _third(value: float) -> int:
    return min(2, max(0, int(value * 3)))


def listing(what: str, seen: Sequence[str], *, misses: float = 0.0, ordered: bool = True) -> Found:
    """Right is a list of these entries: none that was not seen, at most a share ``misses`` of them left out."""
    if not seen:
        raise UnsureError(f"I cannot make out {what}")

    def agrees(said: str) -> bool:
        entries = [part.strip() for part in said.split(";") if part.strip()]
        unseen, left = words.same_items(entries, seen)
        allowed = int(misses * max(len(seen), len(entries)))
        if not entries or len(unseen) > allowed or len(left) > allowed:
            return False
        places = [words.best(entry, seen)[0] for entry in entries]
        swaps = sum(a > b for a, b in itertools.pairwise(places))
        return not ordered or swaps <= allowed

    return Found(f"{what}: {short('; '.join(seen))}", agrees)


def short(value: str, most: int = 48) -> str:
    """A text cut to what a reason has room for, at most eight words."""
    cut = " ".join(value.split()[:8])
    cut = cut if len(cut) <= most else cut[: most - 1]
    return cut if cut == value else f"{cut.rstrip()}…"
