"""`ingest --again` restores what the store has lost of its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from papers import pdf, striped
from sourcing import files_of, picture, workspace_at
from tiny import tiny_images

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.storage import keys


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKGALAXY_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_lost_and_damaged_copies_are_written_anew_and_no_others(tmp_path: Path) -> None:
    workspace = workspace_at(str(tiny_images(tmp_path / "images", 4)))
    pipeline.ingest(workspace, "mine")
    registered = workspace.registry.last()
    ids = files_of(workspace)
    store = workspace.store
    store.delete(keys.blob(ids["001.png"]))
    store.replace(keys.blob(ids["002.png"]), b"damaged")
    damage = verify(workspace).damage
    assert len(damage) == 2
    assert all("`taskgalaxy ingest --again` restores it" in line for line in damage)
    assert pipeline.ingest(workspace, "mine").images == 4
    assert verify(workspace).damage == damage, "an unchanged file is not read"
    written: list[str] = []
    store.before = lambda operation, key: written.append(key) if operation in {"put", "replace"} else None
    receipt = pipeline.ingest(workspace, "mine", again=True)
    assert (receipt.images, receipt.new_images, receipt.rejects) == (4, 0, [])
    assert {key for key in written if key.startswith(keys.BLOBS)} == {
        keys.blob(ids["001.png"]),
        keys.blob(ids["002.png"]),
    }
    assert verify(workspace).damage == []
    assert workspace.registry.last() == registered, "nothing that the registry says is another"


def test_what_has_changed_at_the_source_restores_nothing(tmp_path: Path) -> None:
    workspace = workspace_at(str(tiny_images(tmp_path / "images", 2)))
    pipeline.ingest(workspace, "mine")
    image = files_of(workspace)["001.png"]
    workspace.store.delete(keys.blob(image))
    (tmp_path / "images" / "001.png").write_bytes(picture(9))
    assert pipeline.ingest(workspace, "mine", again=True).new_images == 1
    assert not list(workspace.store.list(keys.blob(image)))


def test_pages_are_drawn_again(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.pdf").write_bytes(pdf([striped(9), striped(40)]))
    workspace = workspace_at(f"documents:{tmp_path}/papers")
    pipeline.ingest(workspace, "mine")
    first, second = files_of(workspace).values()
    workspace.store.delete(keys.blob(first))
    workspace.store.replace(keys.blob(second), b"damaged")
    pipeline.ingest(workspace, "mine", again=True)
    assert verify(workspace).damage == []


def test_nothing_is_copied_of_a_source_that_is_not(tmp_path: Path) -> None:
    workspace = workspace_at(str(tiny_images(tmp_path / "images", 2)), copy=False)
    pipeline.ingest(workspace, "mine")
    assert pipeline.ingest(workspace, "mine", again=True).images == 2
    assert not list(workspace.store.list(keys.BLOBS))
