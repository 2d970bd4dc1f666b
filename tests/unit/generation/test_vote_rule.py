"""``vote.rule``: what it reads of the judges is recorded, and keys name it: verdicts change when somebody records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny import TinyModels, tiny_models, tiny_voted

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.judges import judge_report, record_judges
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release.publish import publish
from taskgalaxy_ops.reports.text import explain as explain_text
from taskgalaxy_ops.settings import BlindSettings, ProbabilityRule
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.judge_log import JudgeLog, JudgeMeasure
from taskgalaxy_ops.storage.shards import short
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models", "tiny_voted"]


def ruled(workspace: Workspace, least: float, **vote: Any) -> Workspace:
    """The workspace by a probability, with nothing kept in memory."""
    rule = {"rule": ProbabilityRule(probability=least), **vote}
    return workspace.with_settings(vote=workspace.settings.vote.model_copy(update=rule))


def test_without_a_record_the_error_says_what_to_run_and_judges_can_be_recorded(workspace: Workspace) -> None:
    other = ruled(workspace, 0.6)
    with pytest.raises(SettingsError, match="judges --record"):
        pipeline.generate(other)
    anew = other.with_settings(match=other.settings.match.model_copy(update={"k": 4}))
    assert pipeline.generate(anew, pipeline.RunOptions(last_stage="write")).pending == 0, "what needs no record is run"
    assert judge_report(other).rule == "2 approvals or more", "by quorum, until something is recorded"
    record_judges(other)
    assert pipeline.generate(ruled(workspace, 0.6)).pending == 0
    JudgeLog(workspace.store).record(JudgeMeasure(judges=("x", "y"), right=(0.5,) * 9, pairs=9))
    with pytest.raises(SettingsError, match="other judges"):
        pipeline.generate(ruled(workspace, 0.6))


def test_verdicts_are_those_of_the_record_and_nothing_is_asked_twice(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    before = StageKeys(workspace).asking("vote", "0" * 64, 0).key
    measure = record_judges(workspace)
    assert StageKeys(workspace.with_settings()).asking("vote", "0" * 64, 0).key == before, "a record changes no quorum"
    other = ruled(workspace, 0.6)
    assert StageKeys(other).asking("vote", "0" * 64, 0).key != before
    ahead = plan(other)
    asked = tiny_models.requests
    pipeline.generate(other)
    paid = tiny_models.requests - asked
    [votes] = [stage.units for stage in ahead.stages if stage.stage == "vote"]
    assert votes.low <= votes.expected <= votes.high and bool(votes.high) >= bool(paid)
    results = RunResults(other)
    for pair, verdict in results.verdicts.items():
        right = measure.probability((vote.judge, vote.vote) for vote in results.votes[pair])
        assert verdict.accepted == (right >= 0.6), "audits change nothing either"
    assert {reject.reason for reject in results.rejects if reject.pair in results.verdicts} <= {
        Reason.IMPROBABLE,
        Reason.ABSTAINED,
    }
    asked = tiny_models.requests
    pipeline.generate(ruled(workspace, 0.6))
    assert tiny_models.requests == asked
    assert judge_report(other).accepted == len(results.samples)


def test_a_blind_probe_marks_or_rejects_and_else_the_probability_decides(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    record_judges(workspace)
    plain = ruled(workspace, 0.6)
    pipeline.generate(plain)
    without = RunResults(plain).verdicts
    guesser = {**workspace.settings.teacher.model_dump(), "name": "guesser", "model": "guesser"}
    blind = BlindSettings.model_validate({"model": guesser, "tries": 1, "right": 1})
    marked = ruled(workspace, 0.6, blind=blind)
    tiny_models.start(None)
    pipeline.generate(marked)
    assert {unit[1] for unit in tiny_models.seen} == {"blind"}
    verdicts = RunResults(marked).verdicts
    assert {pair: replace(each, blind=None) for pair, each in verdicts.items()} == without
    answered = {pair for pair, each in verdicts.items() if each.blind}
    assert 0 < len(answered) < len(verdicts)
    tiny_models.start(None)
    rejecting = ruled(workspace, 0.6, blind=blind.model_copy(update={"rule": "reject"}))
    pipeline.generate(rejecting)
    assert not tiny_models.requests
    results = RunResults(rejecting)
    assert {each.pair for each in results.rejects if each.reason == Reason.ANSWERED_BLIND} == answered
    assert results.verdicts == {pair: each for pair, each in verdicts.items() if pair not in answered}
    assert judge_report(rejecting).pairs == len(verdicts) - len(answered)


def test_release_and_explain_say_the_rule(workspace: Workspace) -> None:
    measure = record_judges(workspace)
    other = ruled(workspace, 0.05)
    pipeline.generate(other)
    receipt = publish(other)
    card = other.store.get(keys.release(receipt.release.version) + "README.md").decode()
    assert "with a probability of 0.05 or more" in card and measure.hash[:12] in card and "vote.quorum" not in card
    sample = RunResults(other).samples[0]
    told = explain(other, sample.pair)
    assert f"≥ 0.05 (judges as recorded in {short(measure.hash)})" in "\n".join(explain_text.explained(told))
    assert not publish(other).made
    JudgeLog(other.store).record(JudgeMeasure(judges=("a", "b", "c"), right=(0.07,) * 27, pairs=9))
    assert publish(ruled(workspace, 0.05)).made, "another record is another release, though the samples are the same"
