"""Watch: what is new is found by listing alone; what did not change is not read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from PIL import Image as Pillow

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.settings import Settings, SourceSettings, parse_settings
from taskgalaxy_ops.sources import ingest
from taskgalaxy_ops.sources.watch import watch
from taskgalaxy_ops.storage import connect
from taskgalaxy_ops.storage.folder import FolderStore
from taskgalaxy_ops.workspace import Workspace


def model(name: str) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "simulated": True}


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", (40, 40), (shade, 3, 5)).save(path)


@pytest.fixture
def workspace_of(tmp_path: Path) -> Callable[..., Workspace]:
    def make(**changes: Any) -> Workspace:
        raw = {"store": (tmp_path / "store").as_uri(), "teacher": model("t"), "judges": [model("a"), model("b")]}
        settings: Settings = parse_settings({**raw, **changes})
        return Workspace.open(settings)

    return make


def test_new_changed_and_removed_files_are_found(workspace_of: Callable[..., Workspace], tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "mine" / f"{number}.png", 10 * number)
    workspace = workspace_of(sources={"mine": {"location": str(tmp_path / "mine")}})
    assert list(watch(workspace).changed) == ["mine"]
    pipeline.ingest(workspace, "mine")
    assert (watch(workspace).changed, watch(workspace).same) == ({}, ["mine"])
    picture(tmp_path / "mine" / "new.png", 200)
    assert list(watch(workspace).changed) == ["mine"]
    pipeline.ingest(workspace, "mine")
    (tmp_path / "mine" / "0.png").unlink()
    assert list(watch(workspace).changed) == ["mine"]
    pipeline.ingest(workspace, "mine")
    picture(tmp_path / "mine" / "1.png", 77)  # other bytes under a known name
    assert list(watch(workspace).changed) == ["mine"]


def test_files_that_did_not_change_are_not_read_again(
    workspace_of: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        picture(tmp_path / "mine" / f"{number}.png", 10 * number)
    (tmp_path / "mine" / "twin.png").write_bytes((tmp_path / "mine" / "2.png").read_bytes())
    workspace = workspace_of(sources={"mine": {"location": str(tmp_path / "mine")}})
    first = pipeline.ingest(workspace, "mine")
    picture(tmp_path / "mine" / "9.png", 90)
    read: list[str] = []
    whole = Path.read_bytes

    def reading(path: Path) -> bytes:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    second = pipeline.ingest(workspace, "mine")
    assert sorted(name for name in read if name.endswith(".png")) == [
        "9.png",
        "twin.png",
    ]  # rejects are looked at again
    assert (second.images, second.new_images) == (first.images + 1, 1)
    assert [reject.file for reject in second.rejects] == [reject.file for reject in first.rejects] == ["twin.png"]
    before = workspace.registry.last()
    pipeline.ingest(workspace, "mine")
    assert workspace.registry.last() == before


def test_touched_files_change_no_data(workspace_of: Callable[..., Workspace], tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "0.png", 1)
    workspace = workspace_of(sources={"mine": {"location": str(tmp_path / "mine")}})
    pipeline.ingest(workspace, "mine")
    claims = list(workspace.registry.claims())
    os.utime(tmp_path / "mine" / "0.png", (1, 1))
    assert list(watch(workspace).changed) == ["mine"]
    assert pipeline.ingest(workspace, "mine").new_images == 0
    assert list(workspace.registry.claims()) == claims
    assert watch(workspace).same == ["mine"]


def test_subfolders_of_a_parent_are_sources(workspace_of: Callable[..., Workspace], tmp_path: Path) -> None:
    parent = tmp_path / "incoming"
    for name in ("first", "second"):
        picture(parent / name / "0.png", 5)
    (parent / "empty").mkdir()
    (parent / "not\na name").mkdir()
    workspace = workspace_of(airflow={"watch_parents": [str(parent), str(tmp_path / "nowhere")]})
    found = watch(workspace)
    assert found.changed == {name: SourceSettings(location=str(parent / name)) for name in ("first", "second")}
    assert "lists no image" in found.failed["empty"]
    assert "rename it" in found.failed[str(parent / "not\na name")]
    assert "is no folder" in found.failed[str(tmp_path / "nowhere")]
    taken = workspace_of(
        sources={"first": {"location": str(parent / "second")}}, airflow={"watch_parents": [str(parent)]}
    )
    assert "lies at" in watch(taken).failed[str(parent / "first")]


def test_a_registered_source_is_watched_where_it_was(workspace_of: Callable[..., Workspace], tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "0.png", 5)
    picture(tmp_path / "mine" / "1.bmp", 6)
    workspace = workspace_of()
    chosen = SourceSettings(location=str(tmp_path / "mine"), suffixes=(".png",), licence="CC0-1.0")
    pipeline.ingest(workspace, "mine", chosen=chosen)
    assert ingest.source_settings(workspace, "mine") == chosen
    assert watch(workspace).same == ["mine"]


def test_a_listing_tells_another_version_of_an_object(place: Place) -> None:
    store = connect(place.url, **place.options)
    store.replace("a", b"one")
    (first,) = store.list("a")
    assert first.version
    if isinstance(store, FolderStore):  # its clock may be coarse
        import time

        time.sleep(0.02)
    store.replace("a", b"two")
    (second,) = store.list("a")
    assert second.version != first.version
