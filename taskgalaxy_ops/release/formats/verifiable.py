"""Rows for GRPO: a prompt with its images, the answer, and how to check what a model says; ``reward`` checks it.

Of each sample whose question form says how an answer is verified (``QuestionForm.verify``); others have no row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from taskgalaxy_ops.generation.forms import FORMS, Texts
from taskgalaxy_ops.generation.forms.grounded import right as boxes_agree
from taskgalaxy_ops.generation.forms.yes_no import SAID
from taskgalaxy_ops.records import turns_in
from taskgalaxy_ops.release.formats.layouts import Row, parts, said_in
from taskgalaxy_ops.release.formats.tables import MESSAGES_COLUMN, NUMBER, TEXT, table_format
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.text import normal_answer, numbers_in

# An option's letter, from the surest to the least sure sign that it is the answer. No I: that is who speaks.
_BEGINS = re.compile(r"\W*([A-HJ-Z])(?:[.):]|\W*$)")
_MARKED = re.compile(r"(?<![\w'’])([A-HJ-Z])(?=[.):,*]|\W*$)", re.MULTILINE)
_ALONE = re.compile(r"(?<![\w'’])([A-HJ-Z])(?![\w'’])")
_YES_OR_NO = {normal_answer(word) for words in SAID.values() for word in words}


def _rows(_: Selection, sample: Sample) -> list[Row]:
    texts = Texts(sample.question, sample.answer, sample.reasoning, turns_in(sample.further_turns))
    verification = FORMS.get(sample.variant).verify(texts)
    if verification is None:
        return []
    prompt = parts(said_in(sample)[:1], len(sample.locations))
    return [{"prompt": prompt, "answer": sample.answer, **verification._asdict()}]


def right(said: str, answer: str, check: str, tolerance: float | None) -> bool:
    """Whether what a model said is the answer, by a row's check.

    ``exact``: its last line is, but for case, marks, articles and the writing of numbers; of a yes or no, the line's
    first word. ``number``: its last number is within ``tolerance``. ``choice``: the letter that its last line begins
    with, or else the last that stands as an answer. ``box_iou``: the one box in its last line overlaps by at least
    ``tolerance``. Raises ValueError for another check.
    """
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    match check:
        case "exact":
            found, expected = normal_answer(last), normal_answer(answer)
            return bool(last) and expected == (found.partition(" ")[0] if expected in _YES_OR_NO else found)
        case "number":
            numbers, [number] = numbers_in(said), numbers_in(answer)[-1:]
            return bool(numbers) and math.isclose(numbers[-1], number, rel_tol=1e-9, abs_tol=tolerance or 0)
        case "choice":
            return _letter(said, last) == answer.strip()
        case "box_iou":
            return boxes_agree(answer, last, tolerance or 0.5)
    raise ValueError(f"check {check!r} is none of exact, number, choice, box_iou")


def _letter(said: str, last: str) -> str:
    """The option's letter in what was said, of which ``last`` is the last line; "": there is none."""
    if begins := _BEGINS.match(last):
        return begins[1]
    return next((letters[-1] for sign in (_MARKED, _ALONE) if (letters := sign.findall(said))), "")


def reward(
    completions: Sequence[Any], answer: Sequence[str], check: Sequence[str], tolerance: Sequence[float | None], **_: Any
) -> list[float]:
    """1 for each completion that is right, else 0: a reward function of TRL's GRPOTrainer."""
    rows = zip(completions, answer, check, tolerance, strict=True)
    return [float(right(_text(said), expected, how, within)) for said, expected, how, within in rows]


def _text(completion: Any) -> str:
    """What a completion says; conversational ones are messages, whose content is a text or parts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


VERIFIABLE = table_format(
    "verifiable",
    {"prompt": MESSAGES_COLUMN, "answer": TEXT, "check": TEXT, "tolerance": NUMBER},
    _rows,
    about="prompts with the answer and how to check it, for TRL's GRPO",
)
