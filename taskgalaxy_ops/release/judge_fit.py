"""The model of votes, fitted to counted ballots, and what it says against a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.release.agreement import Agreement, Ballot, Interval, judge_figures
from taskgalaxy_ops.release.judge_model import Dependence, JudgeAccuracy, JudgeModel
from taskgalaxy_ops.storage.judge_log import MOST_JUDGES, JudgeMeasure

Counts = Mapping[Ballot, int]

CONSTANT = 20  # votes of a judge that are all alike, from which it is broken
WEAK = 0.75  # balanced accuracy, below which a judge's whole interval makes it weak; a coin has 0.5
TOGETHER = 0.8  # probability from which two judges are said to err together
COPIES = 0.8  # probability from which one of two judges is said to copy


@dataclass(frozen=True, slots=True)
class Warned:
    """What the votes say against a judge."""

    judge: str
    kind: str  # "broken", "weak" or "copying"
    evidence: str


def fit(
    counts: Counts,
    judges: Sequence[str],
    gold: Mapping[Ballot, Sequence[int]] | None = None,
    planted: Counts | None = None,
) -> JudgeModel | None:
    """The model of those of ``judges`` who vote now so, now so; None: fewer than two of them have voted.

    gold: of the counted pairs, by ballot, how many are known to be wrong and right. planted: the ballots of errors that
    were planted, which are not among the counted.
    """
    left_out = constant(counts, judges)
    voted = {judge for cast in counts for judge, vote in cast if vote is not None}
    judges = [judge for judge in judges if judge not in left_out and judge in voted]
    if len(judges) < 2:
        return None
    open_pairs: Counter[Ballot] = Counter()
    known: dict[Ballot, tuple[int, int]] = {}
    for cast, number in counts.items():
        own = voting(cast, judges)
        wrong, right = (gold or {}).get(cast, (0, 0))
        open_pairs[own] += number - wrong - right
        if wrong or right:
            before = known.get(own, (0, 0))
            known[own] = before[0] + wrong, before[1] + right
    errors: Counter[Ballot] = Counter()
    for cast, number in (planted or {}).items():
        errors[voting(cast, judges)] += number
    return JudgeModel(judges, open_pairs, known, errors)


def constant(counts: Counts, judges: Sequence[str]) -> dict[str, int]:
    """The judges whose votes are all alike, with that vote. They tell nothing of a pair."""
    return {
        each.judge: vote
        for each in judge_figures(counts, judges)
        for vote, (alike, others) in enumerate(((each.rejections, each.approvals), (each.approvals, each.rejections)))
        if alike >= CONSTANT and not others
    }


def voting(cast: Ballot, judges: Collection[str]) -> Ballot:
    """A ballot as a model of these judges sees it."""
    return tuple(each for each in cast if each[0] in judges)


def merged(counts: Counts, model: JudgeModel) -> Counter[Ballot]:
    """The number of pairs by ballot as the model sees it."""
    seen: Counter[Ballot] = Counter()
    for cast, number in counts.items():
        seen[voting(cast, model.judges)] += number
    return seen


def probabilities(model: JudgeModel | None, ballots: Iterable[Ballot]) -> dict[Ballot, float]:
    """The probability that a pair with each ballot is right; {}: no estimate."""
    if model is None:
        return {}
    every = list(ballots)
    return dict(zip(every, model.probabilities([voting(each, model.judges) for each in every]), strict=True))


def measure_of(model: JudgeModel, pairs: int) -> JudgeMeasure:
    """What a model says of every way in which its judges may vote. Raises SettingsError for many judges.

    pairs: that it was fitted to.
    """
    if len(model.judges) > MOST_JUDGES:
        raise SettingsError(
            f"judges: {len(model.judges)} judges' votes have too many combinations to be recorded. Name {MOST_JUDGES} "
            "judges at most."
        )
    # The last factor of a product moves first, as the lowest digit of a place does: the first judge's.
    ways = product((None, 0, 1), repeat=len(model.judges))
    ballots = [tuple(zip(model.judges, reversed(votes), strict=True)) for votes in ways]
    return JudgeMeasure(judges=model.judges, right=tuple(model.probabilities(ballots)), pairs=pairs)


def warnings(
    counts: Counts,
    judges: Sequence[str],
    measured: Agreement,
    accuracies: Sequence[JudgeAccuracy],
    dependences: Sequence[Dependence],
) -> list[Warned]:
    """Broken, weak and copying judges, in this order."""
    told: list[Warned] = []
    for judge, vote in constant(counts, judges).items():
        word = "approved" if vote else "rejected"
        [figures] = [each for each in measured.judges if each.judge == judge]
        number = figures.approvals + figures.rejections
        told.append(Warned(judge, "broken", f"{word} all {number:,} pairs that it voted on: its votes say nothing"))
    for each in accuracies:
        if each.balanced.high < WEAK:
            told.append(
                Warned(
                    each.judge,
                    "weak",
                    f"is right about {share(each.sensitivity)} of right pairs and {share(each.specificity)} of wrong "
                    f"ones: the mean, {share(each.balanced)}, is below {WEAK:.0%} with all of its interval (a coin: "
                    "50%)",
                )
            )
    agreed = {two.judges: two for two in measured.two}
    for two in dependences:
        if two.copying >= COPIES:
            pair = agreed[two.judges]
            told.append(
                Warned(
                    two.judges[1],
                    "copying",
                    f"votes as {two.judges[0]} does in {pair.agreed:,} of {pair.pairs:,} pairs, more than being right "
                    f"explains (probability {two.copying:.3f}): the two count nearly as one",
                )
            )
    return told


def share(interval: Interval) -> str:
    """A share with its interval, in percent."""
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
