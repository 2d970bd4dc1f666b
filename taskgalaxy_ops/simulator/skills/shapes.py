"""Skills for drawings of plain shapes, and for one thing on a plain background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.simulator.perception import Scene, colour_name
from taskgalaxy_ops.simulator.skills.base import (
    Asked,
    Found,
    asked,
    in_cell,
    many,
    need,
    one,
    other_regions,
    region,
    skill,
)

KINDS = ("circle", "rectangle", "triangle")
CORNERS = {"circle": 0, "rectangle": 4, "triangle": 3}
# Colours that a thing of one colour is drawn in so often that they have a name of their own.
_NAMED = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}
_OTHER_COLOURS = ("red", "green", "blue", "yellow", "black", "purple", "orange")


@dataclass(frozen=True)
class Thing:
    """A region that stands out from the plain background; lengths are shares of the image's width and height."""

    kind: str | None  # one of KINDS, None for another outline
    colour: str | None
    box: tuple[float, float, float, float]  # left, top, right, bottom
    middle: tuple[float, float]
    area: float

    @property
    def name(self) -> str:
        """Its outline's name, or "object"."""
        return self.kind or "object"


def things(scene: Scene) -> list[Thing]:
    """Everything that stands out from a plain background. Raises NoFit if the background is not plain."""
    if "things" not in scene.__dict__:
        scene.__dict__["things"] = _things(scene)
    found: list[Thing] | None = scene.__dict__["things"]
    if found is None:
        need(False, "no plain background with separate shapes")
    return found or []


def _things(scene: Scene) -> list[Thing] | None:
    from scipy import ndimage

    pixels = scene.small.astype(np.int16)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(edge, axis=0)
    if (np.abs(edge - ground).max(axis=1) < 24).mean() < 0.9:
        return None
    apart = np.abs(pixels - ground).max(axis=2) > 48
    labels, count = ndimage.label(apart)
    if not 1 <= count <= 200:
        return None
    found = []
    for number, part in enumerate(ndimage.find_objects(labels), 1):
        mask = labels[part] == number
        if mask.sum() >= max(12, 0.0008 * apart.size):
            found.append(_thing(mask, part, pixels, apart.shape))
    return found


def _thing(
    mask: NDArray[np.bool_], part: tuple[slice, slice], pixels: NDArray[np.int16], shape: tuple[int, int]
) -> Thing:
    from scipy import ndimage

    inner = ndimage.binary_erosion(mask)
    core = pixels[part][inner if inner.any() else mask]
    rgb = np.median(core, axis=0)
    plain = float((np.abs(core - rgb).max(axis=1) < 40).mean()) > 0.9
    top, bottom, left, right = part[0].start, part[0].stop, part[1].start, part[1].stop
    box = left / shape[1], top / shape[0], right / shape[1], bottom / shape[0]
    return Thing(
        _kind(mask) if plain else None,
        _colour(rgb) if plain else None,
        box,
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
        float(mask.sum()) / (shape[0] * shape[1]),
    )


def _colour(rgb: NDArray[np.float64]) -> str | None:
    for name, of in _NAMED.items():
        if np.abs(rgb - of).max() < 36:
            return name
    return colour_name(rgb)


def _kind(mask: NDArray[np.bool_]) -> str | None:
    height, width = mask.shape
    share = float(mask.mean())
    if min(height, width) < 4:
        return None
    if share > 0.94:
        return "rectangle"
    rows = mask.sum(axis=1).astype(float)
    grows = float(np.corrcoef(rows, np.arange(height))[0, 1]) if rows.std() > 0 else 0.0
    if 0.42 < share < 0.64 and abs(grows) > 0.97:
        return "triangle"
    if 0.7 < share < 0.9 and 0.85 < width / height < 1.18 and abs(grows) < 0.3:
        return "circle"
    return None


def _shapes(scene: Scene) -> list[Thing]:
    found = things(scene)
    need(found and all(t.kind for t in found) and len(found) <= 12, "no plain geometric shapes stand alone here")
    need(scene.graphic and not scene.segments, "not a plain drawing of shapes")
    return found


def _shape(scene: Scene) -> Thing:
    found = _shapes(scene)
    need(len(found) == 1, "there is more than one shape")
    return found[0]


