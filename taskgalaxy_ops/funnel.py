"""The funnel: how many items entered each stage, how many came out, and why the others did not.

At every stage the numbers add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StageCounts:
    """A stage's counts, in the stage's own unit: units_in = units_out + rejects + pending.

    Raises AssertionError if they do not add up.
    """

    stage: str
    units_in: int
    units_out: int
    rejects: Mapping[str, int] = field(default_factory=dict)  # by Reason
    pending: int = 0

    def __post_init__(self) -> None:
        if self.units_in != self.units_out + sum(self.rejects.values()) + self.pending:
            raise AssertionError(f"the funnel does not add up: {self}")


def total(stage: str, parts: Iterable[StageCounts]) -> StageCounts:
    """One stage's counts, summed over many image shards."""
    units_in = units_out = pending = 0
    rejects: Counter[str] = Counter()
    for part in parts:
        units_in, units_out, pending = units_in + part.units_in, units_out + part.units_out, pending + part.pending
        rejects.update(part.rejects)
    return StageCounts(stage, units_in, units_out, dict(sorted(rejects.items())), pending)
