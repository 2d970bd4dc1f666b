"""The simulated teacher: judges whether a task type fits an image, and writes a question with its answer.

It answers only what it can compute from the pixels; everything else is refused as not fitting. What it says depends on
the image, the task type and the parts of the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.simulator import perception, templates
from taskgalaxy_ops.simulator.skills import SKILLS, Found, NoFit

_T = TypeVar("_T")


@dataclass(frozen=True)
class Written:
    """A question, its right answer, a wrong one of the same form (for planting), and its grounds: 2 to 5 sentences."""

    question: str
    answer: str
    wrong: str
    reasoning: str


def fits(image: Image.Image, path: str) -> tuple[bool, str]:
    """Whether the task type can be asked of the image, and why in at most 15 words. Safe in several threads."""
    found = _look(image, path)
    return (True, found.seen) if isinstance(found, Found) else (False, found)


def write(image: Image.Image, path: str, seed_parts: tuple[object, ...]) -> Written | None:
    """A question for the image; None where nothing can be asked. The same parts give the same question."""
    found = _look(image, path)
    if not isinstance(found, Found):
        return None
    asked = _pick(found.asked, seed_parts, "question")
    template = templates.load()[path]
    index = int(draw(*seed_parts, "template") * len(template.texts))
    return Written(
        template.fill(index, **asked.params), asked.answer, _pick(asked.wrong, seed_parts, "wrong"), asked.reasoning
    )


def _look(image: Image.Image, path: str) -> Found | str:
    skill = SKILLS.get(path)
    if skill is None:
        return "this kind of task cannot be answered from the image with certainty"
    scene = perception.scene(image)
    with scene.lock:  # what was found for one path is kept with the scene
        known: dict[str, Found | str] = scene.__dict__.setdefault("found", {})
        if path not in known:
            try:
                known[path] = skill(scene)
            except NoFit as reason:
                known[path] = str(reason)
        return known[path]


def _pick(of: Sequence[_T], seed_parts: tuple[object, ...], what: str) -> _T:
    return of[int(draw(*seed_parts, what) * len(of))]
