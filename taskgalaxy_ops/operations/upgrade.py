"""Upgrade: a store of an earlier layout becomes one of today's. Nothing is asked, encoded or computed again after it.

Each step may be killed and run again; the layout's number is raised last. No run may be at work meanwhile.
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
from taskgalaxy_ops.workspace import Galaxy


def upgrade(settings: Settings, progress: Progress | None = None) -> tuple[int, int]:
    """Bring the settings' store to today's layout; the layout before and after. Raises StoreError."""
    options = s3_options_from_environment(settings.s3.endpoint_url, settings.s3.region)
    galaxy = Galaxy(settings, connect(settings.store, **options))
    before = layout = layout_of(galaxy.store)
    while layout in _STEPS:
        _STEPS[layout](galaxy, progress or Silent())
        layout += 1
        galaxy.store.replace(keys.LAYOUT, json.dumps({"layout": layout}).encode())
    return before, layout


def _from_1(galaxy: Galaxy, progress: Progress) -> None:
    """Claims lie by home, and a reply tells which image it is about."""
    galaxy.registry.upgrade()
    known = list(_settings(galaxy))
    homes = galaxy.registry.homes()
    progress.stage("upgrade", len(homes), "journals")
    for home in homes:
        Journal(galaxy.store, home.home).attribute(dict(_units(galaxy, home.home, known)))
        progress.advance("upgrade")


def _settings(galaxy: Galaxy) -> Iterator[Settings]:
    """The settings at hand, and every earlier version that can still be read."""
    yield galaxy.settings
    for entry in Log(galaxy.store, keys.SETTINGS_LOG).read():
        try:
            yield galaxy.settings_version(entry.number)
        except SettingsError:
            continue


def _units(galaxy: Galaxy, home: str, known: list[Settings]) -> Iterator[tuple[str, ImageId]]:
    """The units that these settings led to, and their images, from the shards that are there.

    Prompts are those at hand: what was asked with others stays unknown, and a take-down in its home erases it.
    """
    shards = galaxy.shards.all(home)
    matches = [row for s in shards if s.stage == "match" for row in galaxy.shards.load(s, "matches", Match)]
    pairs = [row for s in shards if s.stage == "write" for row in galaxy.shards.load(s, "pairs", Pair)]
    for settings in known:
        prompts = load_prompts({str(name): path for name, path in settings.prompts.items()})
        asked = [filter_stage.filter_question(prompts["filter"], settings.teacher)]
        asked += [
            write_stage.write_question(prompts[f"write_{v}"], settings.teacher, v) for v in settings.write.variants
        ]
        for question in asked:
            for row in matches:
                yield question.unit(row.image, {"task_type": row.task_type}).key, row.image
        for judge in settings.judges:
            question = vote_stage.vote_question(prompts["vote"], judge, settings.vote.show_answer)
            for pair in pairs:
                yield vote_stage.vote_unit(question, pair).key, pair.image


_STEPS: Mapping[int, Callable[[Galaxy, Progress], None]] = {1: _from_1}
