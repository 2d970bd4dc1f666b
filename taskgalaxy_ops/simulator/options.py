"""Multiple choice as simulated models see it: the teacher's options, and a question with options read by a judge."""

from __future__ import annotations

import re
from typing import NamedTuple

_MOST_WRONG = 3
LEAST_WRONG = 2  # of a question that is made of one with yes or no
_OPTION = re.compile(r"([A-D])\. (.+)")


class Choice(NamedTuple):
    """A question with options, taken apart."""

    question: str
    options: dict[str, str]  # by letter


class Pick(NamedTuple):
    """A question that has what a question with yes or no may name as its options."""

    question: str
    name: str  # the parameter that an option stands for
    right: str  # what the task type's own question is answered for the right option, and
    wrong: str  # for others


# By task type: what is asked in place of a question that has two answers.
_PICKS = {
    "shapes & patterns~shape recognition~shape presence check": Pick(
        "Which of these shapes is in the image?", "shape", "Yes", "No"
    ),
    "colour~main colours~colour presence check": Pick(
        "Which of these colours clearly appears in the image?", "colour", "Yes", "No"
    ),
    "gui~checkbox state reading": Pick("Which of these boxes is ticked?", "box", "Yes", "No"),
    "logical reasoning~inference~visual claim verification": Pick(
        "Which of these texts is printed in the image, word for word?", "text", "true", "false"
    ),
}


def pick(path: str) -> Pick | None:
    """What is asked in place of a task type's question that has two answers; None: nothing is."""
    return _PICKS.get(path)


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
