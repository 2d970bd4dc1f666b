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
from taskgalaxy_ops.workspace import Galaxy


def model(name: str) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "simulated": True}


@pytest.fixture
def galaxy(tmp_path: Path) -> Galaxy:
    """Three registered sources of two images each."""
    sources = {}
    for number, name in enumerate("abc"):
        folder = tmp_path / name
        folder.mkdir()
        for shade in (0, 1):
            Pillow.new("RGB", (40, 40), (90 * number, 120 * shade, 7)).save(folder / f"{shade}.png")
        sources[name] = {"location": str(folder)}
    raw = {"store": (tmp_path / "store").as_uri(), "sources": sources, "ingest": {"shard_images": 1}}
    found = Galaxy.open(parse_settings({**raw, "teacher": model("t"), "judges": [model("a"), model("b")]}))
    for name in sources:
        pipeline.ingest(found, name)
    return found


def test_a_run_ends_what_it_had_seen_and_no_more(galaxy: Galaxy) -> None:
    announcements.announce(galaxy, ["a", "b"], "watch")
    began = announcements.seen(galaxy)
    announcements.announce(galaxy, ["a"], "ingest")  # while the run is at work
    announcements.ended(galaxy, "a", began, 0)
    assert announcements.awaited(galaxy) == ["a", "b"]
    announcements.ended(galaxy, "b", began, 3)  # with something pending: ended all the same
    assert announcements.awaited(galaxy) == ["a"]
    announcements.ended(galaxy, "a", announcements.seen(galaxy), 0)
    assert announcements.awaited(galaxy) == []
    assert [list(each.open) for each in announcements.announced(galaxy)] == [[], []]


def test_nothing_is_announced_without_a_source(galaxy: Galaxy) -> None:
    assert announcements.announce(galaxy, [], "watch") is None
    assert announcements.announced(galaxy) == []


def test_a_removed_source_and_an_old_announcement_are_not_waited_for(
    galaxy: Galaxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcements.announce(galaxy, ["a", "b"], "watch")
    galaxy.registry.remove("b")
    assert announcements.awaited(galaxy) == ["a"]
    later = announcements.time.time() + 73 * 3600
    monkeypatch.setattr(announcements.time, "time", lambda: later)
    assert announcements.awaited(galaxy) == []


def test_orders_are_those_of_the_newest_that_waits(galaxy: Galaxy) -> None:
    announcements.announce(galaxy, ["a"], "ingest")
    announcements.announce(galaxy, ["a", "b"], "backfill", max_cost=1.5, settings_version=2)
    assert announcements.orders(galaxy, "a") == {"max_cost": 1.5, "settings_version": 2}
    announcements.ended(galaxy, "a", announcements.seen(galaxy), 0)
    assert announcements.orders(galaxy, "a") == {}
    assert announcements.orders(galaxy, "b") == {"max_cost": 1.5, "settings_version": 2}


def test_compaction_keeps_who_is_waited_for(galaxy: Galaxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "_FORGET_ABOVE", 6)
    announcements.announce(galaxy, ["a"], "ingest")
    announcements.ended(galaxy, "a", announcements.seen(galaxy), 0)
    announcements.announce(galaxy, ["b", "c"], "watch")
    for _ in range(6):
        announcements.ended(galaxy, "c", announcements.seen(galaxy), 0)
    assert announcements.awaited(galaxy) == ["b"]
    assert len(announcements.announced(galaxy)) == 1  # the finished one is forgotten
    announcements.ended(galaxy, "b", announcements.seen(galaxy), 0)
    assert announcements.awaited(galaxy) == []


@given(count=st.integers(1, 20))
def test_lanes_hold_every_shard_once_whatever_comes_meanwhile(galaxy: Galaxy, tmp_path: Path, count: int) -> None:
    dealt = pipeline.lanes(galaxy, ["a", "b"], count)
    assert len(dealt) == min(count, 4)
    late = tmp_path / "late"
    late.mkdir(exist_ok=True)
    Pillow.new("RGB", (40, 40), (1, 2, count)).save(late / f"{count}.png")
    pipeline.ingest(galaxy, "b", chosen=SourceSettings(location=str(late)))  # its claims change under the run
    homes = [home.home for lane in dealt for home in lanes.homes_of_lane(galaxy, lane)]
    wanted = lanes.homes_of(galaxy, ["a", "b"], dealt[0].registry)
    assert sorted(homes) == sorted(home.home for home in wanted)
    again = pipeline.Lane(**{**dealt[0].plain()})
    assert lanes.homes_of_lane(galaxy, again) == lanes.homes_of_lane(galaxy, dealt[0])
    pipeline.ingest(galaxy, "b", chosen=galaxy.settings.sources["b"])
