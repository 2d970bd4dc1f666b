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
from taskgalaxy_ops.records import turns_in
from taskgalaxy_ops.release.formats.layouts import Row, parts, said_in
from taskgalaxy_ops.release.formats.tables import MESSAGES_COLUMN, NUMBER, TEXT, table_format
from taskgalaxy_ops.release.rows import Sample
from taskgalaxy_ops.release.select import Selection
from taskgalaxy_ops.text import normal_answer, numbers_in

_LETTER = re.compile(r"(?<![A-Za-z'’])([A-Z])(?![A-Za-z'’])")


def _rows(_: Selection, sample: Sample) -> list[Row]:
    texts = Texts(sample.question, sample.answer, sample.reasoning, turns_in(sample.further_turns))
    verification = FORMS.get(sample.variant).verify(texts)
    if verification is None:
        return []
    prompt = parts(said_in(sample)[:1], len(sample.locations))
    return [{"prompt": prompt, "answer": sample.answer, **verification._asdict()}]


def right(said: str, answer: str, check: str, tolerance: float | None) -> bool:
    """Whether what a model said is the answer, by a row's check.

    ``exact``: its last line is, but for case, marks, articles and the writing of numbers. ``number``: its last number
    is within ``tolerance``. ``choice``: its last single capital letter is. ``box_iou``: the one box in its last line
    overlaps by at least ``tolerance``. Raises ValueError for another check.
    """
    lines = [line for line in said.splitlines() if line.strip()]
    match check:
        case "exact":
            return bool(lines) and normal_answer(lines[-1]) == normal_answer(answer)
        case "number":
            found, expected = numbers_in(said), numbers_in(answer)
            return bool(found) and math.isclose(found[-1], expected[-1], rel_tol=1e-9, abs_tol=tolerance or 0)
        case "choice":
            return _LETTER.findall(said)[-1:] == [answer]
        case "box_iou":
            return boxes_agree(answer, lines[-1] if lines else "", tolerance or 0.5)
    raise ValueError(f"check {check!r} is none of exact, number, choice, box_iou")


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
