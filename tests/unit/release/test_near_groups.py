"""``release.near_duplicates``, from the images' files to the release: what is kept, marked, dropped; on which side."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageEnhance
from pyarrow import parquet
from tiny import TinyModels, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.near_groups import part_near_duplicates
from taskgalaxy_ops.release.near_pictures import Looks
from taskgalaxy_ops.release.published_rows import ReleaseRows, left_out
from taskgalaxy_ops.release.sqlite_staging import database
from taskgalaxy_ops.reports.text.release import released
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

FAMILIES = 12
HALVES = {"validation": 0.3, "test": 0.3, "near_duplicate_bits": -1}


def picture(seed: int) -> Pillow.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (18, 24, 3), np.uint8)
    return Pillow.fromarray(coarse).resize((96, 64), Pillow.Resampling.BICUBIC)


def family(folder: Path, seed: int) -> None:
    """A picture, and two that look the same."""
    folder.mkdir(exist_ok=True)
    picture(seed).save(folder / f"{seed:02d}.png")
    picture(seed).resize((60, 40)).save(folder / f"{seed:02d} small.jpg", quality=80)
    ImageEnhance.Brightness(picture(seed)).enhance(1.1).save(folder / f"{seed:02d} bright.png")


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    tiny_seeds(tmp_path / "seeds.yaml")
    for seed in range(FAMILIES):
        family(tmp_path / "images", seed)
    workspace = under(tmp_path)
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    return workspace


def under(folder: Path, workspace: Workspace | None = None, **release: Any) -> Workspace:
    ingest = {"shard_images": 12, "min_side": 8}
    rules = {"ingest": ingest, "taxonomy": {"seeds": str(folder / "seeds.yaml")}, "release": {**HALVES, **release}}
    settings = tiny_settings(folder / "images", **rules)
    return tiny_workspace(settings, None if workspace is None else workspace.store)  # type: ignore[arg-type]


def released_images(workspace: Workspace) -> dict[str, dict[str, str]]:
    """By family, the images of the latest release with their splits."""
    files = {claim.image: claim.file for claim in workspace.registry.claims()}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    rows = ReleaseRows(workspace.store, publish.published(workspace)[-1].version)
    for _, image, _, _, split in rows.samples_in_splits():
        found[files[image][:2]][image] = split
    return found


def sides(workspace: Workspace) -> list[set[str]]:
    """The splits of each family of which the release has several images."""
    return [set(images.values()) for images in released_images(workspace).values() if len(images) > 1]


def test_what_looks_the_same_lies_on_one_side(workspace: Workspace, tmp_path: Path) -> None:
    publish.publish(workspace)
    assert any(len(found) > 1 for found in sides(workspace)), "without the setting, splits tear families apart"
    look = under(tmp_path, workspace, near_duplicates={})
    receipt = publish.publish(look)
    assert receipt.made
    assert len(sides(look)) > 8
    assert {len(found) for found in sides(look)} == {1}
    assert len(set.union(*sides(look))) > 1
    assert receipt.changes is not None
    assert (receipt.changes.gained, receipt.changes.lost) == (0, {}), "keep leaves nothing out"
    assert sum(receipt.changes.moved.values()) > 0
    assert "WARNING: samples changed sides" in "\n".join(released(receipt))
    assert publish.publish(look).made is False
    card = workspace.store.get(keys.release(2) + "README.md").decode()
    several = [images for images in released_images(look).values() if len(images) > 1]
    assert f"{sum(map(len, several))} images in {len(several)} groups" in card
    assert verify(look).damage == []


def test_a_longer_chain_goes_to_train(workspace: Workspace, tmp_path: Path) -> None:
    look = under(tmp_path, workspace, near_duplicates={"largest_group": 1})
    publish.publish(look)
    assert set.union(*sides(look)) == {"train"}


def test_marks_name_the_group_and_no_image(workspace: Workspace, tmp_path: Path) -> None:
    look = under(tmp_path, workspace, near_duplicates={"rule": "mark"})
    publish.publish(look)
    copy = publish.fetch(look, publish.published(look)[-1], tmp_path / "copy")
    named = {}
    for path in (copy / "data").iterdir():
        table = parquet.read_table(path)
        named |= dict(zip(table["image_id"].to_pylist(), table["near_duplicates"].to_pylist(), strict=True))
    names = [{named[image] for image in images} for images in released_images(look).values()]
    alone = [len(images) == 1 for images in released_images(look).values()]
    assert [found == {None} for found in names] == alone
    assert {len(found) for found in names} == {1}
    assert len(set.union(*names) - {None}) == alone.count(False), "no two groups share a name"
    take_down(look, list(next(images for images in released_images(look).values() if len(images) > 1)))
    assert list(left(look)) == []


def test_of_what_looks_the_same_one_is_kept_and_named(workspace: Workspace, tmp_path: Path) -> None:
    publish.publish(workspace)
    families = released_images(workspace)
    look = under(tmp_path, workspace, near_duplicates={"rule": "drop"})
    publish.publish(look)
    kept = released_images(look)
    assert kept.keys() == families.keys()
    assert {len(images) for images in kept.values()} == {1}
    files = {claim.image: claim.file for claim in workspace.registry.claims()}
    rejects = [each for each in left_out(look.store, 2) or [] if each.reason == Reason.NEAR_DUPLICATE_IMAGE]
    assert {each.image for each in rejects} == {
        image for name, images in families.items() for image in images if image not in kept[name]
    }
    for reject in rejects:
        standing = (reject.detail or "").removeprefix("looks like ")
        assert standing in kept[files[reject.image][:2]]
    assert "looks like" in json.dumps(explain(look, rejects[0].image), default=str)


def test_of_a_sample_about_several_images_each_counts() -> None:
    alike = {"b": "a", "d": "c"}
    rows = database()
    for image in "abcde":
        columns = "INSERT INTO images (image, phash, split, wanted) VALUES (?, ?, 0, 1)"
        rows.execute(columns, (image, np.random.default_rng(ord(image)).bytes(20)))
    rows.executemany(
        "INSERT INTO pairs (pair, image) VALUES (?, ?)", [("one", "a"), ("of a, b", "a"), ("of e, d", "e")]
    )
    rows.executemany("INSERT INTO further VALUES (?, 1, ?)", [("of a, b", "b"), ("of e, d", "d")])

    def looks(images: Sequence[str]) -> Looks:
        drawn = [np.random.default_rng(ord(alike.get(image, image))).bytes(32) for image in images]
        return Looks(np.frombuffer(b"".join(drawn), np.uint8).reshape(-1, 32), np.full(len(images), 100), None)

    inputs = SimpleNamespace(looks=looks)
    part_near_duplicates(rows, inputs, ReleaseSettings(near_duplicates={"rule": "keep"}))  # type: ignore[arg-type]
    assert [image for (image,) in rows.execute("SELECT image FROM alike_groups ORDER BY 1")] == ["a", "b"], "c has none"
    part_near_duplicates(rows, inputs, ReleaseSettings(near_duplicates={"rule": "drop"}))  # type: ignore[arg-type]
    assert rows.execute("SELECT pair, detail FROM pairs WHERE reason NOT NULL").fetchall() == [
        ("of a, b", "looks like a")
    ]


def test_without_the_setting_nothing_is_looked_at(workspace: Workspace) -> None:
    publish.publish(workspace)
    shards = workspace.registry.shards()
    assert {each.stage for shard in shards for each in workspace.stage_outputs.all(shard.id)}.isdisjoint({"pdq"})
    manifest = json.loads(workspace.store.get(keys.release(1) + "manifest.json"))
    assert "near_duplicates" not in manifest["made_with"]["release"]
