"""Exports of a published release: whole whatever it refers to, resumable, and free of what is taken down."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from releases import released, workspace

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.errors import DamageError
from taskgalaxy_ops.extensions import RELEASE_FORMATS
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.export import Exported, export
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

ALL = [name for name in RELEASE_FORMATS.shipped if name != "preference"]
IMAGES = 8


def made(folder: Path, **chosen: Any) -> Workspace:
    opened = workspace(folder)
    released(opened, IMAGES, test=0.3, **chosen)
    return opened


def exported(store: Workspace, to: Path, *formats: str) -> Exported:
    return export(store, publish.published(store)[-1], to, formats or None)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_copied_whole_is_exported_as_it_was_released(tmp_path: Path) -> None:
    store = made(tmp_path)
    found = exported(store, tmp_path / "out")
    fetched = publish.fetch(store, publish.published(store)[-1], tmp_path / "copy")
    assert files_of(found.folder) == files_of(fetched)
    assert (found.formats, found.samples, found.images, found.referred) == (("llava", "parquet"), 2 * IMAGES, IMAGES, 0)


def test_an_export_of_what_is_referred_to_is_that_of_what_is_copied(tmp_path: Path) -> None:
    """Whatever the release copies and holds, all formats of an export are the same."""
    folders = []
    for name, chosen in (("a", {}), ("b", {"copy_images_up_to": 0}), ("c", {"copy_images_up_to": 5000})):
        store = made(tmp_path / name, **chosen)
        folders.append(exported(store, tmp_path / name / "out", *ALL).folder)
    first, *others = ({path: raw for path, raw in files_of(folder).items() if "/" in path} for folder in folders)
    assert {path.partition("/")[0] for path in first} > {"images", "data", "llava", "messages", "webdataset"}
    for each in others:
        assert each.keys() == first.keys()
        for path in first:  # row groups are cut otherwise
            alike = pq.read_table(io.BytesIO(first[path])) if path.endswith(".parquet") else None
            assert each[path] == first[path] or (alike and pq.read_table(io.BytesIO(each[path])).equals(alike)), path
    for folder in folders:
        ReleaseCopy(folder).check()
        assert "referred to where they lie" not in (folder / "README.md").read_text()
        rows = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
        assert all(row["image"].size == (40, 40) for row in rows)
        rows = datasets.load_dataset(str(folder / "messages"), cache_dir=str(tmp_path / "cache"))["train"]
        assert all(row["images"][0].size == (40, 40) for row in rows)


def test_an_export_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path, copy_images_up_to=0)
    whole = files_of(exported(store, tmp_path / "whole", "llava", "sharegpt").folder)
    read = []
    get = store.store.get

    def counted(key: str, **part: Any) -> bytes:
        if key.startswith(keys.RENDERED) and not part.get("start"):
            read.append(key)
            if len(read) == 3:
                raise KeyboardInterrupt
        return get(key, **part)

    monkeypatch.setattr(store.store, "get", counted)
    with pytest.raises(KeyboardInterrupt):
        exported(store, tmp_path / "out", "llava", "sharegpt")
    begun = json.loads((tmp_path / "out" / "v000001" / "manifest.json").read_text())
    assert begun["exported"] == {"complete": False}
    assert files_of(exported(store, tmp_path / "out", "llava", "sharegpt").folder) == whole
    again = len(read)
    assert again <= IMAGES + 3
    assert files_of(exported(store, tmp_path / "out", "llava", "sharegpt").folder) == whole and len(read) == again


def test_a_folder_of_another_release_is_left_alone(tmp_path: Path) -> None:
    exported(made(tmp_path / "a"), tmp_path / "out")
    with pytest.raises(DamageError, match="holds another release"):
        exported(made(tmp_path / "b", cap=3), tmp_path / "out")


@pytest.mark.parametrize("copied", [0, 2_000_000_000])
def test_an_export_loses_what_was_taken_down_since(tmp_path: Path, copied: int) -> None:
    store = made(tmp_path, copy_images_up_to=copied)
    folder = exported(store, tmp_path / "out", *ALL).folder
    gone = json.loads((folder / "llava" / "train.json").read_text())[0]["image"].rpartition("/")[2].partition(".")[0]
    (folder / "webdataset" / ".nv-meta").mkdir()  # what a trainer keeps beside
    (folder / "webdataset" / ".nv-meta" / "split.yaml").write_text("")
    publish.withdraw(store, 1, {gone})
    for listed in list(store.store.list(keys.renderings(gone))):
        store.store.delete(listed.key)
    found = exported(store, tmp_path / "out", *ALL)
    assert (found.images, found.referred) == (IMAGES - 1, 0)
    for path, raw in files_of(folder).items():
        assert path == "withdrawn.json" or (gone not in path and gone.encode() not in raw)
    assert (folder / "webdataset" / ".nv-meta" / "split.yaml").is_file()
    assert len(json.loads((folder / "withdrawn.json").read_text())["samples"]) == 2


def test_an_image_that_is_gone_is_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path, copy_images_up_to=0)
    lost = next(iter(store.store.list(keys.RENDERED))).key
    store.store.delete(lost)
    monkeypatch.setattr("taskgalaxy_ops.cli.release.workspace_of", lambda _: store)
    assert main(["release", "export", "v000001", "--format", "swift", "--to", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().out
    assert f"IT IS NOT WHOLE: 1 of {IMAGES} images" in said and str(tmp_path / "out" / "v000001") in said
    rows = [json.loads(line) for line in (tmp_path / "out/v000001/swift/train.jsonl").read_text().splitlines()] + [
        json.loads(line) for line in (tmp_path / "out/v000001/swift/test.jsonl").read_text().splitlines()
    ]
    named = [row["images"][0] for row in rows]
    assert sum(lost in each for each in named) == 2
    assert all((tmp_path / "out/v000001" / each).is_file() for each in named if lost not in each)


def test_what_cannot_be_exported_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path)
    monkeypatch.setattr("taskgalaxy_ops.cli.release.workspace_of", lambda _: store)
    for words, said in (
        (["export", "v000007", "--to", "x"], "there is no release 'v000007'. There are v000001"),
        (["export", "--format", "xml", "--to", "x"], "--format xml: should be 'llava'"),
    ):
        assert main(["release", *words]) == 1, said
