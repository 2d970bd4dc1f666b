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
from taskgalaxy_ops.simulator import (
    absences,
    boxes,
    claims,
    comparing,
    descriptions,
    follow_ups,
    german,
    inventory,
    options,
    perception,
    several,
    templates,
)
from taskgalaxy_ops.simulator.boxes import Box
from taskgalaxy_ops.simulator.follow_ups import FollowUp, Turn
from taskgalaxy_ops.simulator.memory import Memory
from taskgalaxy_ops.simulator.perception import Scene
from taskgalaxy_ops.simulator.skills import SKILLS, Found, NoFit
from taskgalaxy_ops.simulator.skills.base import Asked

_KEPT = 20_000  # findings, of 130 images and all task types: a few KB each at most

_LEAST_STATED = 4  # statements of a description
MOST_TURNS = 4
_WORDINGS = 60  # a multiple of every number of wordings
_NONE = 0.3  # share of the questions how many images have something, in which any may be asked, of which most have none
_OF_ONE = 0.5  # share of questions about one of several images, where nothing but texts tells these apart

_T = TypeVar("_T")


@dataclass(frozen=True)
class Written:
    """A question, its right answer, a wrong one of the same form (for planting), and its grounds: 2 to 5 sentences."""

    question: str
    answer: str
    wrong: str
    reasoning: str
    others: tuple[str, ...] = ()  # further wrong ones, for options


def fits(image: Image.Image, path: str, key: str = "") -> tuple[bool, str]:
    """Whether the task type can be asked of the image, and why in at most 15 words. Safe in several threads.

    key: what names the image, where that is known; else its pixels are hashed.
    """
    found = _look(image, path, key)
    return (True, found.seen) if isinstance(found, Found) else (False, found)


def write(image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = "") -> Written | None:
    """A question for the image; None where nothing can be asked. The same parts give the same question."""
    found = _look(image, path, key)
    return _first(found, path, seed_parts)[1] if isinstance(found, Found) else None


def conversation(image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = "") -> list[Written]:
    """Two to four turns that begin with a question of the task type; [] where not even two can be asked.

    How many, and which of those that build on the turns before, is drawn. The same parts give the same turns.
    """
    found = _look(image, path, key)
    if not isinstance(found, Found):
        return []
    asked, written = _first(found, path, seed_parts)
    turns, said = [Turn(path=path, params=asked.params, answer=asked.answer)], [written]
    most = 2 + int(draw(*seed_parts, "turns") * (MOST_TURNS - 1))
    left = sorted(follow_ups.of(path), key=lambda each: draw(*seed_parts, "follow-up", each.text))
    while len(turns) < most and (going_on := _next(image, left, turns, (*seed_parts, len(turns)), key)):
        follow_up, asked = going_on
        if not follow_up.repeats:
            left.remove(follow_up)
        turns.append(Turn(path=follow_up.path, params=asked.params, answer=asked.answer))
        wrong = _pick(asked.wrong, (*seed_parts, len(turns)), "wrong")
        said.append(Written(templates.filled(follow_up.text, asked.params), asked.answer, wrong, asked.reasoning))
    return said if len(said) > 1 else []


def _next(
    image: Image.Image, left: Sequence[FollowUp], before: Sequence[Turn], seed_parts: tuple[object, ...], key: str
) -> tuple[FollowUp, Asked] | None:
    """The first of the follow-ups that makes sense now and asks something new, and what it asks; None: none does."""
    known = [(turn.path, turn.params) for turn in before]
    for each in left:
        bound = each.bound(before)
        found = _look(image, each.path, key) if bound is not None else ""
        if bound is None or not isinstance(found, Found):
            continue
        new = [
            asked
            for asked in found.asked
            if bound.items() <= asked.params.items() and (each.path, asked.params) not in known
        ]
        if new:
            return each, _pick(new, seed_parts, "question")
    return None


def _first(found: Found, path: str, seed_parts: tuple[object, ...]) -> tuple[Asked, Written]:
    """A question of what was found: as the skill has it, and as it is written."""
    asked = _pick(found.asked, seed_parts, "question")
    template = templates.load()[path]
    index = int(draw(*seed_parts, "template") * len(template.texts))
    wrong = _pick(asked.wrong, seed_parts, "wrong")
    others = sorted(set(asked.wrong) - {wrong}, key=lambda each: draw(*seed_parts, "other", each))
    return asked, Written(template.fill(index, **asked.params), asked.answer, wrong, asked.reasoning, tuple(others))


