"""Planted near-duplicates of labels: the same task in other words, by rules whose draws hang on a seed.

Whoever tunes the rules of ``admit`` uses ``TUNING`` seeds; the figures use ``MEASURED`` ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from taskgalaxy_ops.hashing import draw

TUNING = range(0, 10)
MEASURED = range(100, 110)

_VERBS = {
    "assessment": "assess", "calculation": "calculate", "check": "check", "comparison": "compare", "count": "count",
    "counting": "count", "description": "describe", "detection": "detect", "determination": "determine",
    "estimation": "estimate", "explanation": "explain", "extraction": "extract", "finding": "find",
    "identification": "identify", "inference": "infer", "judgement": "judge", "listing": "list", "lookup": "look up",
    "naming": "name", "prediction": "predict", "proposal": "propose", "reading": "read", "recognition": "recognise",
    "search": "search", "suggestion": "suggest", "summary": "summarise", "transcription": "transcribe",
    "verification": "verify",
}  # fmt: skip
_GERUNDS = {verb: f"{verb.removesuffix('e') if verb != 'name' else 'nam'}ing" for verb in _VERBS.values()} | {
    "describe": "describing", "compare": "comparing", "look up": "looking up", "list": "listing", "infer": "inferring",
}  # fmt: skip
_SAME = {
    "assessment": "evaluation", "calculation": "computation", "check": "verification", "count": "counting",
    "counting": "count", "detection": "spotting", "estimation": "approximation", "extraction": "retrieval",
    "finding": "locating", "identification": "recognition", "inference": "deduction", "judgement": "assessment",
    "listing": "enumeration", "lookup": "look-up", "naming": "identification", "reading": "read-out",
    "recognition": "identification", "suggestion": "proposal", "summary": "summarisation",
    "transcription": "transcribing",
}  # fmt: skip
_SPELT = {
    "analyse": "analyze", "centre": "center", "colour": "color", "grey": "gray", "licence": "license",
    "judgement": "judgment", "recognise": "recognize", "jewellery": "jewelry", "tyre": "tire",
}  # fmt: skip
_WORDS = {
    "photograph": "photo", "picture": "image", "advert": "advertisement", "car": "automobile", "lorry": "truck",
    "maximum": "largest value", "minimum": "smallest value", "shop": "store", "film": "movie", "street": "road",
}  # fmt: skip


class Plant(NamedTuple):
    """A label that says the same as another, and the rule that made it."""

    label: str
    rule: str


def plant(label: str, seed: int) -> Plant | None:
    """A near-duplicate of a label; None where no rule applies."""
    ways = [(name, made) for name, rule in _RULES.items() if (made := rule(label)) is not None and made != label]
    if not ways:
        return None
    name, made = ways[int(draw("plant", seed, label) * len(ways))]
    return Plant(made, name)


def _parts(label: str) -> tuple[str, str] | None:
    rest, _, last = label.rpartition(" ")
    return (rest, last) if rest else None


def _last(with_last: Callable[[str, str], str | None]) -> Callable[[str], str | None]:
    def rule(label: str) -> str | None:
        parts = _parts(label)
        return with_last(*parts) if parts else None

    return rule


def _swapped(words: dict[str, str]) -> Callable[[str], str | None]:
    pattern = re.compile(rf"\b({'|'.join(words)})(?=s?\b)")

    def rule(label: str) -> str | None:
        return pattern.sub(lambda found: words[found[1]], label, count=1)

    return rule


def _plural(label: str) -> str | None:
    if label.endswith(("ss", "is")):
        return None
    return label[:-1] if label.endswith("s") else f"{label}s"


_RULES: dict[str, Callable[[str], str | None]] = {
    "plural": _plural,
    "of": _last(lambda rest, last: f"{last} of {rest}"),
    "of the": _last(lambda rest, last: f"{last} of the {rest}"),
    "reordered": _last(lambda rest, last: f"{last} {rest}"),
    "in the image": lambda label: f"{label} in the image",
    "verb": _last(lambda rest, last: f"{_VERBS[last]} the {rest}" if last in _VERBS else None),
    "gerund": _last(lambda rest, last: f"{_GERUNDS[_VERBS[last]]} the {rest}" if last in _VERBS else None),
    "gerund last": _last(lambda rest, last: f"{rest} {_GERUNDS[_VERBS[last]]}" if last in _VERBS else None),
    "synonym": _last(lambda rest, last: f"{rest} {_SAME[last]}" if last in _SAME else None),
    "spelling": _swapped(_SPELT),
    "word": _swapped(_WORDS),
    "hyphens": lambda label: label.replace(" ", "-", 1) if label.count(" ") > 1 else None,
}
