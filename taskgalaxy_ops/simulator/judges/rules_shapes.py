"""Rules on shapes and on the one thing that stands out from a plain ground."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from taskgalaxy_ops.simulator.judges import figures, finding, palettes, rules_colours, words
from taskgalaxy_ops.simulator.judges.figures import Figure
from taskgalaxy_ops.simulator.judges.finding import Found, SenselessError
from taskgalaxy_ops.simulator.judges.views import View

if TYPE_CHECKING:
    from taskgalaxy_ops.simulator.judges.checking import Rule

Params = Mapping[str, str]
SHAPES = ("circle", "rectangle", "triangle")
_CORNERS = {"circle": 0, "triangle": 3, "rectangle": 4}
_MOST = 12  # more patches than this are no shapes laid on a ground


def _shapes(view: View) -> list[Figure]:
    found = figures.figures(view)
    if not figures.plain(view) or len(found) > _MOST:
        raise SenselessError("I see no plain ground with shapes on it")
    return found


def _one(view: View) -> Figure:
    found = _shapes(view)
    if not found:
        raise SenselessError("I see no shape")
    return found[0]


def _named(view: View, params: Params) -> Figure:
    """The greatest shape of the name that the question gives."""
    wanted = params["shape"].strip().lower()
    for figure in _shapes(view):
        if figure.shape == wanted:
            return figure
    raise SenselessError(f"I see no {wanted}")


def colour_names(view: View, figure: Figure) -> list[str]:
    """The names that a figure's colour can go by, this judge's own first."""
    own = palettes.name_of(view.judge, figure.rgb)
    return [own, *sorted(palettes.nearly(view.judge, figure.rgb) - {own})]


def _naming(view: View, _: Params) -> Found:
    return finding.choice("I see a shape", _one(view).shape)


def _colour(view: View, params: Params) -> Found:
    return finding.colour(f"the {params['shape']}", *colour_names(view, _named(view, params)))


def _position(view: View, params: Params) -> Found:
    figure = _named(view, params)
    return finding.region(f"the {figure.shape}", *_middle(view, figure), slack=0.045)


def _middle(view: View, figure: Figure) -> tuple[float, float]:
    return figure.centre if view.judge == "c" else (figure.x, figure.y)


def _size(view: View, _: Params) -> Found:
    area = _one(view).area
    right = ["less"] * (area < 0.27) + ["more"] * (area > 0.23)
    return finding.choice(f"it fills {area:.0%}", *right)


def _count(view: View, _: Params) -> Found:
    return finding.number("the number of shapes", len(_shapes(view)))


def _presence(view: View, params: Params) -> Found:
    wanted = params["shape"].strip().lower()
    if wanted not in SHAPES:
        raise SenselessError(f"I know no shape '{wanted}'")
    seen = [figure.shape for figure in _shapes(view)]
    return finding.yes_no(f"I see {', '.join(seen[:4]) or 'no shape'}", wanted in seen)


def _corner_count(view: View, _: Params) -> Found:
    figure = _one(view)
    return finding.number(f"a {figure.shape}'s number of corners", _CORNERS[figure.shape])


def _absent(view: View, params: Params) -> Found:
    wanted = params["shape"].strip().lower()
    seen = {figure.shape for figure in _shapes(view)}
    if wanted in seen:
        raise SenselessError(f"there is a {wanted}")

    def agrees(said: str) -> bool:
        return wanted in said.lower() and ("no " in said.lower() or "not " in said.lower())

    return Found(f"I see no {wanted}", agrees)


def _caption(view: View, _: Params) -> Found:
    figure = _one(view)
    pixels = rules_colours.border(view)
    middle = np.median(pixels, axis=0)
    ground = palettes.nearly(view.judge, (float(middle[0]), float(middle[1]), float(middle[2])))
    mine = colour_names(view, figure)
    light = float(palettes.lab(middle[None])[0, 0])
    ground |= {"light"} if light > 70 else {"dark"} if light < 40 else set()

    def agrees(said: str) -> bool:
        head, _, tail = said.lower().partition(" on ")
        return (
            figure.shape in head
            and any(name in mine for name in palettes.named(head))
            and any(word in ground for word in [*palettes.named(tail), *tail.split()])
        )

    return Found(f"I see a {mine[0]} {figure.shape}", agrees)


def _object(view: View) -> Figure:
    """The one thing on a plain ground."""
    found = figures.figures(view)
    if not figures.plain(view) or not found:
        raise SenselessError("nothing stands out from a plain ground")
    return found[0]


def _object_colour(view: View, _: Params) -> Found:
    return finding.colour("the object", *colour_names(view, _object(view)))


def _object_position(view: View, _: Params) -> Found:
    return finding.region("the object", *_middle(view, _object(view)), slack=0.045)


def _quadrant(view: View, _: Params) -> Found:
    x, y = _middle(view, _object(view))
    right = {
        f"{'upper' if y + dy < 0.5 else 'lower'} {'left' if x + dx < 0.5 else 'right'}"
        for dx in (-0.025, 0.025)
        for dy in (-0.025, 0.025)
    }
    here = f"{'upper' if y < 0.5 else 'lower'} {'left' if x < 0.5 else 'right'}"
    return finding.choice("its middle lies", here, *(right - {here}))


def _centring(view: View, _: Params) -> Found:
    x, y = _middle(view, _object(view))
    distance = max(abs(x - 0.5), abs(y - 0.5))
    right = ["in the middle"] * (distance < 0.11) + ["off-centre"] * (distance > 0.09)
    return finding.choice(f"it lies {distance:.0%} off the middle", *right)


def _box(view: View, _: Params) -> Found:
    box = _object(view).box

    def agrees(said: str) -> bool:
        values = [v / 100 for v in words.numbers(said)]
        return len(values) == 4 and figures.overlap(box, (values[0], values[1], values[2], values[3])) > 0.6

    return Found(f"its box is {', '.join(f'{v:.0%}'.rstrip('%') for v in box)}", agrees)


RULES: dict[str, Rule] = {
    "shape naming": _naming,
    "shape colour identification": _colour,
    "shape position": _position,
    "shape size estimation": _size,
    "shape counting": _count,
    "shape presence check": _presence,
    "corner counting": _corner_count,
    "false premise detection": _absent,
    "short caption writing": _caption,
    "object colour identification": _object_colour,
    "main object position": _object_position,
    "quadrant of object": _quadrant,
    "object centring": _centring,
    "object localisation": _box,
}
