"""The report on judges: from a store, and from counts that are made up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from golden.golden_store import golden_workspace
from tiny import TinyModels, tiny_images, tiny_models, tiny_settings, tiny_workspace

from benchmarks.votes import simulated
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.cli import main
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.vote_rule import Quorum
from taskgalaxy_ops.operations.judge_drift import drifting
from taskgalaxy_ops.operations.judge_findings import Order, dropped
from taskgalaxy_ops.operations.judge_votes import StoreVotes, VotesPaid, periods
from taskgalaxy_ops.operations.judges import JudgeReport, judge_report, pair_probabilities, report
from taskgalaxy_ops.operations.review import Filled, record
from taskgalaxy_ops.release.agreement import Ballot, Ballots
from taskgalaxy_ops.reports.pages.judges import judges_page
from taskgalaxy_ops.reports.text.judges import judges
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

HOSTILE = "<script>alert(1)</script>\u202e"
DAY = 24 * 60  # minutes


def counted(
    ballots: Mapping[Ballot, int], judges: tuple[str, ...] = ("a", "b", "c"), audited: bool = True, **more: object
) -> StoreVotes:
    """Votes as they are counted of a store; by default every pair is audited."""
    both = Ballots(1.0 if audited else 0.0)
    for cast, number in ballots.items():
        for at in range(number):
            both.add(f"{cast}{at}", cast)
    given: dict[str, object] = {"judges": judges, "rule": Quorum(2, judges), "pending": 0, "groups": {}, **more}
    return StoreVotes(ballots=both, **given)  # type: ignore[arg-type]


def paid(**prices: int) -> dict[str, VotesPaid]:
    """Of each judge 100 votes at so many nano-dollars."""
    return {judge: VotesPaid(100, 100 * price, 0) for judge, price in prices.items()}


def cast(a: int, b: int, c: int | None) -> Ballot:
    return (("a", a), ("b", b), ("c", c))


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Two dozen images, whose judges vote as coins do."""
    found = tiny_workspace(tiny_settings(tiny_images(tmp_path / "images", 24)))
    pipeline.ingest(found, "mine")
    pipeline.generate(found)
    return found


# --- a store


def test_it_counts_what_the_store_holds(workspace: Workspace) -> None:
    found = judge_report(workspace)
    results = RunResults(workspace)
    assert (found.pairs, found.accepted, found.pending) == (len(results.pairs), len(results.samples), 0)
    for figures in found.agreement.judges:
        votes = [each.vote for own in results.votes.values() for each in own if each.judge == figures.judge]
        assert (figures.approvals, figures.rejections) == (votes.count(1), votes.count(0))
    for kind in ("branch", "form", "source"):
        groups = found.groups[kind]
        assert sum(group.pairs for group in groups) == found.pairs
        assert sum(group.accepted for group in groups) == found.accepted
    branches = {pair.task_type.partition("~")[0] for pair in results.pairs.values()}
    assert [group.name for group in found.groups["branch"]] == sorted(branches)
    assert found.paid["a"].votes >= found.pairs
    assert judge_report(workspace) == found
    assert json.loads(json.dumps(judges(found))) == judges(found)


def test_it_asks_no_model_and_writes_nothing(workspace: Workspace, tiny_models: TinyModels) -> None:
    before, keys = tiny_models.requests, {each.key for each in workspace.store.list("")}
    judge_report(workspace)
    pair_probabilities(workspace)
    assert tiny_models.requests == before
    assert {each.key for each in workspace.store.list("")} == keys


def test_every_verdict_has_a_probability(workspace: Workspace) -> None:
    rows = pair_probabilities(workspace)
    results = RunResults(workspace)
    assert [pair for pair, _ in rows] == sorted(results.verdicts)
    assert all(0 <= each <= 1 and each == round(each, 3) for _, each in rows)


def test_a_gold_set_is_held_against_the_verdicts(workspace: Workspace) -> None:
    results = RunResults(workspace)
    accepted = {pair: verdict.accepted for pair, verdict in results.verdicts.items()}
    found = judge_report(workspace, {**accepted, "f" * 64: True})
    assert found.gold is not None
    assert (found.gold.pairs, found.gold.unknown) == (len(accepted) + 1, 1)
    assert found.gold.right == found.gold.accepted == sum(accepted.values())
    assert found.gold.precision is not None and found.gold.precision.value == 1
    assert found.gold.recall is not None and found.gold.recall.value == 1
    assert found.gold.calibration is not None


