"""The funnel: how many items entered each stage, how many came out, and why the others did not.

At every stage the numbers add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from taskgalaxy_ops.records import LOST


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


@dataclass(frozen=True, slots=True)
class Lost:
    """What ended without an answer for a reason that is ours or the server's, and not the item's."""

    reasons: Mapping[str, int]  # units by Reason
    units: int  # that the stages were asked, in all

    @property
    def share(self) -> float:
        """Of all units, 0 to 1."""
        return sum(self.reasons.values()) / self.units if self.units else 0.0

    def words(self) -> str:
        """A sentence with the counts, and the command that offers them again."""
        named = ", ".join(f"{number:,} {reason}" for reason, number in self.reasons.items())
        commands = " and ".join(f"`taskgalaxy forget --where terminal='{reason}'`" for reason in self.reasons)
        return (
            f"{sum(self.reasons.values()):,} of {self.units:,} units ({self.share:.1%}) ended without an answer: "
            f"{named}. {commands} lets them be asked again."
        )


class Counted(Protocol):
    """What is counted of a stage."""

    @property
    def units_in(self) -> int: ...

    @property
    def rejects(self) -> Mapping[str, int]: ...


def lost(stages: Iterable[Counted]) -> Lost:
    """What was lost in these stages that ask models."""
    stages = list(stages)
    reasons = {reason.value: sum(each.rejects.get(reason, 0) for each in stages) for reason in LOST}
    return Lost({reason: number for reason, number in reasons.items() if number}, sum(each.units_in for each in stages))
