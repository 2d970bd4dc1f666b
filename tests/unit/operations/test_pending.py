"""What has no answer, by stage and by why: as many units as a run asks for next, read from little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.generation.stages import ASKING
from taskgalaxy_ops.generation.stages.filter import filter_units
from taskgalaxy_ops.inference.model_health import Outage
from taskgalaxy_ops.inference.request_forms import group, identity
from taskgalaxy_ops.operations import pending as pending_module
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.operations.pending import Pending, PendingUnits, Why
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.records import Match
from taskgalaxy_ops.reports.pages.status import status_page
from taskgalaxy_ops.reports.text import status as status_text
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

IMAGES = 8


def settings_of(folder: Path, **changes: Any) -> Settings:
    return tiny_settings(folder / "images", taxonomy={"seeds": str(folder / "seeds.yaml")}, **changes)


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Eight images in four shards, ingested."""
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", IMAGES)
    workspace = tiny_workspace(settings_of(tmp_path))
    pipeline.ingest(workspace, "mine")
    return workspace


def again(workspace: Workspace, settings: Settings | None = None) -> Workspace:
    return tiny_workspace(settings or workspace.settings, workspace.store)  # type: ignore[arg-type]


def waiting(workspace: Workspace, settings: Settings | None = None) -> Pending:
    return status(again(workspace, settings)).waiting


def text(workspace: Workspace, settings: Settings | None = None) -> str:
    return "\n".join(status_text.status(status(again(workspace, settings))))


def write_outage(workspace: Workspace, number: int) -> str:
    """Write down that a judge serves nothing; returns its name."""
    judge = workspace.settings.judges[number]
    outage = Outage(model=judge.name, base_url=judge.base_url, since=1.0, seen=2.0, why="503")
    workspace.store.replace(keys.health(group(identity(judge))), json.dumps(asdict(outage)).encode())
    return judge.name


def test_what_was_never_asked_is_counted_without_reading(workspace: Workspace) -> None:
    store, read = workspace.store, []
    assert isinstance(store, MemoryStore)
    store.before = lambda operation, key: read.append(key) if operation == "get" else None
    found = waiting(workspace)
    store.before = lambda operation, key: None
    assert found == Pending((PendingUnits(stage="filter", units=IMAGES * 3, why=Why.NOT_ASKED),))
    assert not [key for key in read if "/journal/" in key]
    assert "pending   filter: 24 matches, not asked yet" in text(workspace)


@pytest.mark.parametrize("replies", [1, 5, 12, 30])
def test_it_is_what_a_run_asks_next(workspace: Workspace, tiny_models: TinyModels, replies: int) -> None:
    tiny_models.start(replies)
    assert pipeline.generate(again(workspace)).pending
    found = waiting(workspace)
    planned = {each.stage: each.units.low for each in plan(again(workspace)).stages}
    for stage in ASKING:
        assert sum(each.units for each in found.units if each.stage == stage) == planned[stage], stage
    assert found.uncounted == 0
    tiny_models.start(None)
    assert pipeline.generate(again(workspace)).pending == 0
    assert waiting(workspace) == Pending()
    assert "pending" not in text(workspace)


def test_a_model_that_serves_nothing_is_named(workspace: Workspace) -> None:
    pipeline.generate(again(workspace), pipeline.RunOptions(last_stage="write"))
    name = write_outage(workspace, 0)
    found = {(each.stage, each.why, each.detail): each.units for each in waiting(workspace).units}
    assert set(found) == {("vote", Why.MODEL_AWAY, name), ("vote", Why.NOT_ASKED, "")}
    assert f"votes, the model serves nothing ({name})" in text(workspace)


def test_a_budget_that_is_spent_is_named_with_its_setting(workspace: Workspace, tmp_path: Path) -> None:
    capped = settings_of(tmp_path, budget={"max_calls": 5, "max_cost": None})
    assert pipeline.generate(again(workspace, capped)).unaffordable
    assert {(each.why, each.detail) for each in waiting(workspace, capped).units} == {(Why.BUDGET, "budget")}
    assert "the budget is spent (budget)" in text(workspace, capped)
    caps = {"max_calls": None, "max_cost": None, "sources": {"mine": {"max_calls": 5}}}
    of_source = settings_of(tmp_path, budget=caps)
    assert {(each.why, each.detail) for each in waiting(workspace, of_source).units} == {
        (Why.BUDGET, "budget.sources.mine")
    }
    raised = settings_of(tmp_path, budget={"max_calls": 500, "max_cost": None})
    assert {each.why for each in waiting(workspace, raised).units} == {Why.NOT_ASKED}