def test_a_store_without_votes_has_a_report() -> None:
    found = report(counted({}))
    assert (found.pairs, found.accuracies, found.order, found.right, found.findings) == (0, [], None, None, [])
    assert judges(found) and judges_page(found)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = golden_workspace(tmp_path / "store")
    settings, gold = tmp_path / "settings.yaml", tmp_path / "gold.csv"
    settings.write_text(yaml.safe_dump(golden.settings.model_dump(mode="json")), encoding="utf-8")
    results = RunResults(golden)
    gold.write_text("pair,right\n" + "".join(f"{pair},yes\n" for pair in results.pairs), encoding="utf-8")
    page, probabilities = tmp_path / "made" / "page.html", tmp_path / "made" / "p.jsonl"
    common = ["judges", "--settings", str(settings), "--quiet", "--gold", str(gold)]
    assert main([*common, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pairs"], told["gold"]["right"]) == (len(results.verdicts), len(results.verdicts))
    assert main([*common, "--html", str(page), "--probabilities", str(probabilities)]) == 0
    assert f"page: {page}" in capsys.readouterr().out
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert [json.loads(line)["pair"] for line in probabilities.read_text().splitlines()] == sorted(results.verdicts)
    filled = [Filled(place="line 2", pair=next(iter(results.verdicts)), reviewer="r1", verdict="wrong")]
    record(golden, filled)
    assert main([*common[:-2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gold"]["pairs"] == 1, "what people voted is the gold set"
    gold.write_text("pair,right\nx,1\n", encoding="utf-8")
    assert main(common) == 1
    assert "line 2: no pair and verdict" in capsys.readouterr().err


# --- who is not to be relied on


def test_a_judge_who_always_approves_is_broken_and_tells_nothing_of_the_others() -> None:
    good = Counter(
        (("a", int(a)), ("b", int(b)), ("c", 1)) for a, b in zip("1101011100" * 9, "1101010100" * 9, strict=True)
    )
    found = report(counted(good))
    [broken] = found.findings
    assert (broken.judge, broken.kind) == ("c", "broken")
    assert "approved all 90 pairs" in broken.evidence
    assert [each.judge for each in found.accuracies] == ["a", "b"]
    # Without it both others must approve, where one was enough.
    assert (broken.drop.accepted, broken.drop.rejected, broken.drop.open) == (0, 9, 0)


def test_a_coin_is_weak() -> None:
    made = simulated(0, 3_000)
    coin = Counter((*each[:2], ("c", at % 2)) if len(each) > 2 else each for at, each in enumerate(made.ballots))
    assert [(each.judge, each.kind) for each in report(counted(coin, audited=False)).findings] == [("c", "weak")]


def test_a_copy_is_named_with_the_pairs_that_agree() -> None:
    made = simulated(4, 3_000)
    copied = Counter((("a", each[0][1]), ("b", each[0][1]), *each[2:]) for each in made.ballots)
    kinds = {each.kind: each for each in report(counted(copied, audited=False)).findings}
    assert kinds["copying"].judge == "b"
    assert "votes as a does in 3,000 of 3,000 pairs" in kinds["copying"].evidence


def test_a_dropped_judge_leaves_open_what_others_were_not_asked() -> None:
    ballots: dict[Ballot, int] = {(("a", 1), ("b", 1)): 30, cast(1, 0, 1): 10, cast(0, 1, 1): 5, cast(0, 1, None): 7}
    votes = counted(ballots, paid=paid(a=1_000, b=2_000, c=4_000), audited=False)
    effect = dropped(votes, "b")
    assert (effect.accepted, effect.rejected, effect.open, effect.votes) == (0, 5, 30, 30)
    assert effect.cost == pytest.approx(30 * 4e-6)


def test_the_cheapest_order_asks_the_dear_judge_last() -> None:
    ballots = {cast(1, 1, 1): 60, cast(0, 0, 0): 20, cast(1, 0, 1): 10, cast(0, 1, 1): 10}
    found = report(counted(ballots, paid=paid(a=9_000, b=1_000, c=1_000))).order
    assert found is not None
    assert found.judges == ("b", "c", "a")
    assert found.now == pytest.approx(10e-6 + 0.2 * 1e-6)
    assert found.cost == pytest.approx(2e-6 + 0.1 * 9e-6)
    assert found.saved == pytest.approx(1 - 2.9 / 10.2)
    assert report(counted(ballots, audited=False)).order is None


def test_without_prices_an_order_counts_votes() -> None:
    ballots = {cast(1, 1, 1): 60, cast(0, 0, 0): 20, cast(1, 0, 1): 20}
    found = report(counted(ballots)).order
    assert found == Order(judges=("a", "c", "b"), pairs=100, cost=2.0, now=2.2, unit="votes")


# --- time


def test_time_is_cut_into_months_or_tenths() -> None:
    assert periods([5, 5]) == {}
    tenths = periods(range(100))
    assert len(set(tenths.values())) == 10
    assert tenths[0] == "1970-01-01 00:00" and tenths[99] == "1970-01-01 01:30"
    assert periods([0, 40 * DAY]) == {0: "1970-01", 40 * DAY: "1970-02"}


def test_a_judge_that_drifts_shows_it() -> None:
    minutes = {"a": Counter({(0, 1): 9, (0, 0): 1, (40 * DAY, 1): 2, (40 * DAY, 0): 8})}
    found = report(counted({cast(1, 1, 1): 3}, minutes=minutes))
    assert found.drift == {"1970-01": {"a": (10, 0.9)}, "1970-02": {"a": (10, 0.2)}}
    assert any("90.0% of 10" in line for line in judges(found))


def moving(seed: int, late: Mapping[str, float], pairs: int = 600) -> dict[str, Counter[tuple[int, int]]]:
    """Votes on the same pairs, of which more are right in the end; ``late``: shares of errors in the last third."""
    random = np.random.default_rng(seed)
    minutes: dict[str, Counter[tuple[int, int]]] = {"a": Counter(), "b": Counter(), "c": Counter()}
    for at in range(pairs):
        right = random.random() < (0.6 if 3 * at < 2 * pairs else 0.75)
        for judge, own in minutes.items():
            error = 0.1 if 3 * at < 2 * pairs else late.get(judge, 0.1)
            own[at, int(right != (random.random() < error))] += 1
    return minutes


@pytest.mark.parametrize("judge", ["a", "b", "c"])
def test_a_judge_that_changes_is_named_alone_and_with_the_evidence(judge: str) -> None:
    found = report(counted({cast(1, 1, 1): 3, cast(0, 1, 0): 2}, minutes=moving(1, {judge: 0.45})))
    [drift] = found.findings
    assert (drift.judge, drift.kind) == (judge, "drifting")
    assert "votes since 1970-01-01 06:40 UTC" in drift.evidence and "other judges went from" in drift.evidence
    assert any(line.startswith(f"{judge} is drifting: approves") for line in judges(found))


def test_judges_that_see_other_pairs_of_late_do_not_drift() -> None:
    alarms = [drifting(counted({}, minutes=moving(seed, {}))) for seed in range(100)]
    assert sum(map(bool, alarms)) <= 3
    assert drifting(counted({}, minutes={"a": Counter({(0, 1): 500}), "b": Counter({(9, 0): 500})})) == []
    assert drifting(counted({}, minutes=moving(1, {"a": 0.45}, pairs=60))) == [], "too few votes to tell"


# --- the page


def hostile() -> JudgeReport:
    ballots = Counter(
        tuple((HOSTILE if name == "c" else name, vote) for name, vote in each) for each in simulated(3, 3_000).ballots
    )
    groups = {"branch": {HOSTILE: ballots}, "form": {"plain": ballots}, "source": {}}
    return report(counted(ballots, ("a", "b", HOSTILE), groups=groups), simulated=True)


def test_a_page_escapes_names_and_says_simulated() -> None:
    page = judges_page(hostile())
    assert "<script>alert" not in page and "\u202e" not in page
    assert page.count(">Simulated<") == 1
    assert ">Simulated<" not in judges_page(report(counted({cast(1, 1, 1): 3})))
    assert not any("\u202e" in line for line in judges(hostile()))
