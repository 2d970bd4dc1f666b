"""What ended without an answer by our fault or a model's, and how it is asked again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from taskgalaxy_ops.records import LOST


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
