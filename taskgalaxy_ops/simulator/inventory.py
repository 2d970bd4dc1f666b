"""What the simulated teacher makes of an image beyond a task type's own question: what it lacks.

It looks with the teacher's eyes (``perception``, ``skills``); judges have their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from taskgalaxy_ops.simulator import absences, templates
from taskgalaxy_ops.simulator.perception import Scene
from taskgalaxy_ops.simulator.skills import shapes
from taskgalaxy_ops.simulator.skills.base import NoFit

# What tells that there may be one of what is missing, whether or not it can be read.
_HINTS = {
    "any date": r"\d{1,2}[/.-]\d{1,2}|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|\b(?:19|20)\d\d|date",
    "any time of day": r"\d\s?[:.]\s?\d\d|\d\s?[ap]\.?m|clock|time",
    "any price": r"[$€£]|\d[.,]\s?\d\d\b|price|cost|free",
    "any percentage": r"%|per ?cent",
    "any telephone number": r"\d[\d ()/.-]{4,}\d|phone|tel\b|call|mobile|fax",
    "any e-mail address": r"@|mail",
    "any web address": r"www|http|@|\w\.[a-z]{2,}|web|site",
}


def lacking(scene: Scene, path: str, params: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Questions that the image does not answer, each with what is missing. params: of one that it does answer."""
    known = templates.load()
    wanted = [name for name in params if name in absences.NAMED]
    for name in wanted:
        for value, missing in _absent(scene, name):
            for index in range(len(known[path].texts)):
                yield known[path].fill(index, **{**params, name: value}), missing
    for other, missing in absences.SIBLINGS.get(path.split("~", 1)[0], {}).items() if not wanted else ():
        if not missing:
            for value, named in _absent(scene, "shape"):
                yield known[other].fill(0, shape=value), named
        elif scene.segments and not re.search(_HINTS[missing], scene.text, re.IGNORECASE):
            yield known[other].fill(0), missing


def _absent(scene: Scene, name: str) -> Iterator[tuple[str, str]]:
    """What a question's parameter may name and the image does not show, and how it is called where it is missing."""
    phrase, values = absences.NAMED[name]
    if name == "shape":
        try:
            there = {thing.kind for thing in shapes.things(scene)}
        except NoFit:
            return
        yield from ((value, phrase.format(value)) for value in values if value not in there and None not in there)
        return
    text = _letters(scene.text)
    yield from ((value, phrase.format(value)) for value in values if text and _letters(value) not in text)


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
