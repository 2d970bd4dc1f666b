"""Errors that are planted to measure judges: a share of the accepted pairs, drawn by hash, is voted on once more with
an answer that is wrong. Pure, and no model writes it.

The wrong answer is the right one turned: the other of yes and no, the letter of another option, a box elsewhere, or
another number; where there is nothing to turn, the answer of another image's pair of the same task type and question
form. Which image's is drawn by rendezvous hashing, the pairs that ask the same first, so that a pair that joins the
shard moves few. No answer is taken that might be right as well: that shares all its words with the pair's, or that the
teacher gave to the same question. Where an accepted pair is wrong itself, the planted answer may be right, so that
judges are measured a little too low.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from taskgalaxy_ops.extensions import QUESTION_FORMS
from taskgalaxy_ops.generation.forms.grounded import WHOLE, box_of, iou
from taskgalaxy_ops.generation.forms.multiple_choice import LETTERS
from taskgalaxy_ops.generation.forms.unanswerable import declines
from taskgalaxy_ops.generation.forms.yes_no import SAID
from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import ImageId, Pair, TaskTypePath, pair_id
from taskgalaxy_ops.text import normal_answer, normal_question

VERSION = 1  # one more whenever the same pairs give other wrong answers

_NUMBER = re.compile(r"(?<!\d)(?<!\d[.,])\d+(?:,\d{3})*")  # of a decimal the whole part: its last digits may be read so
_MOST_DIGITS = 15  # of a number that is an amount
_APART = 0.3  # intersection over union, up to which a box is another
_OPTION = re.compile(rf"^([{LETTERS}])\. ", re.MULTILINE)


class Planted(NamedTuple):
    """A pair, and the same with a wrong answer."""

    of: Pair
    wrong: Pair


def planted(pairs: Sequence[Pair], share: float) -> list[Planted]:
    """The planted errors of an image shard's pairs, in their order; of some that are drawn there is none to be made."""
    drawn = [pair for pair in pairs if draw("planted", pair.pair) < share]
    if not drawn:
        return []
    alike: defaultdict[tuple[TaskTypePath, str], list[Pair]] = defaultdict(list)
    given: defaultdict[tuple[ImageId, str], set[str]] = defaultdict(set)  # what the teacher answers to a question
    for pair in pairs:
        alike[pair.task_type, pair.variant].append(pair)
        given[pair.image, normal_question(pair.question)].add(normal_answer(pair.answer))
    found = []
    for pair in drawn:
        known = given[pair.image, normal_question(pair.question)]
        others = alike[pair.task_type, pair.variant]
        wrong = next((each for each in _wrong(pair, others) if normal_answer(each.answer) not in known), None)
        if wrong is not None:
            found.append(Planted(pair, wrong))
    return found


def _others(pair: Pair, alike: Iterable[Pair]) -> list[Pair]:
    """Pairs of other images, those that ask the same first."""
    asked = normal_question(pair.question)
    return sorted(
        (other for other in alike if other.image != pair.image),
        key=lambda other: (
            normal_question(other.question) != asked,
            draw("planted from", pair.pair, other.pair),
            other.pair,
        ),
    )


def _wrong(pair: Pair, alike: Iterable[Pair]) -> Iterator[Pair]:
    """The pair with wrong answers, the first one preferred. alike: pairs whose answers may be taken."""
    form, language = QUESTION_FORMS.split(pair.variant)
    if form == "unanswerable" or declines(pair.answer):
        return  # any answer to what cannot be answered would be guessed, and most are of another kind
    if pair.reasoning is None:  # which leads to the right answer, and would give a turned one away
        for turned in (_options, _yes_no, _boxes, _numbers):
            if (answers := turned(pair, language)) is not None:
                for answer in sorted(answers, key=lambda each: draw("planted as", pair.pair, each)):
                    yield _with(pair, answer, None)
                return
    words = set(normal_answer(pair.answer).split())
    for other in _others(pair, alike):
        said = set(normal_answer(other.answer).split())
        if not (said <= words or words <= said or declines(other.answer)):
            yield _with(pair, other.answer, other.reasoning)


def _with(pair: Pair, answer: str, reasoning: str | None) -> Pair:
    identity = pair_id(pair.images, pair.task_type, pair.variant, pair.question, answer, reasoning, pair.further_turns)
    return replace(pair, pair=identity, answer=answer, reasoning=reasoning)


# Each gives the answers that one of its kind can be turned to; None: the answer is none of the kind.


def _options(pair: Pair, _: str) -> list[str] | None:
    letters = _OPTION.findall(pair.question)
    if pair.answer not in letters:
        return None
    return [letter for letter in letters if letter != pair.answer]


def _yes_no(pair: Pair, language: str) -> list[str] | None:
    both = SAID.get(language, SAID[""])
    said = [normal_answer(word) for word in both]
    return [both[1 - said.index(own)]] if (own := normal_answer(pair.answer)) in said else None


def _boxes(pair: Pair, _: str) -> list[str] | None:
    """Boxes of the same size in other corners."""
    if (box := box_of(pair.answer)) is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    corners = [(x, y, x + width, y + height) for x in (0, WHOLE - width) for y in (0, WHOLE - height)]
    return [str(list(corner)) for corner in corners if iou(box, corner) <= _APART]


def _numbers(pair: Pair, _: str) -> list[str] | None:
    """One of the answer's numbers, a fifth to a half more or less, and of a small one at least one."""
    numbers = list(_NUMBER.finditer(pair.answer))
    if not numbers:
        return None
    found = numbers[int(draw("planted at", pair.pair) * len(numbers))]
    digits = found[0].replace(",", "")
    if len(digits) > _MOST_DIGITS:
        return []
    value = int(digits)
    least, most = max(1, -(-value // 5)), max(1, -(-value // 2))
    by = least + int(draw("planted by", pair.pair) * (most - least + 1))
    less = value >= by and ("%" in pair.answer or draw("planted less", pair.pair) < 0.5)
    other = value - by if less else value + by
    text = f"{other:,}" if "," in found[0] else str(other).zfill(len(digits) if digits[0] == "0" else 0)
    return [pair.answer[: found.start()] + text + pair.answer[found.end() :]]
