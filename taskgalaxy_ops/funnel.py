"""The funnel: what went into each stage, what came out, and why the rest did not. It adds up at every stage.

Beside it, what a stage's calls came to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


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
