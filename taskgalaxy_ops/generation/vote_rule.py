"""The rules by which votes make a verdict: a quorum of approvals, or a probability of being right that is high enough.

A rule says which verdicts remain possible after some votes, so that judges are asked in order until it is one. Votes
are given by judge, in order: 1, 0, None for an abstention, ``MISSING`` where a judge was asked and has not answered;
judges after the last of them have not been asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.settings import VoteSettings
from taskgalaxy_ops.storage.judge_log import JudgeMeasure
from taskgalaxy_ops.storage.shards import short

Cast = tuple[int | None, ...]
MISSING = -1


class Rule(Protocol):
    """When a pair becomes a sample."""

    judges: tuple[str, ...]  # in the order in which they are asked
    fewest: int  # votes that may be enough for a verdict
    reason: Reason  # why a pair is none
    words: str

    def accepts(self, cast: Cast) -> bool:
        """The verdict of these votes, if no others are cast."""

    def sides(self, cast: Cast) -> frozenset[bool]:
        """The verdicts that are possible yet, whatever the judges say who have not answered or were not asked."""

    def is_open(self, cast: Cast) -> bool:
        """Whether both verdicts are possible at the next judge's turn, however those vote who have not answered."""

    def among(self, judges: Sequence[str]) -> Rule:
        """The same rule for other judges, in this order."""

    def told(self, cast: Cast) -> str:
        """What decided, in words; "": the approvals say it."""


class Quorum:
    """At least so many approvals, or all of them where there are fewer judges."""

    reason = Reason.BELOW_QUORUM

    def __init__(self, quorum: int, judges: Sequence[str]) -> None:
        self.judges = tuple(judges)
        self.fewest = quorum
        self.words = f"{quorum} approvals or more"

    def accepts(self, cast: Cast) -> bool:
        return cast.count(1) >= self.fewest

    def sides(self, cast: Cast) -> frozenset[bool]:
        approvals, more = cast.count(1), cast.count(MISSING) + len(self.judges) - len(cast)
        return frozenset({approvals >= self.fewest, approvals + more >= self.fewest})

    def is_open(self, cast: Cast) -> bool:
        approvals = cast.count(1)
        return approvals + cast.count(MISSING) < self.fewest <= approvals + len(self.judges) - len(cast)

    def among(self, judges: Sequence[str]) -> Quorum:
        return Quorum(max(1, min(self.fewest, len(judges))), judges)

    def told(self, _: Cast) -> str:
        return ""


class Probable:
    """A probability of being right of at least ``least``, by the votes and what is recorded of the judges.

    A judge of which nothing is recorded changes no verdict, so it is asked in audits alone.
    """

    reason = Reason.IMPROBABLE

    def __init__(self, least: float, measure: JudgeMeasure, judges: Sequence[str]) -> None:
        self.judges = tuple(judges)
        self.words = f"a probability of {least:g} or more of being right"
        self._least, self._measure = least, measure
        self._may: list[Cast] = [(0, 1, None) if judge in measure.judges else (None,) for judge in judges]
        self._known: dict[Cast, frozenset[bool]] = {}
        self.fewest = self._fewest()

    def accepts(self, cast: Cast) -> bool:
        return self._probability(cast) >= self._least

    def sides(self, cast: Cast) -> frozenset[bool]:
        # Probabilities need not grow with approvals, so that each way to vote on is looked at, once.
        if (found := self._known.get(cast)) is None:
            if MISSING in cast:
                following = self._answered(cast)
            else:
                following = [(*cast, vote) for vote in self._may[len(cast)]] if len(cast) < len(self.judges) else []
            found = frozenset().union(*map(self.sides, following)) if following else frozenset({self.accepts(cast)})
            self._known[cast] = found
        return found

    def is_open(self, cast: Cast) -> bool:
        if MISSING in cast:
            return all(map(self.is_open, self._answered(cast)))
        return len(self.sides(cast)) > 1

    def among(self, judges: Sequence[str]) -> Probable:
        return Probable(self._least, self._measure, judges)

    def told(self, cast: Cast) -> str:
        found = self._probability(cast)
        sign = "≥" if found >= self._least else "<"
        return f"probability {found:.3f} {sign} {self._least:g} (judges as recorded in {short(self._measure.hash)})"

    def _probability(self, cast: Cast) -> float:
        return self._measure.probability(zip(self.judges, cast, strict=False))

    def _answered(self, cast: Cast) -> list[Cast]:
        """The votes with each answer that the first judge may give who has not answered."""
        at = cast.index(MISSING)
        return [(*cast[:at], vote, *cast[at + 1 :]) for vote in self._may[at]]

    def _fewest(self) -> int:
        asked: Iterable[Cast] = [()]
        for number in range(len(self.judges)):
            asked = list(asked)
            if not all(map(self.is_open, asked)):
                return number
            asked = [(*cast, vote) for cast in asked for vote in self._may[number]]
        return len(self.judges)


class MeasuredVote(VoteSettings):
    """The vote's settings with what they read of the log of judges."""

    measure: JudgeMeasure


def rule_of(settings: VoteSettings, judges: Sequence[str]) -> Rule:
    """The rule of settings as stages read them (``generation/staged.py``), for judges in the order of asking."""
    if settings.rule == "quorum":
        return Quorum(settings.quorum, judges)
    if not isinstance(settings, MeasuredVote):
        raise AssertionError("vote.rule reads the log of judges: ask for the settings as stages read them")
    return _probable(settings.rule.probability, settings.measure, tuple(judges))


@lru_cache(maxsize=4)
def _probable(least: float, measure: JudgeMeasure, judges: tuple[str, ...]) -> Probable:
    return Probable(least, measure, judges)