def _thing_alone(scene: Scene) -> Thing:
    """The one thing on a plain background, of any outline."""
    found = things(scene)
    need(not scene.segments, "the image holds text rather than one object")
    need(len(found) == 1 and 0.005 < found[0].area < 0.6, "no single object on a plain background")
    left, top, right, bottom = found[0].box
    need(right - left < 0.85 and bottom - top < 0.85, "the object fills the whole image")
    return found[0]


def _a(thing: Thing) -> str:
    return f"a {thing.colour} {thing.name}" if thing.colour else f"a {thing.name}"


def _seen(thing: Thing) -> str:
    return f"one {thing.colour or 'single'} {thing.name} on a plain background"


_OUTLINE = {
    "circle": "Its outline is round without any corner.",
    "rectangle": "Its outline has four straight sides that meet at right angles.",
    "triangle": "Its outline has three straight sides that narrow to a tip.",
}


@skill("shapes & patterns~shape recognition~shape naming")
def naming(scene: Scene) -> Found:
    shape = _shape(scene)
    why = f"One shape stands out from the plain background. {_OUTLINE[shape.name]} So it is a {shape.name}."
    return one(_seen(shape), shape.name, KINDS, why)


@skill("shapes & patterns~shape recognition~shape colour identification")
def colour(scene: Scene) -> Found:
    shape = _shape(scene)
    need(shape.colour, "the shape's colour has no clear name")
    why = f"The only shape in the image is a {shape.name}. Its whole area is filled with {shape.colour}."
    return one(_seen(shape), str(shape.colour), _OTHER_COLOURS, why, shape=shape.name)


@skill("shapes & patterns~shape recognition~shape position")
def position(scene: Scene) -> Found:
    shape = _shape(scene)
    need(in_cell(*shape.middle), "the shape lies on the border between two parts")
    where = region(*shape.middle)
    return one(_seen(shape), where, other_regions(where), _place(shape, where), shape=shape.name)


def _place(thing: Thing, where: str) -> str:
    x, y = (round(100 * v) for v in thing.middle)
    return (
        f"The {thing.name} has its middle at about {x} % of the width from the left and {y} % of the height from the "
        f"top. In a grid of three by three that is the part called {where}."
    )


@skill("shapes & patterns~shape recognition~shape size estimation")
def size(scene: Scene) -> Found:
    shape = _shape(scene)
    need(shape.area < 0.2 or shape.area > 0.3, "the shape fills about a quarter of the image")
    answer = "less" if shape.area < 0.2 else "more"
    why = f"The {shape.name} covers about {max(1, round(100 * shape.area))} % of the image. That is {answer} than 25 %."
    return one(_seen(shape), answer, ("less", "more"), why)


@skill("shapes & patterns~shape recognition~shape counting")
def counting(scene: Scene) -> Found:
    shapes = _shapes(scene)
    count = len(shapes)
    parts = ", ".join(_a(shape) for shape in shapes)
    why = f"On the plain background there is {parts}. Counting them gives {count}."
    return one(f"{count} plain shape(s)", str(count), (str(count + 1), str(count + 2)), why)


@skill("shapes & patterns~shape recognition~shape presence check")
def presence(scene: Scene) -> Found:
    shapes = _shapes(scene)
    kinds = {shape.name for shape in shapes}
    found = "; ".join(_a(shape) for shape in shapes)

    def ask(kind: str) -> Asked:
        answer = "Yes" if kind in kinds else "No"
        why = f"Looking for a {kind}, what can be seen is {found}. So the answer is {answer.lower()}."
        return asked(answer, ("Yes", "No"), why, shape=kind)

    return many(f"plain shapes: {found}", [ask(kind) for kind in KINDS])


@skill("shapes & patterns~shape recognition~corner counting")
def corners(scene: Scene) -> Found:
    shape = _shape(scene)
    count = CORNERS[shape.name]
    why = f"The shape is a {shape.name}. {_OUTLINE[shape.name]} So it has {count} corners."
    return one(_seen(shape), str(count), ("0", "3", "4", "5"), why)


@skill("logical reasoning~inference~false premise detection")
def false_premise(scene: Scene) -> Found:
    shapes = _shapes(scene)
    need(len(shapes) == 1 and shapes[0].colour, "there is more than one shape, or one of no clear colour")
    only = shapes[0]

    def ask(kind: str) -> Asked:
        why = f"The question asks about a {kind}. The only shape in the image is {_a(only)}, so there is no {kind}."
        return asked(f"There is no {kind} in the image.", (f"The {kind} is {only.colour}.",), why, shape=kind)

    return many(_seen(only), [ask(kind) for kind in KINDS if kind != only.kind])


