"""Whether a judge votes otherwise of late, while the others do not.

The newest third of all votes is held against those before. What is asked about changes over time, too, and moves all
judges alike; so a judge's change is compared with that of the others: the difference of two log odds ratios of
approvals (Woolf, "On estimating the relation between blood group and disease", 1955), which is nearly normal. Votes of
several judges on one pair go together, which makes their difference vary less than the test allows for. The probability
of chance is multiplied by the number of judges (Bonferroni).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from taskgalaxy_ops.operations.judge_votes import StoreVotes
from taskgalaxy_ops.release.judge_fit import Warned

CHANCE = 0.01  # corrected probability of chance, below which a judge drifts
LEAST = 0.05  # change of the share of approvals beyond the others', below which none is worth a word
FEWEST = 30  # votes of a judge in each part
_MINUTE = 60


@dataclass(frozen=True, slots=True)
class _Parts:
    """Approvals and votes before, and of late."""

    before: tuple[int, int]
    late: tuple[int, int]

    def __add__(self, other: _Parts) -> _Parts:
        (a, b), (c, d) = self.before, self.late
        return _Parts((a + other.before[0], b + other.before[1]), (c + other.late[0], d + other.late[1]))

    @property
    def shares(self) -> tuple[float, float]:
        (a, b), (c, d) = self.before, self.late
        return a / b, c / d

    @property
    def change(self) -> float:
        before, late = self.shares
        return late - before

    def log_odds_ratio(self) -> tuple[float, float]:
        """With its variance; half a vote is added to each cell, so that both are finite."""
        cells = [each + 0.5 for yes, votes in (self.late, self.before) for each in (yes, votes - yes)]
        value = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
        return value, sum(1 / each for each in cells)


def drifting(found: StoreVotes) -> list[Warned]:
    """The judges who drift, the surest first. None is named that is asked after one of them: it sees other pairs."""
    if (since := _since(found.minutes)) is None:
        return []
    parts = {judge: _parts(found.minutes.get(judge, Counter()), since) for judge in found.judges}
    parts = {judge: each for judge, each in parts.items() if min(each.before[1], each.late[1]) >= FEWEST}
    told: list[Warned] = []
    candidates, judges = list(parts), len(parts)
    while len(parts) > 1 and candidates:
        rest = {judge: _others(parts, judge) for judge in candidates}
        judge = max(candidates, key=lambda name: (round(_z(parts[name], rest[name]), 9), abs(_own(parts[name]))))
        own, others = parts[judge], rest[judge]
        chance = min(1.0, judges * math.erfc(_z(own, others) / math.sqrt(2)))
        if chance >= CHANCE or abs(own.change - others.change) < LEAST:
            break
        told.append(Warned(judge, "drifting", _evidence(own, others, since, chance)))
        del parts[judge]
        candidates = [each for each in candidates if found.judges.index(each) < found.judges.index(judge)]
    return told


def _since(minutes: Mapping[str, Counter[tuple[int, int]]]) -> int | None:
    """The first minute of the newest third of all votes; None: all are of one minute."""
    each: Counter[int] = Counter()
    for own in minutes.values():
        for (minute, _), number in own.items():
            each[minute] += number
    late, since = 0, None
    for minute in sorted(each, reverse=True)[:-1]:
        late += each[minute]
        if since is not None and 3 * late > each.total():
            break
        since = minute
    return since


def _parts(own: Mapping[tuple[int, int], int], since: int) -> _Parts:
    cells = Counter[tuple[bool, int]]()
    for (minute, vote), number in own.items():
        cells[minute >= since, vote] += number
    before, late = ((cells[part, 1], cells[part, 0] + cells[part, 1]) for part in (False, True))
    return _Parts(before, late)


def _others(parts: Mapping[str, _Parts], judge: str) -> _Parts:
    return sum((each for name, each in parts.items() if name != judge), start=_Parts((0, 0), (0, 0)))


def _z(own: _Parts, others: _Parts) -> float:
    (mine, spread), (theirs, more) = own.log_odds_ratio(), others.log_odds_ratio()
    return abs(mine - theirs) / math.sqrt(spread + more)


def _own(own: _Parts) -> float:
    value, spread = own.log_odds_ratio()
    return value / math.sqrt(spread)


def _evidence(own: _Parts, others: _Parts, since: int, chance: float) -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(since * _MINUTE))
    (before, late), (theirs, theirs_late) = own.shares, others.shares
    likely = f"{chance:.4f}" if chance >= 0.0001 else "less than 0.0001"
    return (
        f"approves {late:.1%} of its {own.late[1]:,} votes since {day} UTC, and {before:.1%} of the {own.before[1]:,} "
        f"before, while the other judges went from {theirs:.1%} to {theirs_late:.1%} (by chance with a probability of "
        f"{likely})"
    )
