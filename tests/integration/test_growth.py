"""A taxonomy grown to a thousand task types by the command line, killed on the way, against simulated models."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.galaxies import Commands, Models
from encoded_once import encoded_once

from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

LEAVES = 1000
GROW = ("taxonomy", "expand", "--up-to", str(LEAVES))


@pytest.fixture(scope="module", autouse=True)
def _encoded_once() -> Iterator[None]:
    with encoded_once():
        yield


@pytest.fixture
def settings(models: Models, tmp_path: Path) -> Callable[..., Settings]:
    def make(store: str, **taxonomy: Any) -> Settings:
        model = {"base_url": models.base_url, "simulated": True}
        judges = [{**model, "name": f"sim-judge-{letter}", "model": f"sim-judge-{letter}"} for letter in "abc"]
        teacher = {**model, "name": "sim-teacher", "model": "sim-teacher"}
        raw = {"store": (tmp_path / store).as_uri(), "teacher": teacher, "judges": judges, "taxonomy": taxonomy}
        return parse_settings({**raw, "run": {"lease_seconds": 3}})

    return make


def test_growth_goes_on_where_it_was_killed(settings: Callable[..., Settings], models: Models, tmp_path: Path) -> None:
    commands, chosen = Commands(tmp_path), settings("killed")
    models.control(latency=0.1)
    process = commands.start(chosen, *GROW)
    try:
        while len(_answered(chosen)) < 30:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.communicate()
    models.control(latency=0)
    kept = _answered(chosen)
    commands.here(chosen, *GROW)
    answered = _answered(chosen)
    assert set(kept) <= set(answered)
    assert max(Counter(answered).values()) == 1
    stats = models.stats()
    assert stats["units"]["distinct"] == len(answered), "what was in the journal is not asked again"

    grown = TaxonomyStore(Workspace.open(chosen)).version()
    commands.here(other := settings("undisturbed"), *GROW)
    undisturbed = TaxonomyStore(Workspace.open(other)).version()
    assert grown.nodes == undisturbed.nodes
    assert len(grown.leaves()) >= LEAVES
    before = models.stats()["requests"]
    again = commands.here(chosen, *GROW)
    assert (again["added"], models.stats()["requests"]) == ([], before), "wide enough: nothing is asked"


def test_a_plan_bounds_how_wide_each_level_grows(settings: Callable[..., Settings], tmp_path: Path) -> None:
    chosen = settings("wide", widths=[24, 8, 12], cousins=3)
    Commands(tmp_path).here(chosen, "taxonomy", "expand", "--rounds", "3")
    workspace = Workspace.open(chosen)
    nodes = TaxonomyStore(workspace).version().nodes
    children = Counter(node.path.rpartition("~")[0] for node in nodes)
    seeds = Counter(node.path.rpartition("~")[0] for node in TaxonomyStore(workspace).version(0).nodes)
    for path, most in {"": 24, **{node.path: (8, 12)[node.level - 1] for node in nodes if node.level < 3}}.items():
        assert children[path] <= max(most, seeds[path]), path
    assert len(nodes) > sum(seeds.values())


def _answered(settings: Settings) -> list[str]:
    """The units of every reply in the taxonomy's journal."""
    workspace = Workspace.open(settings)
    replies = Journal(workspace.store, keys.TAXONOMY_SHARD).replies()
    return [unit for reply in replies for unit in reply["units"]]