@skill("image description~short caption writing")
def caption(scene: Scene) -> Found:
    shape = _shape(scene)
    need(shape.colour, "the shape's colour has no clear name")
    ground = np.median(np.concatenate([scene.small[0], scene.small[-1]]), axis=0)
    tone = "light" if ground.mean() > 170 else "dark" if ground.mean() < 85 else "plain"
    others = [f"A {c} {k} on a {tone} background." for c in _OTHER_COLOURS for k in KINDS]
    wrong = [w for w in others if str(shape.colour) not in w and shape.name not in w]
    why = (
        f"There is one {shape.name} in the image and nothing else. It is {shape.colour}. The background is {tone} and "
        "plain."
    )
    return one(_seen(shape), f"A {shape.colour} {shape.name} on a {tone} background.", wrong, why)


@skill("colour~colour of things~object colour identification")
def thing_colour(scene: Scene) -> Found:
    thing = _thing_alone(scene)
    need(thing.colour, "the object has no single clear colour")
    why = f"One {thing.name} stands out from the plain background. Nearly all of its area is {thing.colour}."
    return one(_seen(thing), str(thing.colour), _OTHER_COLOURS, why)


@skill("spatial relations~position in the image~main object position")
def thing_position(scene: Scene) -> Found:
    thing = _thing_alone(scene)
    need(in_cell(*thing.middle), "the object lies on the border between two parts")
    where = region(*thing.middle)
    return one(_seen(thing), where, other_regions(where), _place(thing, where))


@skill("spatial relations~position in the image~quadrant of object")
def quadrant(scene: Scene) -> Found:
    thing = _thing_alone(scene)
    x, y = thing.middle
    need(abs(x - 0.5) > 0.07 and abs(y - 0.5) > 0.07, "the object lies on the border between two quadrants")
    words = ("upper", "lower"), ("left", "right")
    answer = f"{words[0][y > 0.5]} {words[1][x > 0.5]}"
    wrong = [f"{a} {b}" for a in words[0] for b in words[1]]
    why = (
        f"The middle of the {thing.name} lies {'above' if y < 0.5 else 'below'} the middle of the image and to the "
        f"{words[1][x > 0.5]} of it. So it is in the {answer} quadrant."
    )
    return one(_seen(thing), answer, wrong, why, object=thing.name)


@skill("spatial relations~position in the image~object centring")
def centring(scene: Scene) -> Found:
    thing = _thing_alone(scene)
    off = float(np.hypot(thing.middle[0] - 0.5, thing.middle[1] - 0.5))
    need(off < 0.06 or off > 0.15, "the object is neither clearly in the middle nor clearly off it")
    answer = "in the middle" if off < 0.06 else "off-centre"
    why = (
        f"The middle of the {thing.name} is about {round(100 * off)} % of the side away from the middle of the image. "
        f"So it is {answer}."
    )
    return one(_seen(thing), answer, ("in the middle", "off-centre"), why)


@skill("detection & localisation~object localisation")
def localisation(scene: Scene) -> Found:
    thing = _thing_alone(scene)
    need(thing.area > 0.01, "the object is too small for a box in whole per cent")
    box = [round(100 * side) for side in thing.box]
    width, height = box[2] - box[0], box[3] - box[1]
    moves = [(dx, dy) for dx in (-width, 0, width) for dy in (-height, 0, height) if (dx, dy) != (0, 0)]
    moved = [(box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy) for dx, dy in moves]
    wrong = [", ".join(map(str, sides)) for sides in moved if min(sides) >= 0 and max(sides) <= 100]
    why = (
        f"The {thing.name} starts at {box[0]} % and ends at {box[2]} % of the width. From the top it reaches from "
        f"{box[1]} % to {box[3]} % of the height."
    )
    wrong = wrong or [f"{box[0] // 2}, {box[1] // 2}, {(box[0] + box[2]) // 2}, {(box[1] + box[3]) // 2}"]
    return one(_seen(thing), ", ".join(map(str, box)), wrong, why, object=thing.name)
