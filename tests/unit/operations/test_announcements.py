"""Announcements: who is waited for, and when a run ends what it had seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.settings import SourceSettings, parse_settings
from taskgalaxy_ops.workspace import Workspace


def model(name: str) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "simulated": True}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three registered sources of two images each."""
    sources = {}
    for number, name in enumerate("abc"):
        folder = tmp_path / name
        folder.mkdir()
        for shade in (0, 1):
            Pillow.new("RGB", (40, 40), (90 * number, 120 * shade, 7)).save(folder / f"{shade}.png")
        sources[name] = {"location": str(folder)}
    raw = {"store": (tmp_path / "store").as_uri(), "sources": sources, "ingest": {"shard_images": 1}}
    found = Workspace.open(parse_settings({**raw, "teacher": model("t"), "judges": [model("a"), model("b")]}))
    for name in sources:
        pipeline.ingest(found, name)
    return found


def test_a_run_ends_what_it_had_seen_and_no_more(workspace: Workspace) -> None:
    announcements.announce(workspace, ["a", "b"], "watch")
    began = announcements.seen(workspace)
    announcements.announce(workspace, ["a"], "ingest")  # while the run is at work
    announcements.ended(workspace, "a", began, 0)
    assert announcements.awaited(workspace) == ["a", "b"]
    announcements.ended(workspace, "b", began, 3)  # with something pending: ended all the same
    assert announcements.awaited(workspace) == ["a"]
    announcements.ended(workspace, "a", announcements.seen(workspace), 0)
    assert announcements.awaited(workspace) == []
    assert [list(each.open) for each in announcements.announced(workspace)] == [[], []]


def test_nothing_is_announced_without_a_source(workspace: Workspace) -> None:
    assert announcements.announce(workspace, [], "watch") is None
    assert announcements.announced(workspace) == []


def test_a_removed_source_and_an_old_announcement_are_not_waited_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcements.announce(workspace, ["a", "b"], "watch")
    workspace.registry.remove("b")
    assert announcements.awaited(workspace) == ["a"]
    later = announcements.time.time() + 73 * 3600
    monkeypatch.setattr(announcements.time, "time", lambda: later)
    assert announcements.awaited(workspace) == []


def test_orders_are_those_of_the_newest_that_waits(workspace: Workspace) -> None:
    announcements.announce(workspace, ["a"], "ingest")
    announcements.announce(workspace, ["a", "b"], "backfill", max_cost=1.5, settings_version=2)
    assert announcements.orders(workspace, "a") == {"max_cost": 1.5, "settings_version": 2}
    announcements.ended(workspace, "a", announcements.seen(workspace), 0)
    assert announcements.orders(workspace, "a") == {}
    assert announcements.orders(workspace, "b") == {"max_cost": 1.5, "settings_version": 2}


def test_compaction_keeps_who_is_waited_for(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "_FORGET_ABOVE", 6)
    announcements.announce(workspace, ["a"], "ingest")
    announcements.ended(workspace, "a", announcements.seen(workspace), 0)
    announcements.announce(workspace, ["b", "c"], "watch")
    for _ in range(6):
        announcements.ended(workspace, "c", announcements.seen(workspace), 0)
    assert announcements.awaited(workspace) == ["b"]
    assert len(announcements.announced(workspace)) == 1  # the finished one is forgotten
    announcements.ended(workspace, "b", announcements.seen(workspace), 0)
    assert announcements.awaited(workspace) == []


@given(count=st.integers(1, 20))
def test_lanes_hold_every_shard_once_whatever_comes_meanwhile(workspace: Workspace, tmp_path: Path, count: int) -> None:
    dealt = pipeline.lanes(workspace, ["a", "b"], count)
    assert len(dealt) == min(count, 4)
    late = tmp_path / "late"
    late.mkdir(exist_ok=True)
    Pillow.new("RGB", (40, 40), (1, 2, count)).save(late / f"{count}.png")
    pipeline.ingest(workspace, "b", chosen=SourceSettings(location=str(late)))  # its claims change under the run
    shards = [shard.id for lane in dealt for shard in lanes.shards_of_lane(workspace, lane)]
    wanted = lanes.shards_of(workspace, ["a", "b"], dealt[0].registry)
    assert sorted(shards) == sorted(shard.id for shard in wanted)
    again = pipeline.Lane(**{**dealt[0].to_json()})
    assert lanes.shards_of_lane(workspace, again) == lanes.shards_of_lane(workspace, dealt[0])
    pipeline.ingest(workspace, "b", chosen=workspace.settings.sources["b"])
