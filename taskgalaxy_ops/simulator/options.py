"""Multiple choice as simulated models see it: the teacher's options, and a question with options read by a judge."""

from __future__ import annotations

import re
from typing import NamedTuple

_MOST_WRONG = 3
_OPTION = re.compile(r"([A-D])\. (.+)")


class Choice(NamedTuple):
    """A question with options, taken apart."""

    question: str
    options: dict[str, str]  # by letter


def wrong_ones(said: str, others: tuple[str, ...]) -> dict[str, str]:
    """The fields of a reply for wrong options: of ``others``, those that are unlike what is said and each other."""
    unlike = {_plain(other): other for other in reversed(others) if _plain(other) != _plain(said)}
    chosen = [*reversed(unlike.values())][:_MOST_WRONG]
    return {f"wrong_{n + 1}": chosen[n] if n < len(chosen) else "" for n in range(_MOST_WRONG)}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def read(question: str) -> Choice | None:
    """A question's options; None: it has none."""
    lines = question.split("\n")
    found = {match[1]: match[2] for line in lines if (match := _OPTION.fullmatch(line))}
    if len(found) < 2:
        return None
    first = next(at for at, line in enumerate(lines) if _OPTION.fullmatch(line))
    return Choice("\n".join(lines[:first]), found)


def meant(question: str, answer: str) -> tuple[str, str]:
    """The question without options, and what the answer's letter stands for; both as they are where there are none."""
    choice = read(question)
    return (question, answer) if choice is None else (choice.question, choice.options.get(answer, answer))