def test_what_is_in_a_batch_is_told_apart(workspace: Workspace) -> None:
    matches = pipeline.generate(again(workspace), pipeline.RunOptions(last_stage="match")).matches
    shard, output = next(iter(matches.items()))
    rows = workspace.stage_outputs.load(output, "matches", Match)
    units = [unit.key for unit in filter_units(StageKeys(workspace).templates_for(shard)["filter"]["filter"], rows)]
    requests = {"r": {"units": units[:2], "types": [], "image": rows[0].image}}
    Log(workspace.store, keys.journal(shard)).append(
        {"kind": "batch", "batch": "n", "stage": "filter", "model": {}, "requests": requests, "blocks": {}}
    )
    assert Journal(workspace.store, shard).batches.under_way == set(units[:2])
    assert list(waiting(workspace).units) == [
        PendingUnits(stage="filter", units=2, why=Why.IN_BATCH, detail="teacher"),
        PendingUnits(stage="filter", units=IMAGES * 3 - 2, why=Why.NOT_ASKED),
    ]


def test_few_journals_are_read_however_many_there_are(
    workspace: Workspace, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert pipeline.generate(again(workspace)).pending == 0
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Which of these fit?")
    other = settings_of(tmp_path, prompts={"filter": str(prompt)})
    assert sum(each.units for each in waiting(workspace, other).units) == IMAGES * 3
    monkeypatch.setattr(pending_module, "_READ", 1)
    found = waiting(workspace, other)
    assert (sum(each.units for each in found.units), found.uncounted) == (2 * 3, 3)
    assert "3 more image shards were not looked at" in text(workspace, other)
    assert len(lanes.shards_of(workspace, None)) == 4


def test_what_is_answered_and_not_put_together_has_to_be_asked_of_nobody(workspace: Workspace) -> None:
    assert pipeline.generate(again(workspace)).pending == 0
    for key in [key for key in workspace.store.objects if "/markers/vote." in key]:  # type: ignore[attr-defined]
        workspace.store.delete(key)
    assert waiting(workspace) == Pending()
    assert "nothing has to be asked: `taskgalaxy generate` puts together what is answered" in text(workspace)


@pytest.fixture
def told(workspace: Workspace) -> Iterator[Workspace]:
    """A store whose latest run of its source left seven units."""
    announcements.announce(workspace, ["mine"], "backfill")
    announcements.ended(workspace, "mine", announcements.seen(workspace), 9)
    announcements.ended(workspace, "mine", announcements.seen(workspace), 7)
    announcements.ended(workspace, "gone", announcements.seen(workspace), 7)
    yield again(workspace)


def test_the_page_says_what_the_latest_run_left_and_why(told: Workspace, tmp_path: Path) -> None:
    assert announcements.left(told) == {"mine": 7}
    page = status_page(told)
    assert "Without an answer (1)" in page and "not asked since" in page
    name = write_outage(told, 1)
    assert f"{name} serves nothing" in status_page(told)
    capped = settings_of(tmp_path, budget={"max_calls": 5, "max_cost": None})
    assert "the budget is spent (budget)" not in status_page(again(told, capped))
    assert pipeline.generate(again(told, capped)).unaffordable
    assert "the budget is spent (budget)" in status_page(again(told, capped))
    ledger = told.ledger()
    assert ledger.batches("mine") == 0
    ledger.take("a" * 32, calls=1, ceiling=1, source="mine", batch="n")
    assert told.ledger().batches("mine") == 1
    assert "batches under way: 1" in status_page(again(told))
    announcements.ended(told, "mine", announcements.seen(told), 0)
    assert "Without an answer (0)" in status_page(again(told))
