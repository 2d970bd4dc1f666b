"""What votes say of judges, against simulations whose truth is known and against crowd-kit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from benchmarks.votes import JUDGES, simulated
from taskgalaxy_ops.release.agreement import (
    Ballot,
    Ballots,
    Interval,
    alpha_interval,
    krippendorff_alpha,
    ratings,
)
from taskgalaxy_ops.release.gold import least_precision
from taskgalaxy_ops.release.judge_model import JudgeModel

FIVE = ("a", "b", "c", "d", "e")


def independent(judges: tuple[str, ...], pairs: int, seed: int = 0) -> tuple[list[Ballot], list[bool]]:
    """Votes of judges who err in a tenth of the pairs, each on its own."""
    random = np.random.default_rng(seed)
    right = random.random(pairs) < 0.75
    votes = right[:, None] ^ (random.random((pairs, len(judges))) < 0.1)
    return [tuple(zip(judges, map(int, row), strict=True)) for row in votes], right.tolist()


def frame(ballots: list[Ballot]) -> pd.DataFrame:
    return pd.DataFrame(
        [(task, judge, vote) for task, ballot in enumerate(ballots) for judge, vote in ballot],
        columns=["task", "worker", "label"],
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")
def test_without_dependence_it_finds_what_dawid_and_skene_find() -> None:
    from crowdkit.aggregation import DawidSkene

    ballots, _ = independent(FIVE, 2_000)
    model = JudgeModel(FIVE, Counter(ballots))
    oracle = DawidSkene(n_iter=100).fit(frame(ballots))
    errors = oracle.errors_
    for found in model.accuracies():
        assert found.sensitivity.value == pytest.approx(errors.loc[(found.judge, 1), 1], abs=0.01)
        assert found.specificity.value == pytest.approx(errors.loc[(found.judge, 0), 0], abs=0.02)
    distinct = list(dict.fromkeys(ballots))
    probability = dict(zip(distinct, model.probabilities(distinct), strict=True))
    theirs = oracle.probas_[1]
    assert np.abs([probability[ballot] - theirs[task] for task, ballot in enumerate(ballots)]).mean() < 0.01


def test_alpha_is_crowd_kits_and_its_interval_covers_it() -> None:
    from crowdkit.metrics.data import alpha_krippendorff

    ballots, _ = independent(FIVE[:3], 500, seed=4)
    ballots = [ballot[: 3 - task % 2] for task, ballot in enumerate(ballots)]
    counted = Ballots(0.0)
    for task, ballot in enumerate(ballots):
        counted.add(str(task), ballot)
    units = ratings(counted)
    alpha = krippendorff_alpha(units)
    assert alpha == pytest.approx(alpha_krippendorff(frame(ballots)), abs=1e-9)
    interval = alpha_interval(units)
    assert interval is not None and alpha is not None
    assert interval.low < alpha < interval.high < interval.low + 0.2


def test_alphas_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    true = 1 - 0.18 / 0.42  # judges differ in 2 * 0.1 * 0.9, and by chance, approving 0.7, in 2 * 0.7 * 0.3
    for seed in range(60):
        ballots, _ = independent(FIVE[:3], 300, seed)
        interval = alpha_interval(Counter(tuple(vote for _, vote in ballot if vote is not None) for ballot in ballots))
        assert interval is not None
        covered += interval.low <= true <= interval.high
    assert covered >= 53


def test_alpha_has_no_interval_where_nothing_varies() -> None:
    assert alpha_interval({(1, 1): 9}) is None
    assert alpha_interval({(1,): 9}) is None
    assert alpha_interval({}) is None


def test_intervals_cover_configured_accuracies_of_judges_that_err_together() -> None:
    hits = [
        found.accuracy.low <= true <= found.accuracy.high
        for seed in range(8)
        for made in [simulated(seed, 3_000)]
        for found, true in zip(JudgeModel(JUDGES, Counter(made.ballots)).accuracies(), made.accuracy, strict=True)
    ]
    assert sum(hits) >= 21  # of 24


def test_intervals_do_not_close_on_a_model_that_is_not_quite_true() -> None:
    hits = []
    for seed in (0, 5, 7, 11):
        made = simulated(seed, 60_000)
        found = JudgeModel(JUDGES, Counter(made.ballots)).accuracies()
        hits += [
            each.accuracy.low <= true <= each.accuracy.high for each, true in zip(found, made.accuracy, strict=True)
        ]
    assert sum(hits) >= 10  # of 12


def test_the_same_votes_give_the_same_figures_in_any_order() -> None:
    counts = Counter(simulated(2, 500).ballots)
    other = Counter(dict(sorted(counts.items(), key=repr, reverse=True)))
    assert JudgeModel(JUDGES, counts).accuracies() == JudgeModel(JUDGES, other).accuracies()


def test_a_judge_that_copies_is_found_and_counts_as_one() -> None:
    ballots, right = independent(JUDGES, 1_500, seed=3)
    copied: list[Ballot] = [(a, ("b", a[1]), c) for a, _, c in ballots]
    model = JudgeModel(JUDGES, Counter(copied))
    by_judges = {each.judges: each for each in model.dependences()}
    assert by_judges["a", "b"].copying > 0.9
    assert by_judges["a", "c"].copying < 0.05
    share = model.share_right(Counter(copied))
    assert share is not None and share.low <= np.mean(right) <= share.high
    two_against_one = (("a", 1), ("b", 1), ("c", 0))
    [with_copy] = model.probabilities([two_against_one])
    [without] = JudgeModel(JUDGES, Counter(ballots)).probabilities([two_against_one])
    assert with_copy < without


def test_an_abstention_is_a_vote_that_was_not_cast() -> None:
    ballots, _ = independent(JUDGES, 600)
    short = Counter(ballot[:2] for ballot in ballots)
    abstained = Counter((*ballot[:2], ("c", None)) for ballot in ballots)
    assert JudgeModel(JUDGES, short).accuracies() == JudgeModel(JUDGES, abstained).accuracies()


def test_gold_narrows_the_intervals() -> None:
    made = simulated(6, 3_000)
    gold: dict[Ballot, tuple[int, int]] = {}
    for ballot, right in list(zip(made.ballots, made.right, strict=True))[:600]:
        wrong, known = gold.get(ballot, (0, 0))
        gold[ballot] = (wrong + (not right), known + bool(right))
    votes_alone = JudgeModel(JUDGES, Counter(made.ballots)).accuracies()
    informed = JudgeModel(JUDGES, Counter(made.ballots[600:]), gold).accuracies()
    for alone, better, true in zip(votes_alone, informed, made.accuracy, strict=True):
        assert better.accuracy.high - better.accuracy.low < alone.accuracy.high - alone.accuracy.low
        assert better.accuracy.low - 0.02 <= true <= better.accuracy.high + 0.02


def test_few_votes_say_little() -> None:
    model = JudgeModel(JUDGES, {(("a", 1), ("b", 1)): 2})
    assert all(found.accuracy.high - found.accuracy.low > 0.15 for found in model.accuracies())
    assert model.share_right({}) is None


def test_an_interval_of_a_share_is_wilsons() -> None:
    assert Interval.of_share(0, 10) == Interval(0.0, 0.0, 0.278)
    assert Interval.of_share(9, 10) == Interval(0.9, 0.596, 0.982)


def test_planted_errors_tell_specificity_and_nothing_of_the_share_of_right_pairs() -> None:
    ballots, right = independent(FIVE[:3], 400, seed=2)
    random = np.random.default_rng(3)
    votes = random.random((600, 3)) < 0.1
    planted = Counter(tuple(zip(FIVE[:3], map(int, row), strict=True)) for row in votes)
    alone = JudgeModel(FIVE[:3], Counter(ballots))
    model = JudgeModel(FIVE[:3], Counter(ballots), planted=planted)
    for before, after, approved in zip(alone.accuracies(), model.accuracies(), votes.mean(axis=0), strict=True):
        assert after.specificity.value == pytest.approx(1 - approved, abs=0.02)
        assert after.specificity.high - after.specificity.low < before.specificity.high - before.specificity.low
    found = model.share_right(Counter(ballots))
    assert found is not None and found.low <= sum(right) / len(right) <= found.high


@pytest.mark.parametrize(
    ("accepted", "caught", "least"),
    [(0.8, 0.9, 1 - (0.2 / 0.9) * 0.1 / 0.8), (0.8, 1.0, 1.0), (0.1, 0.5, 0.0), (0.5, 0.0, 0.0)],
)
def test_the_least_precision_is_what_uncaught_errors_leave(accepted: float, caught: float, least: float) -> None:
    found = least_precision(accepted, Interval(caught, caught, caught))
    assert found is not None and found.value == pytest.approx(least, abs=0.001)
