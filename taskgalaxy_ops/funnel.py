"""The funnel: what went into each stage, what came out, and why the rest did not. It adds up at every stage.

Beside it, what a stage's calls came to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StageCounts:
    """A stage, in its own unit: units_in = units_out + rejects + pending."""

    stage: str
    units_in: int
    units_out: int
    rejects: Mapping[str, int] = field(default_factory=dict)  # by Reason
    pending: int = 0

    def __post_init__(self) -> None:
        if self.units_in != self.units_out + sum(self.rejects.values()) + self.pending:
            raise AssertionError(f"the funnel does not add up: {self}")


def total(stage: str, parts: Iterable[StageCounts]) -> StageCounts:
    """One stage's counts over many shards."""
    units_in = units_out = pending = 0
    rejects: Counter[str] = Counter()
    for part in parts:
        units_in, units_out, pending = units_in + part.units_in, units_out + part.units_out, pending + part.pending
        rejects.update(part.rejects)
    return StageCounts(stage, units_in, units_out, dict(sorted(rejects.items())), pending)


@dataclass(slots=True)
class Tally:
    """What calls came to."""

    calls: int = 0
    units: int = 0  # answers that they brought
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0  # nano-dollars
    list_cost: int = 0  # nano-dollars: at list prices, where the settings give them
    seconds: float = 0.0  # from request to reply, added up
    simulated: int = 0  # replies that said so themselves
    cached_tokens: int = 0  # of prompt_tokens
    reasoning_tokens: int = 0  # of completion_tokens

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, reply: Mapping[str, Any]) -> None:
        """Add a reply as the journal holds it."""
        self.calls += bool(reply["raw"])  # a reply that only adds terminal answers was no call
        self.units += len(reply["answers"])
        self.prompt_tokens += reply["usage"].get("prompt_tokens", 0)
        self.completion_tokens += reply["usage"].get("completion_tokens", 0)
        self.cached_tokens += reply["usage"].get("cached_tokens", 0)
        self.reasoning_tokens += reply["usage"].get("reasoning_tokens", 0)
        self.cost += reply["cost"]
        self.list_cost += reply["list_cost"]
        self.seconds += reply["seconds"] if reply["raw"] else 0.0
        self.simulated += bool(reply["simulated"])

    def plain(self) -> dict[str, int | float]:
        """By name, as JSON; empty where nothing was asked."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {**found, "seconds": round(self.seconds, 3)} if any(found.values()) else {}

    def __iadd__(self, other: Tally) -> Tally:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def tally(replies: Iterable[Mapping[str, Any]]) -> dict[str, Tally]:
    """What replies of a journal came to, by stage."""
    found: dict[str, Tally] = {}
    for reply in replies:
        found.setdefault(reply["stage"], Tally()).add(reply)
    return found
