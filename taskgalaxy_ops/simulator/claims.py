"""Questions with yes or no as simulated models see them: of any question, whether a claim is its answer."""

from __future__ import annotations

import re

_CLAIM = re.compile(r"(.+) Is the answer “(.+)”\?", re.DOTALL)


def claim(question: str, answer: str) -> str:
    """A question whether this answers another one."""
    return f"{question} Is the answer “{answer}”?"


def read(question: str) -> tuple[str, str] | None:
    """The question and the answer that are spoken of; None: it is a question of another form."""
    found = _CLAIM.fullmatch(question)
    return (found[1], found[2]) if found else None
