"""Sources that are not copied (``copy: false``): their images are read where they lie, and checked each time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from fakes import MemoryStore
from papers import pdf, striped
from pyarrow import parquet
from sourcing import files_of, picture, workspace_at
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import NotFoundError, OriginError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.run import RunOptions
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.reports.text import sources as sources_text
from taskgalaxy_ops.settings import SourceSettings
from taskgalaxy_ops.sources.originals import originals, read_image
from taskgalaxy_ops.sources.overview import summaries
from taskgalaxy_ops.storage import connect, keys
from taskgalaxy_ops.workspace import Workspace

_ = tiny_models  # a fixture
PICTURES = [picture(seed) for seed in range(4)]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKGALAXY_CACHE", str(tmp_path_factory.mktemp("cache")))


# Every kind of source can be read without having been listed.


def _folder(folder: Path) -> str:
    (folder / "below ü").mkdir()
    for number, raw in enumerate(PICTURES):
        (folder / ("below ü" if number % 2 else ".") / f"{number} %41.png").write_bytes(raw)
    return str(folder)


def _tars(folder: Path) -> str:
    import webdataset  # which loads torch

    for number in range(2):
        with webdataset.TarWriter(str(folder / f"s-{number}.tar")) as writer:
            for seed in (2 * number, 2 * number + 1):
                writer.write({"__key__": f"{seed:06}", "png": PICTURES[seed]})
    return f"webdataset:{folder}"


def _parquet(folder: Path) -> str:
    for number in range(2):
        rows = [{"bytes": raw, "path": None} for raw in PICTURES[2 * number : 2 * number + 2]]
        parquet.write_table(pyarrow.table({"image": rows}), folder / f"part-{number}.parquet")
    return f"parquet:{folder}"


def _saved(folder: Path) -> str:
    import datasets

    rows = {"image": [{"bytes": raw, "path": None} for raw in PICTURES]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder / "saved")
    return f"hf:{folder}/saved"


def _coco(folder: Path) -> str:
    for number, raw in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(raw)
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(len(PICTURES))]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": []}))
    return f"coco:{folder}/instances.json"


@pytest.mark.parametrize("made", [_folder, _tars, _parquet, _saved, _coco])
def test_nothing_is_copied_and_everything_can_be_read(made: Callable[[Path], str], tmp_path: Path) -> None:
    workspace = workspace_at(made(tmp_path), copy=False)
    receipt = pipeline.ingest(workspace, "mine")
    assert (receipt.images, receipt.new_images) == (4, 4)
    assert list(workspace.store.list(keys.BLOBS)) == []
    anew = tiny_workspace(workspace.settings, workspace.store)
    assert sorted(read_image(anew, image) for image in files_of(anew).values()) == sorted(PICTURES)
    shutil.rmtree(tmp_path)
    image, *_ = files_of(anew).values()
    with pytest.raises(OriginError, match=r"source 'mine'.*\n  Bring the file back, or ingest the source again"):
        read_image(tiny_workspace(workspace.settings, workspace.store), image)


def test_a_bucket_is_read_where_it_lies(seaweedfs: SeaweedFS) -> None:
    location = f"s3://{seaweedfs.bucket}/originals"
    bucket = connect(location, **seaweedfs.s3_options)
    for number, raw in enumerate(PICTURES):
        bucket.replace(f"a b/{number}.png", raw)
    workspace = workspace_at(location, copy=False)
    workspace.__dict__["s3_options"] = seaweedfs.s3_options
    pipeline.ingest(workspace, "mine")
    image = files_of(workspace)["a b/2.png"]
    assert read_image(workspace, image) == PICTURES[2]
    bucket.replace("a b/2.png", PICTURES[1])
    with pytest.raises(OriginError, match=r"has other bytes at a b/2\.png than when it was scanned"):
        read_image(workspace, image)


def test_containers_that_are_added_before_others_move_no_place(tmp_path: Path) -> None:
    import webdataset

    workspace = workspace_at(_tars(tmp_path), copy=False)
    pipeline.ingest(workspace, "mine")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "0", "png": picture(9)})
    anew = tiny_workspace(workspace.settings, workspace.store)
    assert sorted(read_image(anew, image) for image in files_of(anew).values()) == sorted(PICTURES)


# Runs.


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tiny_images(tmp_path / "images", 6)


@pytest.fixture
def workspace(images: Path, tmp_path: Path) -> Workspace:
    sources = {"mine": {"location": str(images), "copy": False}}
    seeds = {"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))}
    return tiny_workspace(tiny_settings(images, sources=sources, taxonomy=seeds))


def _again(workspace: Workspace) -> Workspace:
    """As another process sees it."""
    return tiny_workspace(workspace.settings, workspace.store)


def test_a_release_is_the_same_as_of_copies(
    workspace: Workspace, images: Path, tmp_path: Path, tiny_models: TinyModels
) -> None:
    copying = tiny_workspace(
        workspace.settings.model_copy(update={"sources": {"mine": SourceSettings(location=str(images))}})
    )
    found = []
    for each in (workspace, copying):
        pipeline.ingest(each, "mine")
        result = pipeline.generate(each)
        receipt = publish.publish(each, results=RunResults(each, result))
        prefix = keys.release(receipt.release.version)
        files = {listed.key.removeprefix(prefix): each.store.get(listed.key) for listed in each.store.list(prefix)}
        found.append({name: raw for name, raw in files.items() if name.endswith(".parquet") or "images/" in name})
    assert found[0] == found[1]
    assert any("images/" in name for name in found[0])
    assert list(workspace.store.list(keys.BLOBS)) == []


@pytest.mark.parametrize("copied", [0, 2_000_000_000])
def test_a_release_of_originals_holds_or_refers_to_copies(
    copied: int, workspace: Workspace, images: Path, tiny_models: TinyModels
) -> None:
    release = workspace.settings.release.model_copy(update={"images": "original", "copy_images_up_to": copied})
    workspace = workspace.with_settings(release=release)
    workspace.__dict__["encoder"] = tiny_workspace(workspace.settings).encoder
    pipeline.ingest(workspace, "mine")
    receipt = publish.publish(workspace, results=RunResults(workspace, pipeline.generate(workspace)))
    released = {sample.image for sample in RunResults(workspace).samples}
    shutil.rmtree(images)
    stored = keys.release(receipt.release.version) + "images/" if copied else keys.BLOBS
    raws = {workspace.store.get(listed.key) for listed in workspace.store.list(stored)}
    assert len(raws) == len(released)


def test_one_original_that_is_gone_holds_up_its_shard_alone_until_the_next_scan(
    workspace: Workspace, images: Path, tiny_models: TinyModels
) -> None:
    pipeline.ingest(workspace, "mine")
    gone = files_of(workspace)["003.png"]
    kept = (images / "003.png").read_bytes()
    (images / "003.png").unlink()
    with pytest.raises(OriginError, match=r"^1 image shard waits .*003\.png: No such file or directory"):
        pipeline.generate(_again(workspace))
    assert tiny_models.distinct("filter") == 4 * 3
    pipeline.ingest(_again(workspace), "mine")
    assert pipeline.generate(_again(workspace)).pending == 0
    assert tiny_models.distinct("filter") == 5 * 3
    assert gone not in {sample.image for sample in RunResults(_again(workspace)).samples}
    (images / "003.png").write_bytes(kept)
    pipeline.ingest(_again(workspace), "mine")
    last = _again(workspace)
    assert pipeline.generate(last).pending == 0
    assert last.encoder_passes == 1, "what was encoded is not encoded again"
    assert tiny_models.distinct("filter") == 6 * 3
    assert max(tiny_models.seen.values()) == 1, "something was asked twice"


def test_an_original_that_changes_after_it_was_embedded_leaves_its_units_pending(
    workspace: Workspace, images: Path, tiny_models: TinyModels
) -> None:
    pipeline.ingest(workspace, "mine")
    pipeline.generate(workspace, RunOptions(last_stage="match"))
    (images / "003.png").write_bytes(picture(77))
    result = pipeline.generate(_again(workspace))
    assert (result.pending, tiny_models.distinct("filter")) == (3, 5 * 3)
    [reason] = result.reasons
    assert "source 'mine' has other bytes at 003.png than when it was scanned" in reason
    pipeline.ingest(_again(workspace), "mine")
    assert pipeline.generate(_again(workspace)).pending == 0
    assert max(tiny_models.seen.values()) == 1


def test_what_is_copied_from_now_on_is_copied_at_the_next_scan(workspace: Workspace, images: Path) -> None:
    pipeline.ingest(workspace, "mine")
    copying = tiny_workspace(tiny_settings(images), workspace.store)
    receipt = pipeline.ingest(copying, "mine")
    assert (receipt.images, receipt.new_images) == (6, 0)
    assert len(list(copying.store.list(keys.BLOBS))) == 6
    shutil.rmtree(images)
    assert all(read_image(copying, image) for image in files_of(copying).values())


def test_another_source_that_copies_makes_up_for_what_is_lost(
    workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    pipeline.ingest(workspace, "mine")
    (tmp_path / "other").mkdir()
    shutil.copy(images / "001.png", tmp_path / "other" / "x.png")
    pipeline.ingest(workspace, "other", chosen=SourceSettings(location=str(tmp_path / "other")))
    image = files_of(workspace)["x.png"]
    shutil.rmtree(images)
    assert read_image(_again(workspace), image)
    reader = originals(_again(workspace))
    shards = [shard.id for shard in workspace.registry.shards()]
    assert sum(len(reader.references(shard)) for shard in shards) == 5
    workspace.registry.remove("other")
    assert read_image(_again(workspace), image), "the copy is still there"


def test_a_take_down_says_what_is_not_ours_to_delete(
    workspace: Workspace, images: Path, tiny_models: TinyModels
) -> None:
    pipeline.ingest(workspace, "mine")
    pipeline.generate(workspace)
    image = files_of(workspace)["002.png"]
    found = take_down(_again(workspace), [image])
    assert found.originals == ["mine: 002.png"]
    assert (images / "002.png").exists()
    assert list(left(_again(workspace))) == []
    with pytest.raises(NotFoundError):
        read_image(_again(workspace), image)
    assert [reject.reason for reject in pipeline.ingest(_again(workspace), "mine").rejects] == ["taken down"]
    assert pipeline.generate(_again(workspace)).pending == 0


def test_verify_reads_originals(workspace: Workspace, images: Path) -> None:
    pipeline.ingest(workspace, "mine")
    found = verify(_again(workspace))
    assert (found.checked["original"], found.damage) == (6, [])
    (images / "004.png").write_bytes(picture(78))
    [damage] = verify(_again(workspace)).damage
    assert damage.startswith("original: image ")
    assert "other bytes at 004.png" in damage


def test_of_many_originals_verify_reads_some(tmp_path: Path) -> None:
    settings = tiny_settings(
        tmp_path, sources={"mine": {"location": str(tiny_images(tmp_path / "images", 120)), "copy": False}}
    )
    workspace = tiny_workspace(
        settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"shard_images": 512})})
    )
    pipeline.ingest(workspace, "mine")
    assert 0 < verify(workspace).checked["original"] < 60


def test_pages_of_documents_are_stored_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.pdf").write_bytes(pdf([striped(9), striped(40)]))
    workspace = workspace_at(f"documents:{tmp_path}/papers", copy=False)
    assert pipeline.ingest(workspace, "mine").new_images == 2
    shutil.rmtree(tmp_path / "papers")
    assert len({read_image(_again(workspace), image) for image in files_of(workspace).values()}) == 2
    assert verify(workspace).damage == []


def test_the_list_of_sources_says_that_one_is_not_copied(workspace: Workspace) -> None:
    [line] = sources_text.listed(summaries(workspace))
    assert "mine  file  not registered yet, not copied" in line
    pipeline.ingest(workspace, "mine")
    [line] = sources_text.listed(summaries(tiny_workspace(tiny_settings("elsewhere"), workspace.store)))
    assert "mine  file  6 images, not copied" in line


def test_a_store_of_copies_knows_no_originals(images: Path) -> None:
    workspace = tiny_workspace(tiny_settings(images), MemoryStore())
    pipeline.ingest(workspace, "mine")
    image = files_of(workspace)["000.png"]
    workspace.store.delete(keys.blob(image))
    with pytest.raises(NotFoundError, match="no object blobs/") as raised:
        read_image(workspace, image)
    assert not isinstance(raised.value, OriginError)
