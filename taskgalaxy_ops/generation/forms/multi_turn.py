"""A conversation of two to four turns about one image, each of which builds on those before.

The fields of a reply are fixed, since servers enforce flat schemas best; the turns that there are not stay empty. An
answer is verified after the turns before it, as its question is understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgalaxy_ops.generation.forms import QuestionForm, Texts
from taskgalaxy_ops.models.request import MalformedReplyError
from taskgalaxy_ops.records import Turn
from taskgalaxy_ops.text import normal_question

MOST = 4
_FIELDS = (("question", "answer"), *((f"question_{n}", f"answer_{n}") for n in range(2, MOST + 1)))


def _turns(reply: Mapping[str, Any]) -> list[Turn]:
    """The turns in a reply's fields; both texts of one that there is not are empty."""
    return [(reply[question], reply[answer]) for question, answer in _FIELDS]


def _check(reply: Mapping[str, Any]) -> None:
    turns = _turns(reply)
    for (asks, answers), (question, answer) in zip(_FIELDS, turns, strict=True):
        if bool(question) != bool(answer):
            there, lacking = (asks, answers) if question else (answers, asks)
            raise MalformedReplyError(f"`{lacking}` must be filled where `{there}` is")
    filled = [bool(question) for question, _ in turns]
    if filled != sorted(filled, reverse=True):
        raise MalformedReplyError(f"`{_FIELDS[filled.index(False)][0]}` must be filled before a later turn is")
    if filled.count(True) < 2:
        raise MalformedReplyError(
            "`question_2` must build on the first turn; where nothing can be asked, leave all empty"
        )
    asked = [normal_question(question) for question, _ in turns if question]
    for number, question in enumerate(asked):
        if question in asked[:number]:
            raise MalformedReplyError(f"`{_FIELDS[number][0]}` repeats an earlier question; ask something new")


def _texts(reply: Mapping[str, Any]) -> Texts:
    (question, answer), *later = _turns(reply)
    return Texts(question, answer, further=tuple(turn for turn in later if any(turn)))


MULTI_TURN = QuestionForm(
    reply={name: str for fields in _FIELDS for name in fields},
    check=_check,
    texts=_texts,
    may_lack=frozenset(name for fields in _FIELDS[2:] for name in fields),
    version="1",
)
