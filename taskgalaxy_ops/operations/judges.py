"""The judges, measured by their votes: who can be relied on, who cannot, and what that means for the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.operations.judge_findings import Finding, Order, findings, order
from taskgalaxy_ops.operations.judge_votes import StoreVotes, VotesPaid, periods, store_votes
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.records import PairId
from taskgalaxy_ops.release.agreement import (
    Agreement,
    Ballot,
    Interval,
    agreement,
    alpha_interval,
    judge_figures,
    krippendorff_alpha,
    ratings,
)
from taskgalaxy_ops.release.gold import (
    GoldFigures,
    PlantedFigures,
    calibration_error,
    least_precision,
    powered_share,
)
from taskgalaxy_ops.release.judge_fit import Counts, fit, measure_of, merged, probabilities
from taskgalaxy_ops.release.judge_model import Dependence, JudgeAccuracy
from taskgalaxy_ops.release.vote_table import BallotTable, ballot
from taskgalaxy_ops.storage.judge_log import JudgeLog, JudgeMeasure
from taskgalaxy_ops.workspace import Workspace

Probabilities = Callable[[BallotTable], Iterator[tuple[PairId, float | None]]]  # of the pairs of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The pairs of a branch, form or source."""

    name: str
    pairs: int
    accepted: int
    approvals: Mapping[str, float | None]  # by judge: as a share of its votes
    alpha: float | None  # over all these pairs, audited or not: to compare groups by, not judges
    right: float | None  # the share of right pairs that the votes say; None: no estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """What ``taskgalaxy judges`` tells."""

    simulated: bool
    pairs: int  # with a verdict
    accepted: int
    pending: int  # request items of the whole store without an answer
    rule: str  # by which pairs are accepted, in words
    agreement: Agreement
    alpha: Interval | None
    accuracies: list[JudgeAccuracy]  # []: no estimate
    dependences: list[Dependence]
    right: Interval | None  # the share of right ones among the accepted
    findings: list[Finding]
    order: Order | None
    groups: Mapping[str, list[Group]]
    drift: Mapping[str, Mapping[str, tuple[int, float]]]  # by period, by judge: votes, and the share of approvals
    paid: Mapping[str, VotesPaid]
    gold: GoldFigures | None
    planted: PlantedFigures | None = None  # None: no errors were planted
    # By branch, form and source, by name: pairs answered rightly without their image, of those that were asked so.
    blind: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)


def judge_report(
    workspace: Workspace, gold: Mapping[PairId, bool] | None = None, progress: Progress | None = None
) -> JudgeReport:
    """Measure a store's judges. gold: verdicts of people, by pair. Asks no model."""
    found = store_votes(workspace, gold or {}, progress or Silent())
    return report(found, len(gold) if gold is not None else None, workspace.settings.simulated)


def record_judges(
    workspace: Workspace, gold: Mapping[PairId, bool] | None = None, progress: Progress | None = None
) -> JudgeMeasure:
    """Record how probably a pair is right by its votes, as the votes so far and a gold set say; returns the newest.

    Nothing is recorded where the newest entry says the same. Raises SettingsError where fewer than two judges vote now
    so, now so, or there are too many judges.
    """
    found = store_votes(workspace, gold or {}, progress or Silent())
    model = fit(found.ballots.all, found.judges, found.gold, found.planted)
    if model is None:
        raise SettingsError(
            "judges --record: there is nothing to record, for fewer than two judges vote now so, now so. Let more "
            "pairs be voted on."
        )
    return JudgeLog(workspace.store).record(measure_of(model, found.ballots.all.total()))


def report(found: StoreVotes, gold_pairs: int | None = None, simulated: bool = False) -> JudgeReport:
    """The report of counted votes; ``gold_pairs``: how many the gold set has, None: there is none."""
    everything = found.ballots.all
    alone = fit(everything, found.judges)
    known = found.gold or found.planted
    informed = fit(everything, found.judges, found.gold, found.planted) if known else alone
    right = probabilities(informed, everything)
    accepted = {each: number for each, number in everything.items() if found.accepts(each)}
    measured = agreement(found.ballots, found.judges)
    accuracies = informed.accuracies() if informed else []
    dependences = informed.dependences() if informed else []
    return JudgeReport(
        simulated=simulated,
        pairs=everything.total(),
        accepted=sum(accepted.values()),
        pending=found.pending,
        rule=found.rule.words,
        agreement=measured,
        alpha=alpha_interval(ratings(found.ballots)),
        accuracies=accuracies,
        dependences=dependences,
        right=informed.share_right(merged(accepted, informed)) if informed else None,
        findings=findings(found, measured, accuracies, dependences),
        order=order(found),
        groups={
            kind: [_group(name, counts, found, right) for name, counts in sorted(groups.items())]
            for kind, groups in found.groups.items()
        },
        drift=drift(found),
        paid={judge: found.paid[judge] for judge in found.judges if judge in found.paid},
        blind={
            kind: {name: (each[True], each.total()) for name, each in sorted(names.items())}
            for kind, names in found.blind.items()
        },
        gold=None if gold_pairs is None else gold_figures(found, gold_pairs, probabilities(alone, everything)),
        planted=planted_figures(found, probabilities(alone, found.planted)),
    )


# --- groups, time, gold


