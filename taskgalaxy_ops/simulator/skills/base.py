"""What a skill is: it looks at a scene for one task type, and gives the questions that it can answer for certain.

A skill raises NoFit where the image is not the kind of image that the task type is for, or where the answer would be
doubtful. The teacher picks one of the questions; nothing here draws at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from taskgalaxy_ops.simulator.perception import SURE, Row, Scene

REGIONS = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)


class NoFit(Exception):
    """The task type does not fit the image; its text says why in at most 15 words."""


@dataclass(frozen=True)
class Asked:
    """A question that can be asked: its parameters, the right answer, wrong ones of the same form, and the grounds."""

    answer: str
    wrong: tuple[str, ...]
    reasoning: str
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a skill gives: what it saw (at most 15 words) and at least one question."""

    seen: str
    asked: tuple[Asked, ...]


Skill = Callable[[Scene], Found]
SKILLS: dict[str, Skill] = {}


def skill(path: str) -> Callable[[Skill], Skill]:
    """Registers the skill of a task type."""

    def register(function: Skill) -> Skill:
        SKILLS[path] = function
        return function

    return register


def one(seen: str, answer: str, wrong: Iterable[str], reasoning: str, **params: str) -> Found:
    """A single question. Raises NoFit if there is no wrong answer to tell the right one from."""
    return many(seen, [asked(answer, wrong, reasoning, **params)])


def asked(answer: str, wrong: Iterable[str], reasoning: str, **params: str) -> Asked:
    """A question; wrong answers that equal the right one, letter case apart, are left out."""
    others = tuple(dict.fromkeys(w for w in wrong if w and w.casefold() != answer.casefold()))
    return Asked(answer, others, reasoning, params)


def many(seen: str, questions: Iterable[Asked]) -> Found:
    """Those of the questions that have a wrong answer. Raises NoFit if there is none."""
    usable = tuple(q for q in questions if q.wrong)
    if not usable:
        raise NoFit("the image leaves nothing to ask about")
    return Found(" ".join(seen.split()[:15]), usable)


def need(condition: object, why: str) -> None:
    """Raises NoFit with ``why`` unless the condition holds."""
    if not condition:
        raise NoFit(why)


def sure_rows(scene: Scene, least: int = 1) -> list[Row]:
    """All rows, if all are read surely. Raises NoFit if fewer than ``least`` were found or some are unsure."""
    need(scene.segments, "no text can be seen in the image")
    need(len(scene.rows) >= least, f"fewer than {least} lines of text")
    need(all(row.sure >= SURE for row in scene.rows), "some of the text cannot be read with certainty")
    return scene.rows


def region(x: float, y: float) -> str:
    """The name of the cell of the grid of three by three; x and y from 0 to 1."""
    return REGIONS[min(2, int(y * 3))][min(2, int(x * 3))]


def in_cell(x: float, y: float, margin: float = 0.05) -> bool:
    """Whether a point lies clear of the borders between the cells of that grid."""
    return all(abs(v - b) > margin for v in (x, y) for b in (1 / 3, 2 / 3))


def other_regions(right: str) -> list[str]:
    """The regions that lie on another side than ``right``."""
    place = {name: (x, y) for y, row in enumerate(REGIONS) for x, name in enumerate(row)}
    px, py = place[right]
    return [name for name, (x, y) in place.items() if max(abs(x - px), abs(y - py)) >= (2 if (px, py) != (1, 1) else 1)]


def quoted(text: str) -> str:
    """The text in quotation marks, shortened for reasoning."""
    return f'"{text if len(text) <= 60 else text[:57].rstrip() + "..."}"'
