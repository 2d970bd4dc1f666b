"""What model calls took: calls, tokens, money and time, of a run while it works and of a journal afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
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

    def to_json(self) -> dict[str, int | float]:
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


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a run's calls came to, for the progress line and the summary."""

    calls: int = 0  # replies received
    requests: int = 0  # HTTP requests sent, retries included
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0  # nano-dollars
    list_cost: int = 0  # nano-dollars
    unavailable: dict[str, str] = field(default_factory=dict)  # model: why it is left alone
    gave_up: dict[str, str] = field(default_factory=dict)  # model: why a request got no reply, the last one's