def _group(name: str, counts: Counts, found: StoreVotes, right: Mapping[Ballot, float]) -> Group:
    units: Counter[tuple[int, ...]] = Counter()
    for cast, number in counts.items():
        units[tuple(vote for _, vote in cast if vote is not None)] += number
    pairs = sum(counts.values())
    alpha = krippendorff_alpha(units)
    shares = {each.judge: each.approval_share for each in judge_figures(counts, found.judges)}
    return Group(
        name=name,
        pairs=pairs,
        accepted=sum(number for cast, number in counts.items() if found.accepts(cast)),
        approvals={judge: None if share is None else round(share, 3) for judge, share in shares.items()},
        alpha=None if alpha is None else round(alpha, 3),
        right=round(sum(number * right[cast] for cast, number in counts.items()) / pairs, 3) if right else None,
    )


def drift(found: StoreVotes) -> dict[str, dict[str, tuple[int, float]]]:
    """By period, by judge: votes, and the share of them that approve."""
    names = periods(minute for judge in found.judges for minute, _ in found.minutes.get(judge, ()))
    votes: dict[str, dict[str, Counter[int]]] = {}
    for judge in found.judges:
        for (minute, vote), number in found.minutes.get(judge, Counter()).items():
            if minute in names:
                votes.setdefault(names[minute], {}).setdefault(judge, Counter())[vote] += number
    return {
        period: {judge: (own.total(), round(own[1] / own.total(), 3)) for judge, own in by_judge.items()}
        for period, by_judge in sorted(votes.items())
    }


def gold_figures(found: StoreVotes, pairs: int, right: Mapping[Ballot, float]) -> GoldFigures:
    """What a gold set of so many pairs says. right: probabilities by the votes alone; {}: no estimate."""
    rows = [
        (cast, known, found.accepts(cast))
        for cast, numbers in found.gold.items()
        for known in (False, True)
        for _ in range(numbers[known])
    ]
    both = sum(known and accepted for _, known, accepted in rows)
    accepted, good = sum(each for *_, each in rows), sum(known for _, known, _ in rows)
    predicted: list[float] = []
    for cast, number in found.ballots.all.items():
        if right and found.accepts(cast):
            predicted += [right[cast]] * (number - sum(found.gold.get(cast, ())))
    of_samples = [(right.get(cast, 0.0), known) for cast, known, taken in rows if taken]
    return GoldFigures(
        pairs=pairs,
        unknown=pairs - len(rows),
        right=good,
        accepted=accepted,
        precision=Interval.of_share(both, accepted) if accepted else None,
        recall=Interval.of_share(both, good) if good else None,
        calibration=calibration_error([right[cast] for cast, *_ in rows], [known for _, known, _ in rows])
        if right
        else None,
        right_share=powered_share(predicted, [each for each, _ in of_samples], [known for _, known in of_samples]),
    )


def planted_figures(found: StoreVotes, right: Mapping[Ballot, float]) -> PlantedFigures | None:
    """What planted errors say; None: there are none. right: probabilities by the votes alone; {}: no estimate."""
    errors, pairs = found.planted.total(), found.ballots.all.total()
    if not errors:
        return None
    cast: dict[str, list[int]] = {}
    for ballot_, number in found.planted.items():
        for judge, vote in ballot_:
            if vote is not None:
                cast.setdefault(judge, [0, 0])[vote] += number
    prices = [(sum(votes), found.price(judge)) for judge, votes in cast.items()]
    missed = sum(number for each, number in found.planted.items() if found.accepts(each))
    caught = Interval.of_share(errors - missed, errors)
    accepted = sum(number for each, number in found.ballots.all.items() if found.accepts(each))
    return PlantedFigures(
        errors=errors,
        votes=sum(number for number, _ in prices),
        cost=None
        if any(price is None for _, price in prices)
        else round(sum(number * (price or 0) for number, price in prices), 6),
        caught=caught,
        by_judge={
            judge: (sum(cast[judge]), Interval.of_share(cast[judge][0], sum(cast[judge])))
            for judge in found.judges
            if judge in cast
        },
        precision=least_precision(accepted / pairs, caught) if pairs else None,
        probability=round(sum(number * right[each] for each, number in found.planted.items()) / errors, 3)
        if right
        else None,
    )


def pair_probabilities(workspace: Workspace, progress: Progress | None = None) -> list[tuple[PairId, float]]:
    """Each pair with a verdict and its probability of being right, by the votes alone, in order of id."""
    found = store_votes(workspace, {}, progress or Silent(), keep_ballots=True)
    likely = _by_votes(found)
    rows = (row for table in found.tables for row in likely(table))
    return sorted((pair, each) for pair, each in rows if each is not None)


def verdict_probabilities(workspace: Workspace) -> Probabilities:
    """The same for the ballots of an image shard at a time: None is a pair of which there is no estimate.

    It is by what is recorded of the judges, if anything is, so that it is the same until somebody records again.
    """
    if (measure := workspace.judge_measure) is not None:
        return lambda table: _of_pairs(table, measure.probability)
    return _by_votes(store_votes(workspace, {}, Silent()))


def _by_votes(found: StoreVotes) -> Probabilities:
    right = probabilities(fit(found.ballots.all, found.judges), found.ballots.all)
    return lambda table: _of_pairs(table, right.get)


def _of_pairs(table: BallotTable, right: Callable[[Ballot], float | None]) -> Iterator[tuple[PairId, float | None]]:
    by_code = {int(code): right(ballot(int(code), table.judges)) for code in np.unique(table.codes)}
    return zip(table.pairs.to_pylist(), (by_code[code] for code in table.codes.tolist()), strict=True)
