"""What the votes say against a judge: broken, weak, copying, drifting; and in which order judges cost least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from taskgalaxy_ops.generation.vote_rule import MISSING, Cast, Rule
from taskgalaxy_ops.operations.judge_drift import drifting
from taskgalaxy_ops.operations.judge_votes import StoreVotes
from taskgalaxy_ops.release.agreement import Agreement
from taskgalaxy_ops.release.judge_fit import warnings
from taskgalaxy_ops.release.judge_model import Dependence, JudgeAccuracy

_MOST_ORDERED = 6  # judges, of which all orders are tried


@dataclass(frozen=True, slots=True, kw_only=True)
class DropEffect:
    """What verdicts without a judge would be, if the rule stays, or a quorum is of all who are left."""

    accepted: int  # pairs that become samples
    rejected: int  # samples that do not stay
    open: int  # pairs that other judges would first have to be asked about
    votes: int  # that this takes at most
    cost: float | None  # USD of these; None: nothing is known of prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A judge that is not to be relied on."""

    judge: str
    kind: str  # "broken", "weak", "copying" or "drifting"
    evidence: str
    drop: DropEffect
    ask_again: float | None  # USD, by what its votes cost so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of judges in which verdicts cost least. The verdicts are the same in every order."""

    judges: tuple[str, ...]
    pairs: int  # audited, by which it is computed
    cost: float  # of a pair, in ``unit``
    now: float  # of a pair in the settings' order
    unit: str  # "USD" or "votes"

    @property
    def saved(self) -> float:
        """The share of the cost of votes, audits left out."""
        return 1 - self.cost / self.now if self.now else 0.0


def findings(
    found: StoreVotes, measured: Agreement, accuracies: Sequence[JudgeAccuracy], dependences: Sequence[Dependence]
) -> list[Finding]:
    """Broken, weak, copying and drifting judges, in this order."""
    told = warnings(found.ballots.all, found.judges, measured, accuracies, dependences) + drifting(found)
    return [
        Finding(
            judge=each.judge,
            kind=each.kind,
            evidence=each.evidence,
            drop=dropped(found, each.judge),
            ask_again=_again(found, each.judge),
        )
        for each in told
    ]


def dropped(found: StoreVotes, judge: str) -> DropEffect:
    """What the verdicts would be without a judge."""
    left = [each for each in found.judges if each != judge]
    rule = found.rule.among(left)
    effect, needed = Counter[str](), Counter[str]()
    for cast, number in found.ballots.all.items():
        votes = dict(cast)
        sides = rule.sides(tuple(votes.get(name, MISSING) for name in left))
        if len(sides) > 1:
            effect["open"] += number
            needed.update({name: number for name in left if name not in votes})
        elif (accepted := True in sides) != found.accepts(cast):
            effect["accepted" if accepted else "rejected"] += number
    prices = [(number, found.price(name)) for name, number in needed.items()]
    cost = None if any(each is None for _, each in prices) else sum(number * (each or 0) for number, each in prices)
    return DropEffect(
        accepted=effect["accepted"],
        rejected=effect["rejected"],
        open=effect["open"],
        votes=needed.total(),
        cost=None if cost is None else round(cost, 6),
    )


def _again(found: StoreVotes, judge: str) -> float | None:
    each, cast = found.price(judge), sum(n for b, n in found.ballots.all.items() if judge in dict(b))
    return None if each is None else round(each * cast, 6)


# --- the order of judges


def order(found: StoreVotes) -> Order | None:
    """The cheapest order, by the audited pairs, on which all votes are known; None: there are none, or many judges."""
    full = {cast: n for cast, n in found.ballots.audited.items() if len(cast) == len(found.judges)}
    pairs = sum(full.values())
    if not pairs or not 1 < len(found.judges) <= _MOST_ORDERED:
        return None
    prices = {judge: found.price(judge) for judge in found.judges}
    unit = "votes" if None in prices.values() else "USD"
    each = {judge: 1.0 if unit == "votes" else known or 0.0 for judge, known in prices.items()}

    def cost(judges: Sequence[str]) -> float:
        rule = found.rule.among(judges)
        return sum(number * _asked(dict(cast), rule, each) for cast, number in full.items()) / pairs

    now = cost(found.judges)
    # permutations() begins with the settings' order, which stays where no other is cheaper.
    best = min(permutations(found.judges), key=lambda judges: round(cost(judges), 12))
    return Order(judges=best, pairs=pairs, cost=cost(best), now=now, unit=unit)


def _asked(votes: Mapping[str, int | None], rule: Rule, each: Mapping[str, float]) -> float:
    """What a pair's votes cost if the rule's judges are asked in order while the verdict is open."""
    cast: Cast = ()
    for judge in rule.judges:
        if not rule.is_open(cast):
            break
        cast = (*cast, votes[judge])
    return sum(each[judge] for judge in rule.judges[: len(cast)])
