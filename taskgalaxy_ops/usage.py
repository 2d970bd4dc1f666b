"""What model calls used: calls, tokens, money and time. ``Usage`` counts a run at work, ``Tally`` a journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Tally:
    """The sums over a set of calls."""

    calls: int = 0
    units: int = 0  # answers accepted from them
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0  # nano-dollars
    list_cost: int = 0  # nano-dollars: at list prices, where the settings give them
    seconds: float = 0.0  # from request to reply, added up
    simulated: int = 0  # replies of a simulated model
    cached_tokens: int = 0  # of prompt_tokens
    reasoning_tokens: int = 0  # of completion_tokens

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, reply: Mapping[str, Any]) -> None:
        """Add one reply, in the form that the journal holds."""
        self.calls += bool(reply["raw"])  # an entry that only adds terminal answers to an earlier reply was no call
        self.units += len(reply["answers"])
        self.prompt_tokens += reply["usage"].get("prompt_tokens", 0)
        self.completion_tokens += reply["usage"].get("completion_tokens", 0)
        self.cached_tokens += reply["usage"].get("cached_tokens", 0)
        self.reasoning_tokens += reply["usage"].get("reasoning_tokens", 0)
        self.cost += reply["cost"]
        self.list_cost += reply["list_cost"]
        self.seconds += reply["seconds"] if reply["raw"] else 0.0
        self.simulated += bool(reply["simulated"])

    def to_json(self) -> dict[str, int | float]:
        """The sums by name, as JSON; empty if there were no calls."""
        sums = {name: getattr(self, name) for name in self.__slots__}
        return {**sums, "seconds": round(self.seconds, 3)} if any(sums.values()) else {}

    def __iadd__(self, other: Tally) -> Tally:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def tally(replies: Iterable[Mapping[str, Any]]) -> dict[str, Tally]:
    """The sums of a journal's replies, by stage."""
    by_stage: dict[str, Tally] = {}
    for reply in replies:
        by_stage.setdefault(reply["stage"], Tally()).add(reply)
    return by_stage


@dataclass(slots=True, kw_only=True)
class Usage:
    """The sums of a run's calls so far, for the progress line and the summary."""

    calls: int = 0  # replies received
    requests: int = 0  # HTTP requests sent, retries included
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0  # nano-dollars
    list_cost: int = 0  # nano-dollars
    unavailable: dict[str, str] = field(default_factory=dict)  # by model: why this run sends it nothing more
    gave_up: dict[str, str] = field(default_factory=dict)  # by model: why its last unanswered request got no reply
    away: dict[str, float] = field(default_factory=dict)  # by unavailable model: when it began to serve nothing (Unix)
    by_model: dict[str, Tally] = field(default_factory=dict)  # the replies received, by model

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
