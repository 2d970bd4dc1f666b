"""How an answer can be verified without a model, by what it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from taskgalaxy_ops.generation.forms import Texts

_WORDS = 4  # of an answer that is compared as a whole: a longer one can be said otherwise
_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?(?:\s?[%°]|\s[^\W\d_]{1,12})?\.?")  # with its unit


class Verification(NamedTuple):
    """A check and how exact it must be; ``release.formats.verifiable.right`` says what each check is."""

    check: str  # "exact", "number", "choice", "box_iou"
    tolerance: float | None = None  # of a number, in its unit; of a box, the least intersection over union


def exact(_: Texts) -> Verification:
    return Verification("exact")


def by_answer(texts: Texts) -> Verification | None:
    """By what a free answer is: a number, to half of its last decimal; a few words; None: it can be said otherwise."""
    answer = texts.answer.strip()
    if texts.further or "\n" in answer:
        return None
    if number := _NUMBER.fullmatch(answer):
        decimals = len(number[1] or "")
        return Verification("number", 0.5 * 10**-decimals if decimals else 0.0)
    return Verification("exact") if len(answer.split()) <= _WORDS else None
