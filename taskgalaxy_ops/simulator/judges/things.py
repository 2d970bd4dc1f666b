"""Recognising things: each judge shows the classifier other cuts of the image. ``a`` the middle and its mirror image,
``b`` all of it, padded to a square, ``c`` overlapping squares along the longer side and one that is closer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taskgalaxy_ops.models.encoders import conse
from taskgalaxy_ops.simulator.judges import words
from taskgalaxy_ops.simulator.judges.views import View


def _spans(text: str) -> frozenset[int]:
    """Class indices of a list such as "7-24 80 127-146"."""
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _read(part: str) -> dict[str, frozenset[int]]:
    text = Path(__file__).with_name("groups.yaml").read_text("utf-8")
    return {name: _spans(spans) for name, spans in yaml.safe_load(text)[part].items()}


GROUPS = _read("groups")
_KINDS = _read("kinds")


def probabilities(view: View) -> NDArray[np.float64]:
    """(1000,): how likely each class is, the mean over this judge's cuts."""

    def make() -> NDArray[np.float64]:
        model = conse.classifier()
        each = [model.probabilities(cut).astype(float) for cut in _cuts(view.judge, view.image)]
        return np.asarray(np.mean(each, axis=0))

    return view.part("classes", make)


def _cuts(judge: str, image: Image.Image) -> Iterable[Image.Image]:
    if judge == "a":
        yield image
        yield ImageOps.mirror(image)
        return
    side = max(image.size)
    if judge == "b":  # the classifier cuts off a sixteenth on each side: as much is added
        middle = tuple(int(v) for v in np.asarray(image.resize((8, 8), Image.Resampling.BOX)).mean(axis=(0, 1)))
        square = Image.new("RGB", (side * 8 // 7, side * 8 // 7), (middle[0], middle[1], middle[2]))
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        yield square
        yield image
        return
    short = min(image.size)
    for share in (0.25, 0.5, 0.75) if side > 1.1 * short else (0.5,):
        left, top = round((image.width - short) * share), round((image.height - short) * share)
        yield image.crop((left, top, left + short, top + short))
    yield ImageOps.crop(image, round(short * 0.08))


def share(view: View, group: str) -> float:
    """How likely the image shows something of a group, 0 to 1."""
    return float(probabilities(view)[sorted(GROUPS[group])].sum())


def classes(name: str) -> frozenset[int]:
    """The classes that go by a name: one class, or those of a kind ("dog"); none if the name is not known."""
    wanted = name.strip().lower().rstrip(".")
    names = [n.lower() for n in conse.classifier().names]
    exact = {i for i, n in enumerate(names) if words.squash(n) == words.squash(wanted)}
    exact = exact or {i for i, n in enumerate(names) if words.squash(re.sub(r"\(.*?\)", "", n)) == words.squash(wanted)}
    if wanted in _KINDS:
        return _KINDS[wanted]
    return frozenset(exact or {i for i, n in enumerate(names) if re.search(rf"\b{re.escape(wanted)}$", n)})


def top(view: View, group: frozenset[int] | None = None) -> tuple[str, float]:
    """The likeliest class, of a group where given, and how likely it is."""
    likely = probabilities(view)
    index = max(sorted(group), key=lambda i: likely[i]) if group else int(likely.argmax())
    return conse.classifier().names[index], float(likely[index])
