"""Upgrade: convert a store of an earlier layout to today's. Nothing is asked, encoded or computed again because of it.

Each step may be killed and run again; the layout's number is raised last. No run may work on the store meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.generation.stages import vote as vote_stage
from taskgalaxy_ops.generation.stages import write as write_stage
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.records import ImageId, Match, Pair
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import connect, keys, layout_of, s3_options_from_environment
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace


def upgrade(settings: Settings, progress: Progress | None = None) -> tuple[int, int]:
    """Convert the settings' store to today's layout; returns the layouts before and after. Raises StoreError."""
    options = s3_options_from_environment(settings.s3.endpoint_url, settings.s3.region)
    workspace = Workspace(settings, connect(settings.store, **options))
    before = layout = layout_of(workspace.store)
    while layout in _STEPS:
        _STEPS[layout](workspace, progress or Silent())
        layout += 1
        workspace.store.replace(keys.LAYOUT, json.dumps({"layout": layout}).encode())
    return before, layout


def _from_1(workspace: Workspace, progress: Progress) -> None:
    """From layout 1: group claims by image shard, and add to each reply the image that it is about."""
    workspace.registry.upgrade()
    known = list(_settings(workspace))
    shards = workspace.registry.shards()
    progress.stage("upgrade", len(shards), "journals")
    for shard in shards:
        Journal(workspace.store, shard.id).attribute(dict(_units(workspace, shard.id, known)))
        progress.advance("upgrade")


def _settings(workspace: Workspace) -> Iterator[Settings]:
    """The current settings, and every earlier version in the store that can still be read."""
    yield workspace.settings
    for entry in Log(workspace.store, keys.SETTINGS_LOG).read():
        try:
            yield workspace.settings_version(entry.number)
        except SettingsError:
            continue


def _units(workspace: Workspace, shard: str, known: list[Settings]) -> Iterator[tuple[str, ImageId]]:
    """The keys of the units that these settings ask, with their images, from the committed stage outputs.

    Only today's prompts are known: the image of a unit that was asked with another prompt stays unknown, and a
    take-down of any image in its image shard erases it.
    """
    shards = workspace.stage_outputs.all(shard)
    matches = [row for s in shards if s.stage == "match" for row in workspace.stage_outputs.load(s, "matches", Match)]
    pairs = [row for s in shards if s.stage == "write" for row in workspace.stage_outputs.load(s, "pairs", Pair)]
    for settings in known:
        prompts = load_prompts(settings.prompts, settings.write.variants)
        asked = [filter_stage.filter_template(prompts["filter"], settings.teacher)]
        asked += [
            write_stage.write_template(prompts[f"write_{v}"], settings.teacher, v) for v in settings.write.variants
        ]
        for question in asked:
            for row in matches:
                yield question.unit(row.image, {"task_type": row.task_type}).key, row.image
        for judge in settings.judges:
            question = vote_stage.vote_template(prompts["vote"], judge, settings.vote.show_answer)
            for pair in pairs:
                yield vote_stage.vote_unit(question, pair).key, pair.image


_STEPS: Mapping[int, Callable[[Workspace, Progress], None]] = {1: _from_1}
