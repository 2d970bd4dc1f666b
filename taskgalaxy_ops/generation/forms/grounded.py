"""A question where something is, answered by its box: [x1, y1, x2, y2] in whole numbers from 0 to 1000.

They are thousandths of width and height of the picture that is asked about, from its upper left corner, so that they
hold for any rendition. An answer is verified by how far the boxes overlap: right is one whose intersection over union
with the sample's is at least 0.5 (``right``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.generation.forms.verification import Verification
from taskgalaxy_ops.models.request import ANY_TEXT, MalformedReplyError

SIDES = ("x1", "y1", "x2", "y2")
WHOLE = 1000  # of width and height
_SIDES = f"[{', '.join(SIDES)}]"
CLOSING = f"Answer with its box {_SIDES}, in whole numbers from 0 to {WHOLE} of the image's width and height."
CLOSINGS = {
    "": CLOSING,
    "de": f"Antworte mit dem Rahmen {_SIDES}, in ganzen Zahlen von 0 bis {WHOLE} der Breite und Höhe des Bildes.",
    "es": f"Responde con su recuadro {_SIDES}, en enteros de 0 a {WHOLE} del ancho y alto de la imagen.",
    "fr": f"Réponds par son cadre {_SIDES}, en entiers de 0 à {WHOLE} de la largeur et de la hauteur de l'image.",
}

LEAST_OVERLAP = 0.5  # intersection over union of boxes that say the same
_LEAST_SIDE, _LEAST_AREA = 4, 100  # of WHOLE, and of its square: anything smaller is a sliver
_MOST_AREA = 0.9  # share of the image: a larger box says nothing
_BOX = re.compile(r"\[?\s*(\d{1,4})\s*,\s*(\d{1,4})\s*,\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\]?")

Box = tuple[int, int, int, int]


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - width * height
    return width * height / both if both > 0 else 0.0


def box_of(answer: str) -> Box | None:
    """The one box in an answer; None where it holds none, or several, or one that is no box."""
    found = _BOX.findall(answer)
    if len(found) != 1:
        return None
    x1, y1, x2, y2 = map(int, found[0])
    return (x1, y1, x2, y2) if x1 < x2 <= WHOLE and y1 < y2 <= WHOLE else None


def right(answer: str, said: str, least: float = LEAST_OVERLAP) -> bool:
    """Whether what is said is the answer's box, to an intersection over union of ``least``."""
    own, other = box_of(answer), box_of(said)
    return own is not None and other is not None and iou(own, other) >= least


def _check(reply: Mapping[str, Any]) -> None:
    x1, y1, x2, y2 = (reply[side] for side in SIDES)
    if reply["question"] == ANY_TEXT:
        raise MalformedReplyError(f"`{ANY_TEXT}` stands for a text in the example; write the text")
    if not all(0 <= reply[side] <= WHOLE for side in SIDES):
        raise MalformedReplyError(f"a box's sides are 0 to {WHOLE} of the image's width and height, and not pixels")
    if x1 >= x2 or y1 >= y2:
        raise MalformedReplyError("`x1` must be left of `x2`, and `y1` above `y2`")
    area = (x2 - x1) * (y2 - y1)
    if min(x2 - x1, y2 - y1) < _LEAST_SIDE or area < _LEAST_AREA:
        raise MalformedReplyError("the box is too small to hold anything: give all of what is asked for")
    if area > _MOST_AREA * WHOLE**2:
        raise MalformedReplyError("the box is nearly the whole image: ask for a part of it")


def _texts(reply: Mapping[str, Any]) -> Texts:
    if not reply["question"]:
        return Texts("", "")
    return Texts(f"{reply['question']}\n{CLOSINGS[reply['language']]}", str([reply[side] for side in SIDES]))


GROUNDED = QuestionForm(
    reply={"question": str, **dict.fromkeys(SIDES, int)},
    check=_check,
    texts=_texts,
    verify=lambda _: Verification("box_iou", LEAST_OVERLAP),
    example={"x1": 120, "y1": 85, "x2": 430, "y2": 600},
    suits=("!image description", "!image quality & photography", "!comparison", "!mathematics"),
    version="1",
    languages=CLOSINGS.keys() - {""},
)
