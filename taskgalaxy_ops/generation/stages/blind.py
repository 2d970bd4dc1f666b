"""The blind probe: before judges are asked about a pair, a model answers its question without the image.

A part of vote. What it answers rightly ``right`` times of ``tries`` needs no image. Each try is a request of its own,
so that none is in sight of another; a pair's tries are only asked while they can decide. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.generation.stages.asking import Answers, Templates
from taskgalaxy_ops.models.request import (
    CANARY_QUESTION,
    CANARY_TASK_TYPE,
    MalformedReplyError,
    RequestItem,
    RequestTemplate,
    field,
)
from taskgalaxy_ops.records import Answer, Pair
from taskgalaxy_ops.settings import BlindSettings, Model
from taskgalaxy_ops.text import clean, normal_answer

_LETTERS = frozenset("ABCDEFGH")
_LETTER = re.compile(r"\s*\(?([A-Ha-h])\s*(?:[.):]|$)")

REQUEST = "blind"  # the kind of request, and the name of its prompt


def blind_templates(prompt: str, chosen: BlindSettings) -> dict[str, RequestTemplate]:
    """One a try, by names that no judge can have."""
    return {f"blind/{number}": blind_template(prompt, chosen.model, number) for number in range(1, chosen.tries + 1)}


def blind_template(prompt: str, model: Model, number: int) -> RequestTemplate:
    """The request of a try, about one question."""
    return RequestTemplate(
        stage="vote",
        prompt=prompt,
        model=model,
        head={"request": REQUEST, "try": number},
        items=None,
        replies="answers",
        schema={"type": "string"},
        read=_read,
        canary={"task_type": CANARY_TASK_TYPE, "question": CANARY_QUESTION},
        about_images=False,
    )


def _read(_: Mapping[str, Any], entries: Any) -> Answer:
    if not isinstance(entries, list) or not entries:
        raise MalformedReplyError("`answers` must be a list with one text")
    return Answer({"answer": clean(field({"answer": entries[0]}, "answer", str))})


def tries_of(templates: Templates) -> list[RequestTemplate]:
    """The templates of the tries, in order."""
    return [template for template in templates.values() if template.head["request"] == REQUEST]


def blind_unit(template: RequestTemplate, pair: Pair) -> RequestItem:
    """The unit that asks a pair's question without its images. It names them, so that a take-down erases it."""
    return template.unit(pair.image, {"question": pair.question}, pair.images[1:])


@dataclass(frozen=True, slots=True)
class Probed:
    """What the tries say of a pair so far."""

    needed: list[tuple[int, RequestItem]]  # index of try, unit: those that are needed next
    blind: bool | None  # whether it is answered without the image; None: open, or there is no probe


def probed(pair: Pair, tries: Sequence[RequestTemplate], chosen: BlindSettings | None, answers: Answers) -> Probed:
    """A try without a usable answer is a wrong one. Conversations are not tried: their first answer decides nothing."""
    if chosen is None or pair.further_turns:
        return Probed([], None)
    needed: list[tuple[int, RequestItem]] = []
    right = 0
    for at, template in enumerate(tries):
        left = len(tries) - at
        if not right + len(needed) < chosen.right <= right + left:  # decided, or so if those that are needed are right
            break
        unit = blind_unit(template, pair)
        if (answer := answers.get(unit.key)) is None:
            needed.append((at, unit))
        else:
            right += answer.value is not None and same_answer(pair.answer, answer.value["answer"])
    return Probed(needed, None if needed else right >= chosen.right)


def same_answer(right: str, said: str) -> bool:
    """Whether an answer says what the right one says. A letter, and yes or no, are looked for at its beginning."""
    wanted, given = normal_answer(right), normal_answer(said)
    if right.strip() in _LETTERS:  # of an option; "a" is an article elsewhere
        found = _LETTER.match(said)
        return found is not None and found[1].casefold() == right.strip().casefold()
    if wanted in {"yes", "no"}:
        return given.split(" ", 1)[0] == wanted
    return given == wanted
