"""How far the judges agree: shares, Cohen's kappa for two of them, Krippendorff's alpha for all.

Judges are asked only while a verdict is open, so over all pairs the later ones see mostly what the earlier ones
disagreed on. Agreement is therefore taken over the audited pairs, drawn by hash, which every judge saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from taskgalaxy_ops.canonical import draw
from taskgalaxy_ops.records import PairId, Vote


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """One judge over all pairs, audits included."""

    judge: str
    approvals: int
    rejections: int
    abstentions: int

    @property
    def approval_share(self) -> float | None:
        """Approvals of all votes that are no abstention."""
        voted = self.approvals + self.rejections
        return self.approvals / voted if voted else None


@dataclass(frozen=True, slots=True)
class TwoJudges:
    """Two judges over the pairs on which both voted."""

    judges: tuple[str, str]
    pairs: int
    agreed: int
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The judges' agreement. ``audited`` false: no pair was audited, so it is over all pairs, and biased."""

    judges: list[JudgeFigures]
    two: list[TwoJudges]
    alpha: float | None
    pairs: int  # with two votes or more
    audited: bool


def agreement(votes: Mapping[PairId, Sequence[Vote]], judges: Sequence[str], audit_share: float) -> Agreement:
    """Figures of the judges, in their order, over everything that was voted on."""
    cast: Counter[tuple[str, int | None]] = Counter((vote.judge, vote.vote) for row in votes.values() for vote in row)
    figures = [JudgeFigures(name, cast[name, 1], cast[name, 0], cast[name, None]) for name in judges]
    audited = {pair: row for pair, row in votes.items() if draw("audit", pair) < audit_share}
    tables = [{vote.judge: vote.vote for vote in row if vote.vote is not None} for row in (audited or votes).values()]
    two = []
    for a, b in combinations(judges, 2):
        both = [(table[a], table[b]) for table in tables if a in table and b in table]
        two.append(TwoJudges((a, b), len(both), sum(x == y for x, y in both), cohen_kappa(both)))
    units = [list(table.values()) for table in tables]
    return Agreement(figures, two, krippendorff_alpha(units), sum(len(u) > 1 for u in units), bool(audited))


def cohen_kappa(ratings: Sequence[tuple[int, int]]) -> float | None:
    """Cohen's kappa of two raters; None where chance alone would have them agree always, or nothing was rated.

    kappa = (p_o - p_e) / (1 - p_e): Cohen, "A coefficient of agreement for nominal scales", 1960, formula 1.
    """
    if not ratings:
        return None
    n = len(ratings)
    observed = sum(a == b for a, b in ratings) / n
    first, second = Counter(a for a, _ in ratings), Counter(b for _, b in ratings)
    expected = sum(first[value] * second[value] for value in first) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Iterable[Sequence[int]]) -> float | None:
    """Krippendorff's alpha for nominal values, any number of raters, values missing; None where nothing varies.

    units: the values that each unit was given. alpha = 1 - D_o / D_e from the coincidences of values within units:
    Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C.
    """
    totals: Counter[int] = Counter()
    observed = 0.0
    for unit in units:
        if len(unit) > 1:
            counts = Counter(unit)
            totals += counts
            observed += _unequal(counts) / (len(unit) - 1)
    expected = _unequal(totals) / max(totals.total() - 1, 1)
    return 1 - observed / expected if expected else None


def _unequal(counts: Counter[int]) -> int:
    """Ordered pairs of values that differ."""
    return counts.total() ** 2 - sum(n * n for n in counts.values())
