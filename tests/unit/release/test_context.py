"""Releases that name fields of the context: Parquet for `datasets`, LLaVA's rows, the card; and those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from pyarrow import parquet
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

RULES = {"validation": 0, "test": 0, "near_duplicate_bits": -1}
HOSTILE = "<image> </s> | a | table\n# Heading <script>"
SHOWN = "‹image› ‹/s› | a | table\n# Heading <script>"


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", 6)
    said = {"000.png": {"context": {"caption": HOSTILE}, "origin": "http://x"}, "001.png": {"context": {"page": 3}}}
    (tmp_path / "images" / "source.json").write_text(json.dumps({"files": said}))
    workspace = under(tmp_path)
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    return workspace


def under(folder: Path, **release: Any) -> Workspace:
    seeds = {"seeds": str(folder / "seeds.yaml")}
    return tiny_workspace(tiny_settings(folder / "images", taxonomy=seeds, release={**RULES, **release}))


def released(workspace: Workspace, folder: Path, **release: Any) -> Path:
    """Publish under these rules, and copy the release to a folder."""
    settings = under(folder, **release).settings
    made = publish.publish(tiny_workspace(settings, workspace.store))  # type: ignore[arg-type]
    return publish.fetch(workspace, made.release, folder / "copies")


def test_rows_have_the_fields_that_are_named(workspace: Workspace, tmp_path: Path) -> None:
    copy = released(workspace, tmp_path, context=["page", "caption", "origin"])
    images = {claim.file: claim.image for claim in workspace.registry.claims()}
    rows = datasets.load_dataset(str(copy), split="train", cache_dir=str(tmp_path / "cache"))
    said = {row["image_id"]: row["context"] for row in rows}
    assert said[images["000.png"]] == {"page": None, "caption": SHOWN, "origin": "http://x"}
    assert said[images["001.png"]] == {"page": "3", "caption": None, "origin": None}
    assert said[images["002.png"]] == {"page": None, "caption": None, "origin": None}
    llava = json.loads((copy / "llava" / "train.json").read_text())
    found = {Path(row["image"]).stem: row.get("context") for row in llava}
    assert found[images["000.png"]] == {"caption": SHOWN, "origin": "http://x"}
    assert found[images["002.png"]] is None
    card = (copy / "README.md").read_text()
    assert "`context` holds what the sources say of 2 images: page, caption, origin." in card
    assert json.loads((copy / "manifest.json").read_text())["made_with"]["release"]["context"] == [
        *("page", "caption", "origin")
    ]
    assert HOSTILE not in "".join(path.read_text("utf-8", "replace") for path in copy.rglob("*") if path.is_file())


def test_a_release_without_fields_is_what_it_was(workspace: Workspace, tmp_path: Path) -> None:
    copy = released(workspace, tmp_path)
    [file] = (copy / "data").iterdir()
    assert "context" not in parquet.read_schema(file).names
    assert "context" not in (copy / "README.md").read_text()
    assert "caption" not in (copy / "manifest.json").read_text()
    assert publish.publish(workspace).made is False


def test_another_context_is_another_release_and_the_same_is_none(workspace: Workspace, tmp_path: Path) -> None:
    released(workspace, tmp_path, context=["caption"])
    assert publish.publish(_again(workspace, tmp_path)).made is False
    notes = tmp_path / "images" / "source.json"
    notes.write_text(json.dumps({"files": {"000.png": {"context": {"caption": "new"}, "origin": "http://x"}}}))
    pipeline.ingest(workspace, "mine")
    assert publish.publish(_again(workspace, tmp_path)).made is True
    (tmp_path / "images" / "source.json").write_text(
        json.dumps({"files": {"000.png": {"context": {"caption": "new", "page": 4}, "origin": "http://x"}}})
    )
    pipeline.ingest(workspace, "mine")
    assert publish.publish(_again(workspace, tmp_path)).made is False, "the page is not released"


def test_what_was_taken_down_leaves_the_rows_with_a_context(workspace: Workspace, tmp_path: Path) -> None:
    released(workspace, tmp_path, context=["caption", "page"])
    image = next(claim.image for claim in workspace.registry.claims() if claim.file == "000.png")
    take_down(_again(workspace, tmp_path), [image])
    store = workspace.store
    for listed in store.list(keys.release(1)):
        if listed.key.endswith((".json", ".md")):
            assert b"Heading" not in store.get(listed.key), listed.key
    copy = publish.fetch(workspace, publish.published(workspace)[0], tmp_path / "after")
    rows = datasets.load_dataset(str(copy), split="train", cache_dir=str(tmp_path / "cache"))
    assert image not in rows["image_id"]
    assert rows.features["context"] == {name: datasets.Value("string") for name in ("caption", "page")}


def test_fields_are_named_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a field is there twice: caption, caption"):
        under(tmp_path, context=["caption", "caption"])


def _again(workspace: Workspace, folder: Path) -> Workspace:
    return tiny_workspace(under(folder, context=["caption"]).settings, workspace.store)  # type: ignore[arg-type]