def answer(image: Image.Image, path: str, question: str, key: str = "") -> Asked | None:
    """What answers a question that `write` asks of the image; None where it asks none like it."""
    found, template = _look(image, path, key), templates.load().get(path)
    if not isinstance(found, Found) or template is None:
        return None
    forms = range(len(template.texts))
    return next(
        (one for one in found.asked for at in forms if template.fill(at, **one.params).strip() == question), None
    )


def of_options(image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = "") -> Written | None:
    """A question for options; None where nothing can be asked, as where it would be answered by yes or no."""
    found, pick = _look(image, path, key), options.pick(path)
    if not isinstance(found, Found) or (pick is None and templates.load()[path].kind == "yes/no"):
        return None
    if pick is None:
        return _first(found, path, seed_parts)[1]
    right, wrong = (
        sorted(each.params[pick.name] for each in found.asked if (each.answer == pick.right) is so)
        for so in (True, False)
    )
    if not right or len(wrong) < options.LEAST_WRONG:
        return None
    others = sorted(wrong, key=lambda each: draw(*seed_parts, "other", each))
    return Written(pick.question, _pick(right, seed_parts, "question"), others[0], "", tuple(others[1:]))


def yes_no(image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = "") -> tuple[str, str] | None:
    """A question that is answered by yes and one by no, "" for one that there is none of; None where nothing can be
    asked. The same parts give the same questions."""
    found, known = _look(image, path, key), claims.of(path)
    if known is None or not isinstance(found, Found):
        return None
    index = int(draw(*seed_parts, "template") * _WORDINGS)
    if not known.value:
        asked = _pick(found.asked, seed_parts, "question")
        said = asked.answer, _pick(asked.wrong, seed_parts, "wrong")
        yes, no = (known.ask(index, asked.params, each) for each in said)
        return yes, no
    so = {right: [each for each in found.asked if (each.answer == known.value) is right] for right in (True, False)}
    yes, no = (
        known.ask(index, _pick(asked, seed_parts, "yes" if right else "no").params, "") if asked else ""
        for right, asked in so.items()
    )
    return yes, no


def about_several(
    images: Sequence[Image.Image], path: str, seed_parts: tuple[object, ...], keys: Sequence[str]
) -> Written | None:
    """A question about several images, without grounds; None where nothing can be asked. keys: what names each image.

    It compares them where that has one answer for certain, or asks about one of them.
    """
    scenes = [perception.scene(image, key) for image, key in zip(images, keys, strict=True)]

    def look(at: int, path: str) -> Found | str:
        return _look(images[at], path, keys[at])

    ways = list(comparing.possible(path, scenes, look))
    if not ways or (all(each.comparison.alone for each in ways) and draw(*seed_parts, "of one") < _OF_ONE):
        found = [look(at, path) for at in range(len(images))]
        written = _of_one(path, found, scenes, seed_parts)
        if not ways or (written is not None and written[1]):
            return written[0] if written else None
    chosen = _pick(sorted({each.comparison.relation for each in ways}), seed_parts, "relation")
    ways = [each for each in ways if each.comparison.relation == chosen]
    some = [each for each in ways if each.answer != "0"]
    way = _pick(some if some and draw(*seed_parts, "some") >= _NONE else ways, seed_parts, "question")
    question = way.comparison.ask(int(draw(*seed_parts, "template") * _WORDINGS), way.about, len(images))
    return Written(question, way.answer, _pick(way.wrong, seed_parts, "wrong"), "")


def _of_one(
    path: str, found: Sequence[Found | str], scenes: Sequence[Scene], seed_parts: tuple[object, ...]
) -> tuple[Written, str] | None:
    """The task type's own question about one of several images, and the text by which that is known, "" where it is
    known by its number; None where it fits none of them."""
    fitting = [(at, each) for at, each in enumerate(found, 1) if isinstance(each, Found)]
    if not fitting:
        return None
    (at, one), template = _pick(fitting, seed_parts, "image"), templates.load()[path]
    asked = _pick(one.asked, seed_parts, "question")
    marks = comparing.marks(scenes, at, asked)
    mark = _pick(marks, seed_parts, "mark") if marks else ""
    question = several.ask_alone(template, int(draw(*seed_parts, "template") * _WORDINGS), asked.params, at, mark)
    return Written(question, asked.answer, _pick(asked.wrong, seed_parts, "wrong"), ""), mark


