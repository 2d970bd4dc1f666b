"""The settings as stages read them: with what they read of the store's logs."""

from __future__ import annotations

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.vote_rule import MeasuredVote
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.workspace import Workspace


def staged(workspace: Workspace, *, stage: str = "vote", whole: bool = True) -> Settings:
    """The settings as a stage reads them: ``vote`` with what is recorded of the judges, where its rule reads that.

    whole: whether all pairs of an image shard are known. Which errors are planted follows from all of them, so that
    none is as long as some are to be written. Raises SettingsError where the stage is vote, and nothing is recorded of
    the judges.
    """
    settings = workspace.settings
    if stage != "vote":
        return settings
    if not whole and settings.vote.planted:
        settings = settings.model_copy(update={"vote": settings.vote.model_copy(update={"planted": 0.0})})
    if settings.vote.rule == "quorum":
        return settings
    measure = workspace.judge_measure
    if measure is None or not {judge.name for judge in settings.judges} & {*measure.judges}:
        what = "nothing is recorded of the judges" if measure is None else "what is recorded is of other judges"
        raise SettingsError(
            f"vote.rule: {what}. Let them vote by `rule: quorum` first, and run `taskgalaxy judges --record`."
        )
    vote = MeasuredVote.model_construct(**dict(settings.vote), measure=measure)
    return settings.model_copy(update={"vote": vote})


def measurable(workspace: Workspace) -> Workspace:
    """The workspace under whose settings judges can be measured: by quorum as long as nothing is recorded of them."""
    vote = workspace.settings.vote
    if vote.rule == "quorum" or workspace.judge_measure is not None:
        return workspace
    return workspace.with_settings(vote=vote.model_copy(update={"rule": "quorum"}))
