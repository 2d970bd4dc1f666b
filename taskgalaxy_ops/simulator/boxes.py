"""Questions where something is, as simulated models see them: the texts, and boxes in thousandths of the image."""

from __future__ import annotations

import re
from typing import NamedTuple

Box = tuple[float, float, float, float]  # left, top, right, bottom; shares of width and height

_WHOLE = 1000
_TEXTS = ("Where is the text “{}”?", "Where in the image does “{}” stand?", "Where can “{}” be read?")
_SHAPES = ("Where is the {}?", "Where in the image can the {} be seen?")
_CLOSING = "Answer with its box "
_BOX = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")


class Sought(NamedTuple):
    """What a question seeks: a text as printed, or a shape."""

    text: str = ""
    colour: str = ""
    shape: str = ""


def ask(sought: Sought, index: int) -> str:
    """The ``index``-th question (counted around) for it."""
    texts = _TEXTS if sought.text else _SHAPES
    return texts[index % len(texts)].format(sought.text or f"{sought.colour} {sought.shape}".strip())


def bare(question: str) -> str | None:
    """The question without what the form adds; None: it does not ask for a box."""
    first, _, closing = question.rpartition("\n")
    return first if closing.startswith(_CLOSING) else None


def read(question: str) -> Sought | None:
    """What a bare question seeks; None: it is none of ours."""
    for text in _TEXTS:
        if found := re.fullmatch(re.escape(text).replace(r"\{\}", "(.+)"), question, re.DOTALL):
            return Sought(text=found[1])
    for text in _SHAPES:
        if found := re.fullmatch(re.escape(text).replace(r"\{\}", r"(?:(\w+) )?(\w+)"), question):
            return Sought(colour=found[1] or "", shape=found[2])
    return None


def told(box: Box) -> dict[str, int]:
    """A box as the fields of a reply."""
    return dict(zip(("x1", "y1", "x2", "y2"), (round(side * _WHOLE) for side in box), strict=True))


def written(fields: dict[str, int]) -> str:
    """The fields as the form writes them."""
    return str(list(fields.values()))


def box(answer: str) -> Box | None:
    """The box in an answer; None: there is none."""
    found = _BOX.fullmatch(answer.strip())
    if found is None:
        return None
    left, top, right, bottom = (int(side) / _WHOLE for side in found.groups())
    return left, top, right, bottom
