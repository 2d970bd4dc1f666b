"""The settings that a release's data depend on, as its card and its manifest show them."""

from __future__ import annotations

from typing import Any

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.staged import staged
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.generation.vote_rule import MeasuredVote
from taskgalaxy_ops.release.decontaminate.stored import benchmark_rules
from taskgalaxy_ops.release.reviewed import review_rules
from taskgalaxy_ops.settings import VoteSettings
from taskgalaxy_ops.storage.judge_log import JudgeMeasure
from taskgalaxy_ops.storage.shards import short
from taskgalaxy_ops.workspace import Workspace


def data_rules(workspace: Workspace) -> dict[str, Any]:
    """Each by its name in the settings, and what of the logs they read."""
    settings = workspace.settings
    return {
        "match.k": settings.match.k,
        **{f"match.{name}": value for name, value in settings.match.breadth.items()},
        "write.variants": list(settings.write.variants),
        **_vote_rule(settings.vote),
        **settings.further_rules,
        "vote.show_answer": settings.vote.show_answer,
        **{f"{stage}.context": list(fields) for stage in ASKING if (fields := getattr(settings, stage).context)},
        **(settings.targets.rules if settings.targets else {}),
        **log_rules(workspace),
    }


def log_rules(workspace: Workspace) -> dict[str, Any]:
    """What a release depends on of what people recorded: their votes, the judges' figures, and benchmarks."""
    found = {**review_rules(workspace), **benchmark_rules(workspace)}
    if measure := recorded(workspace):
        found["release.probability.entry"] = short(measure.hash)
    if isinstance(vote := staged(workspace).vote, MeasuredVote):
        found["vote.rule.entry"] = short(vote.measure.hash)
    return found


def _vote_rule(vote: VoteSettings) -> dict[str, Any]:
    return {"vote.quorum": vote.quorum} if vote.rule == "quorum" else {"vote.rule.probability": vote.rule.probability}


def recorded(workspace: Workspace) -> JudgeMeasure | None:
    """What was recorded of the judges, where ``release.probability`` reads it. Raises SettingsError: nothing was."""
    if workspace.settings.release.probability != "recorded":
        return None
    if workspace.judge_measure is None:
        raise SettingsError(
            "release.probability: nothing is recorded of the judges. Run `taskgalaxy judges --record`, or set it to "
            "`votes`."
        )
    return workspace.judge_measure
