"""The agreement of the judges: shares, Cohen's kappa for two judges, Krippendorff's alpha for all.

Judges are asked only while a verdict is open, so that the later judges see mostly pairs on which the earlier ones
disagreed. Agreement is therefore measured on the audited pairs, which are drawn by hash, and which every judge saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import PairId


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """One judge's votes on all pairs, audits included."""

    judge: str
    approvals: int
    rejections: int
    abstentions: int

    @property
    def approval_share(self) -> float | None:
        """Approvals as a share of the votes that are no abstention; None: there are no such votes."""
        voted = self.approvals + self.rejections
        return self.approvals / voted if voted else None


@dataclass(frozen=True, slots=True)
class TwoJudges:
    """Two judges' votes on the pairs on which both voted."""

    judges: tuple[str, str]
    pairs: int
    agreed: int
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The judges' agreement. ``audited``: False if no pair was audited; it is then over all pairs, and biased."""

    judges: list[JudgeFigures]
    two: list[TwoJudges]
    alpha: float | None
    pairs: int  # with two votes or more
    audited: bool


# A pair's votes in the settings' order of judges: (judge, vote), None for an abstention. n judges give at most 4 ** n
# different ballots: each judge was not asked, abstained, or voted 0 or 1.
Ballot = tuple[tuple[str, int | None], ...]


class Ballots:
    """The number of pairs with each ballot: agreement depends on nothing else, and memory does not grow with pairs."""

    def __init__(self, audit_share: float) -> None:
        self._audit_share = audit_share
        self.all: Counter[Ballot] = Counter()
        self.audited: Counter[Ballot] = Counter()

    def add(self, pair: PairId, votes: Iterable[tuple[str, int | None]]) -> None:
        """Count a pair's votes."""
        ballot = tuple(votes)
        self.all[ballot] += 1
        if draw("audit", pair) < self._audit_share:
            self.audited[ballot] += 1


def agreement(ballots: Ballots, judges: Sequence[str]) -> Agreement:
    """The judges' figures, in the order of ``judges``, over all pairs with a vote."""
    cast: Counter[tuple[str, int | None]] = Counter()
    for ballot, number in ballots.all.items():
        for vote in ballot:
            cast[vote] += number
    figures = [JudgeFigures(name, cast[name, 1], cast[name, 0], cast[name, None]) for name in judges]
    counted = (ballots.audited or ballots.all).items()
    tables = [({judge: vote for judge, vote in b if vote is not None}, number) for b, number in counted]
    two = []
    for a, b in combinations(judges, 2):
        both: Counter[tuple[int, int]] = Counter()
        for table, number in tables:
            if a in table and b in table:
                both[table[a], table[b]] += number
        agreed = sum(number for (x, y), number in both.items() if x == y)
        two.append(TwoJudges((a, b), both.total(), agreed, cohen_kappa(both)))
    units: Counter[tuple[int, ...]] = Counter()
    for table, number in tables:
        units[tuple(table.values())] += number
    pairs = sum(number for unit, number in units.items() if len(unit) > 1)
    return Agreement(figures, two, krippendorff_alpha(units), pairs, bool(ballots.audited))


def cohen_kappa(ratings: Mapping[tuple[int, int], int]) -> float | None:
    """Cohen's kappa of two raters; None where they would always agree by chance, or nothing was rated.

    ratings: the number of items by the two raters' values. kappa = (p_o - p_e) / (1 - p_e): Cohen, "A coefficient of
    agreement for nominal scales", 1960, formula 1.
    """
    n = sum(ratings.values())
    if not n:
        return None
    observed = sum(number for (a, b), number in ratings.items() if a == b) / n
    first: Counter[int] = Counter()
    second: Counter[int] = Counter()
    for (a, b), number in ratings.items():
        first[a] += number
        second[b] += number
    expected = sum(first[value] * second[value] for value in first) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Mapping[tuple[int, ...], int]) -> float | None:
    """Krippendorff's alpha for nominal values, any number of raters and missing values; None where nothing varies.

    units: the number of units by the values that raters gave them. alpha = 1 - D_o / D_e from coincidences within
    units: Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C.
    """
    totals: Counter[int] = Counter()
    observed = 0.0
    for unit, number in units.items():
        if len(unit) > 1:
            for value in unit:
                totals[value] += number
            observed += number * _unequal(Counter(unit)) / (len(unit) - 1)
    expected = _unequal(totals) / max(totals.total() - 1, 1)
    return 1 - observed / expected if expected else None


def _unequal(counts: Counter[int]) -> int:
    """The number of ordered pairs of different values."""
    return counts.total() ** 2 - sum(n * n for n in counts.values())
