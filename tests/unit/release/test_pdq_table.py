"""The side table of images' PDQ: made once, whole or not at all, and erased with its images."""

from __future__ import annotations

import io
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image as Pillow
from tiny import tiny_images, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.operations.gc import collect
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.operations.verify import glance, verify
from taskgalaxy_ops.records import ImageHash
from taskgalaxy_ops.release import pdq_table, side_tables
from taskgalaxy_ops.sources.pdq import pdq
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = tiny_workspace(tiny_settings(tiny_images(tmp_path / "images", 6)))
    pipeline.ingest(found, "mine")
    return found


def hashes(workspace: Workspace) -> dict[str, ImageHash]:
    found = pdq_table.image_hashes(workspace, workspace.registry.shards())
    return {image: each for _, of_shard in found for image, each in of_shard.items()}


def tables(workspace: Workspace) -> int:
    shards = workspace.registry.shards()
    return sum(each.stage == "pdq" for shard in shards for each in workspace.stage_outputs.all(shard.id))


def test_hashes_are_made_once_of_the_pictures_and_then_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hashes(workspace)
    for image in found:
        made = pdq(Pillow.open(io.BytesIO(workspace.store.get(keys.blob(image)))).convert("RGB"))
        assert (found[image].pdq, found[image].quality) == made
        assert len(b64decode(found[image].thumbnail)) == 16 * 16 * 3
    assert len(found) == 6
    monkeypatch.setattr(side_tables, "read_image", None)
    assert hashes(workspace) == found
    assert tables(workspace) == 3


def test_verify_and_gc_know_the_tables(workspace: Workspace) -> None:
    hashes(workspace)
    assert collect(workspace, grace_seconds=-1).objects == 0
    assert verify(workspace).damage == glance(workspace).damage == []
    shard = workspace.registry.shards()[0]
    [output] = [each for each in workspace.stage_outputs.all(shard.id) if each.stage == "pdq"]
    workspace.store.delete(workspace.stage_outputs.refs(output)["hashes"].key)
    assert len(verify(workspace).damage) == len(glance(workspace).damage) == 1


def test_a_take_down_erases_the_hash(workspace: Workspace) -> None:
    found = hashes(workspace)
    gone = min(found)
    take_down(workspace, [gone])
    assert tables(workspace) == 2
    assert list(left(workspace)) == []
    again = hashes(workspace)
    assert again == {image: each for image, each in found.items() if image != gone}
    assert list(left(workspace)) == []
    assert tables(workspace) == 3


def test_an_image_taken_down_while_its_shard_is_hashed_is_erased(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = min(workspace.registry.image_ids(workspace.registry.shards()[0]))
    read = side_tables.read_image

    def taken(here: Workspace, image: str, shard: str | None = None) -> bytes:
        raw = read(here, image, shard)
        if image == gone:
            take_down(tiny_workspace(here.settings, here.store), [gone])  # type: ignore[arg-type]
        return raw

    monkeypatch.setattr(side_tables, "read_image", taken)
    assert gone not in hashes(workspace)
    assert list(left(workspace)) == []


def test_what_cannot_be_read_has_no_hash_and_its_shard_is_tried_again(workspace: Workspace) -> None:
    shard = workspace.registry.shards()[0]
    image = workspace.registry.image_ids(shard)[0]
    raw = workspace.store.get(keys.blob(image))
    workspace.store.delete(keys.blob(image))
    assert len(hashes(workspace)) == 5
    assert tables(workspace) == 2
    workspace.store.put_if_absent(keys.blob(image), raw)
    assert len(hashes(workspace)) == 6
    assert tables(workspace) == 3


def test_who_only_looks_keeps_nothing(workspace: Workspace) -> None:
    look = workspace.snapshot()
    assert len(hashes(look)) == 6
    assert tables(workspace) == 0
