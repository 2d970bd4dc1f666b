"""What the simulated teacher makes of an image beyond a task type's own question: what it lacks, and where things are.

It looks with the teacher's eyes (``perception``, ``skills``); judges have their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from taskgalaxy_ops.simulator import absences, templates
from taskgalaxy_ops.simulator.boxes import Box, Sought
from taskgalaxy_ops.simulator.perception import SURE, Row, Scene
from taskgalaxy_ops.simulator.skills import shapes
from taskgalaxy_ops.simulator.skills.base import NoFit
from taskgalaxy_ops.simulator.skills.shapes import Thing
from taskgalaxy_ops.simulator.skills.text import single

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


# First-level nodes whose questions are about the whole image, or about no place.
_NOWHERE = frozenset({"image quality & photography", "comparison", "mathematics"})
_LEAST, _MOST = 0.006, 0.8  # of a box: its shorter side, and its area


def placed(scene: Scene, path: str) -> list[tuple[Sought, Box]]:
    """The lines of text and the shapes that a task type may ask for and that are the only ones of their kind."""
    node = path.split("~", 1)[0]
    if node in _NOWHERE or (node == "colour" and scene.segments):
        return []
    found = [(Sought(text=row.text), _box(scene, row)) for row in sure_lines(scene)]
    if not scene.segments:
        drawn = plain_shapes(scene)
        names = [(thing.colour or "", thing.name) for thing in drawn]
        alone = [(names[n], thing.box) for n, thing in enumerate(drawn) if names.count(names[n]) == 1]
        kinds = [shape for _, shape in names]
        found = [(Sought(colour=c * (kinds.count(s) > 1), shape=s), box) for (c, s), box in alone]
    return [
        (sought, (left, top, right, bottom))
        for sought, (left, top, right, bottom) in found
        if min(right - left, bottom - top) >= _LEAST and (right - left) * (bottom - top) <= _MOST
    ]


def sure_lines(scene: Scene) -> list[Row]:
    """Lines of text that are read for certain, hold a word, and stand nowhere else in the image."""
    lines = [(row, _letters(row.text)) for row in scene.rows if row.sure >= SURE and single(row)]
    every = [_letters(row.text) for row in scene.rows]
    return [
        row
        for row, said in lines
        if sum(map(str.isalpha, said)) >= 3 and len(row.text) <= 60 and sum(said in other for other in every) == 1
    ]


def plain_shapes(scene: Scene) -> list[Thing]:
    """The shapes of a drawing that holds nothing else; [] for any other image."""
    try:
        found = shapes.things(scene)
    except NoFit:
        return []
    return found if scene.graphic and len(found) <= 12 and all(thing.kind for thing in found) else []


def _box(scene: Scene, row: Row) -> Box:
    return row.left / scene.width, row.top / scene.height, row.right / scene.width, row.bottom / scene.height


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
