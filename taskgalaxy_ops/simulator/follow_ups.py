"""How conversations of the simulated models go on: which questions build on the turns before, and what they mean.

Teacher and judges share this text (``follow_ups.yaml``) and nothing else; nothing here looks at an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from taskgalaxy_ops.simulator import templates

FILE = Path(__file__).with_name("follow_ups.yaml")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A turn of a conversation, as it is understood."""

    path: str  # of the task type that answers it
    params: Mapping[str, str]  # of its question
    answer: str | None  # None: it is not shown

    @property
    def leaf(self) -> str:
        return leaf(self.path)


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """A question that makes sense after others."""

    text: str  # with {parameters} in braces
    path: str  # of the task type that answers it
    it: Mapping[str, str]  # parameter: leaf of the turn whose answer it is
    after: str | None  # leaf of the turn just before; None: any

    @property
    def repeats(self) -> bool:
        """Whether it may be asked again and again, each time of something else."""
        return self.after == leaf(self.path)

    def bound(self, before: Sequence[Turn]) -> dict[str, str] | None:
        """The parameters that the text does not name, from the turns before; None: it makes no sense after these."""
        if self.after is not None and before[-1].leaf != self.after:
            return None
        found = {}
        for name in templates.load()[self.path].meanings:
            if name in self.it:
                known = [turn.answer for turn in before if turn.leaf == self.it[name]]
            elif f"{{{name}}}" in self.text:
                continue
            else:
                known = [turn.params[name] for turn in before if name in turn.params]
            if not known or known[-1] is None:
                return None
            found[name] = known[-1]
        return found


def leaf(path: str) -> str:
    """The name of a task type without its parents."""
    return path.rpartition("~")[2]


def of(path: str) -> tuple[FollowUp, ...]:
    """What may be asked in a conversation that a question of this task type began."""
    return _load().get(leaf(path), ())


def understood(path: str, before: Sequence[Turn], question: str) -> tuple[str, dict[str, str]] | None:
    """The task type and the parameters of a later question; None: it makes no sense after the turns before it.

    path: of the task type of the first question.
    """
    for each in of(path):
        named = templates.params_in((each.text,), question)
        if named is not None and (bound := each.bound(before)) is not None:
            return each.path, {**bound, **named}
    return None


@lru_cache(maxsize=1)
def _load() -> dict[str, tuple[FollowUp, ...]]:
    paths = {leaf(path): path for path in templates.load()}
    entries: dict[str, list[dict[str, Any]]] = yaml.safe_load(FILE.read_text("utf-8"))
    return {
        first: tuple(
            FollowUp(text=each["ask"], path=paths[each["as"]], it=each.get("it", {}), after=each.get("after"))
            for each in follow_ups
        )
        for first, follow_ups in entries.items()
    }
