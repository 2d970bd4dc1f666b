"""The agreement of the judges: shares, Cohen's kappa for two judges, Krippendorff's alpha for all.

Judges are asked only while a verdict is open, so that the later judges see mostly pairs on which the earlier ones
disagreed. Agreement is therefore measured on the audited pairs, which are drawn by hash, and which every judge saw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import PairId

_Z = 1.959964  # of a 95 % interval by a normal distribution


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the bounds of its 95 % interval, each rounded to three digits."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: NDArray[np.float64]) -> Interval:
        """Mean and quantiles of equally weighted draws of a posterior."""
        low, high = np.quantile(draws, (0.025, 0.975))
        return cls(*(round(float(each), 3) for each in (draws.mean(), low, high)))

    @classmethod
    def around(cls, value: float, error: float, least: float, most: float) -> Interval:
        """Of a standard error, by a normal distribution, cut to what the estimate can be."""
        low, high = max(value - _Z * error, least), min(value + _Z * error, most)
        return cls(*(round(each, 3) for each in (value, low, high)))

    @classmethod
    def of_share(cls, part: int, whole: int) -> Interval:
        """Of a share of independent draws: Wilson, "Probable inference", 1927. whole: at least 1."""
        share, z = part / whole, _Z**2 / whole
        middle, reach = (share + z / 2) / (1 + z), math.sqrt(z * (share * (1 - share) + z / 4)) / (1 + z)
        return cls(*(round(each, 3) for each in (share, max(middle - reach, 0.0), min(middle + reach, 1.0))))


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


def judge_figures(counts: Mapping[Ballot, int], judges: Sequence[str]) -> list[JudgeFigures]:
    """Each judge's figures, in the order of ``judges``. counts: the number of pairs with each ballot."""
    cast: Counter[tuple[str, int | None]] = Counter()
    for ballot, number in counts.items():
        for vote in ballot:
            cast[vote] += number
    return [JudgeFigures(name, cast[name, 1], cast[name, 0], cast[name, None]) for name in judges]


def agreement(ballots: Ballots, judges: Sequence[str]) -> Agreement:
    """The judges' figures, in the order of ``judges``, over all pairs with a vote."""
    figures = judge_figures(ballots.all, judges)
    tables = _tables(ballots)
    two = []
    for a, b in combinations(judges, 2):
        both: Counter[tuple[int, int]] = Counter()
        for table, number in tables:
            if a in table and b in table:
                both[table[a], table[b]] += number
        agreed = sum(number for (x, y), number in both.items() if x == y)
        two.append(TwoJudges((a, b), both.total(), agreed, cohen_kappa(both)))
    units = ratings(ballots)
    pairs = sum(number for unit, number in units.items() if len(unit) > 1)
    return Agreement(figures, two, krippendorff_alpha(units), pairs, bool(ballots.audited))


def _tables(ballots: Ballots) -> list[tuple[dict[str, int], int]]:
    counted = (ballots.audited or ballots.all).items()
    return [({judge: vote for judge, vote in b if vote is not None}, number) for b, number in counted]


def ratings(ballots: Ballots) -> Counter[tuple[int, ...]]:
    """The number of pairs by the votes that they were given: of audited pairs, if any was audited."""
    units: Counter[tuple[int, ...]] = Counter()
    for table, number in _tables(ballots):
        units[tuple(table.values())] += number
    return units


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


def alpha_interval(units: Mapping[tuple[int, ...], int]) -> Interval | None:
    """Krippendorff's alpha with an interval by the jackknife over units; None where it is not defined.

    The jackknife takes as many values as there are different units, and no random numbers: Efron, "The Jackknife, the
    Bootstrap and Other Resampling Plans", 1982, chapter 3.
    """
    counted = {unit: number for unit, number in units.items() if len(unit) > 1}
    alpha, n = krippendorff_alpha(counted), sum(counted.values())
    if alpha is None or n < 2:
        return None
    without = {unit: krippendorff_alpha({**counted, unit: number - 1}) for unit, number in counted.items()}
    left = [(alpha if each is None else each, counted[unit]) for unit, each in without.items()]
    mean = sum(each * number for each, number in left) / n
    variance = (n - 1) / n * sum(number * (each - mean) ** 2 for each, number in left)
    return Interval.around(alpha, math.sqrt(variance), -1.0, 1.0)


def _unequal(counts: Counter[int]) -> int:
    """The number of ordered pairs of different values."""
    return counts.total() ** 2 - sum(n * n for n in counts.values())