def unanswerable(
    image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = ""
) -> tuple[str, str] | None:
    """A question that the image does not answer, and what is missing; None where there is none."""
    found = _look(image, path, key)
    if not isinstance(found, Found) or path.rpartition("~")[2] in absences.ANSWERED:
        return None
    asked = _pick(found.asked, seed_parts, "question")
    possible = list(inventory.lacking(perception.scene(image, key), path, asked.params))
    return _pick(possible, seed_parts, "lacking") if possible else None


def grounded(
    image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = ""
) -> tuple[str, Box, Box] | None:
    """A question where something is, its box, and a wrong one; None where there is none."""
    if not isinstance(_look(image, path, key), Found):
        return None
    possible = inventory.placed(perception.scene(image, key), path)
    if not possible:
        return None
    sought, box = _pick(possible, seed_parts, "sought")
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    moves = [(dx, dy) for dx in (-width, 0, width) for dy in (-height, 0, height) if (dx, dy) != (0, 0)]
    moved = [(left + dx, top + dy, right + dx, bottom + dy) for dx, dy in moves]
    wrong = [each for each in moved if min(each) >= 0 and max(each) <= 1]
    wrong = wrong or [(left, top, left + 0.6 * width, top + 0.6 * height)]
    return boxes.ask(sought, int(draw(*seed_parts, "wording") * 60)), box, _pick(wrong, seed_parts, "wrong")


def description(image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = "") -> tuple[str, str] | None:
    """A description of what is seen for certain, and the same with one false statement; None where too little is."""
    if not isinstance(_look(image, path, key), Found):
        return None
    stated: list[list[str]] = []
    told: set[str] = set()  # texts, each of which a description has once
    for each in descriptions.STATEMENTS:
        found = _look(image, each, key)
        new = [one for one in found.asked if told.isdisjoint(_texts_of(one))] if isinstance(found, Found) else []
        if new:
            asked = _pick(new, seed_parts, f"of {each}")
            told.update(_texts_of(asked))
            stated.append([descriptions.state(each, asked.params, said) for said in (asked.answer, asked.wrong[0])])
    if len(stated) < _LEAST_STATED:
        return None
    kept = stated[: descriptions.MOST]
    false = int(draw(*seed_parts, "false") * len(kept))
    return " ".join(right for right, _ in kept), " ".join(each[n == false] for n, each in enumerate(kept))


def _texts_of(asked: Asked) -> set[str]:
    """What is read in the image, of a question and its answer."""
    return {text for text in (asked.params.get("text", ""), asked.answer) if any(map(str.isupper, text))}


def in_german(image: Image.Image, path: str, seed_parts: tuple[object, ...], key: str = "") -> Written | None:
    """A question in German and its answers, without grounds; None where it knows none. Answers are looked for alike."""
    found = _look(image, path, key)
    if not isinstance(found, Found):
        return None
    asked = _pick(found.asked, seed_parts, "question")
    put = german.put(path, asked.params, (asked.answer, _pick(asked.wrong, seed_parts, "wrong")))
    return None if put is None else Written(put[0], put[1][0], put[1][1], "")


_looked: Memory[tuple[str, str], Found | str] = Memory(_KEPT)


def _look(image: Image.Image, path: str, key: str) -> Found | str:
    """What the skill of a task type finds in an image, or why it does not fit; kept for who asks again."""
    skill = SKILLS.get(path)
    if skill is None:
        return "this kind of task cannot be answered from the image with certainty"
    key = key or perception.pixels_key(image)

    def look() -> Found | str:
        scene = perception.scene(image, key)
        with scene.lock:
            try:
                return skill(scene)
            except NoFit as reason:
                return str(reason)

    return _looked.get((key, path), look)


def _pick(of: Sequence[_T], seed_parts: tuple[object, ...], what: str) -> _T:
    return of[int(draw(*seed_parts, what) * len(of))]
