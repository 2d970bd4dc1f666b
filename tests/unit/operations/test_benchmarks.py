"""Benchmarks of a store: kept without a copy, read for releases, and part of what these depend on."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from PIL import Image as Pillow
from tiny import TinyModels, tiny_images, tiny_models, tiny_settings, tiny_workspace  # noqa: F401

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import EncoderError, SettingsError
from taskgalaxy_ops.operations import benchmarks, gc
from taskgalaxy_ops.operations.leaks import leak_report
from taskgalaxy_ops.operations.takedown import left, take_down
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.release import decontaminate, publish
from taskgalaxy_ops.release.decontaminate.pictures import PictureIndex
from taskgalaxy_ops.reports.html import thumbnail
from taskgalaxy_ops.reports.pages.leaks import leaks_page
from taskgalaxy_ops.reports.text.benchmarks import checked
from taskgalaxy_ops.sources.originals import read_image
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.benchmark_log import BenchmarkLog
from taskgalaxy_ops.workspace import Workspace

WITH = {"validation": 0, "test": 0, "near_duplicate_bits": -1, "decontaminate": {}}
LONG = "How many of the eleven lighthouses in this picture stand on an island?"


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:  # noqa: F811
    found = tiny_workspace(tiny_settings(tiny_images(tmp_path / "images", 6), release=WITH))
    pipeline.ingest(found, "mine")
    pipeline.generate(found)
    return found


def again(workspace: Workspace) -> Workspace:
    assert isinstance(workspace.store, MemoryStore)
    return tiny_workspace(workspace.settings, workspace.store)


def folder(place: Path, images: Path, names: list[str]) -> str:
    """A benchmark of some of these images, with a question each; and of a picture that is none."""
    place.mkdir()
    rows = [{"id": name, "image": f"{name}.png", "question": f"{LONG} {name}"} for name in names]
    for name in names:
        (place / f"{name}.png").write_bytes((images / f"{name}.png").read_bytes())
    (place / "bad.png").write_bytes(b"no image")
    (place / "items.json").write_text(json.dumps([*rows, {"id": "bad", "image": "bad.png", "question": "What?"}]))
    return str(place)


def test_a_release_leaves_out_what_is_in_a_benchmark(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="benchmarks add"):
        publish.publish(workspace)
    added = benchmarks.add(workspace, "MM 1", folder(tmp_path / "mm", tmp_path / "images", ["000", "001"]))
    assert (added.made, added.benchmark.items, added.questions, added.pictures) == (True, 3, 3, 2)
    assert added.benchmark.unread == {"pictures that cannot be read: not an image": 1}
    first = publish.publish(again(workspace))
    assert set(first.funnel.rejects) == {"benchmark image"}
    unchanged = again(workspace)
    assert not publish.publish(unchanged).made
    assert unchanged.encoder_passes == 0
    assert verify(again(workspace)).damage == []
    assert list(gc.unreferenced(again(workspace))) == []

    second = again(workspace)
    assert benchmarks.add(second, "Another", folder(tmp_path / "other", tmp_path / "images", ["002"])).made
    assert publish.publish(second).made
    benchmarks.remove(second, "Another")
    back = publish.publish(again(workspace))
    assert back.release.content == first.release.content
    with pytest.raises(SettingsError, match="Another"):
        benchmarks.remove(second, "Another")


def test_another_rule_compares_a_release_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks.add(workspace, "mm", folder(tmp_path / "mm", tmp_path / "images", ["000"]))
    first = publish.publish(again(workspace))
    monkeypatch.setattr(decontaminate, "RULE", decontaminate.RULE + 1)
    assert not publish.publish(again(workspace)).made  # which finds the same
    with monkeypatch.context() as blind:
        blind.setattr(PictureIndex, "search", lambda *_: iter(()))
        blind.setattr(decontaminate, "RULE", decontaminate.RULE + 1)
        other = publish.publish(again(workspace))
    assert other.made
    assert other.release.content != first.release.content


def test_a_benchmark_holds_no_copy_and_no_id_of_an_image(workspace: Workspace, tmp_path: Path) -> None:
    before = dict(workspace.store.objects)
    benchmarks.add(workspace, "mm", folder(tmp_path / "mm", tmp_path / "images", ["000"]))
    fresh = {key: raw for key, raw in workspace.store.objects.items() if key not in before}
    picture = (tmp_path / "images" / "000.png").read_bytes()
    assert not any(picture in raw or b"lighthouses" in raw for raw in fresh.values())
    publish.publish(again(workspace))
    images = [image.image for shard in workspace.registry.shards() for image in workspace.registry.images(shard)]
    take_down(again(workspace), images[:3])
    assert list(left(again(workspace))) == []
    assert verify(again(workspace)).damage == []


def test_a_benchmark_of_an_earlier_version_is_compared_by_hashes_and_the_release_says_so(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path / "mm", tmp_path / "images", ["000", "001"])
    with monkeypatch.context() as earlier:  # no thumbnails were kept
        earlier.setattr(benchmarks, "fine_thumbnail", lambda *_: "")
        old = benchmarks.add(workspace, "mm", place).benchmark
    first = publish.publish(again(workspace))
    told = "pictures added by an earlier version, compared by hashes alone: add the benchmark again"
    [said] = json.loads(workspace.store.get(keys.release(first.release.version) + "leaks.json"))["benchmarks"]
    assert said["unchecked"][told] == 2
    assert set(first.funnel.rejects) == {"benchmark image"}
    assert benchmarks.add(again(workspace), "mm", place).benchmark.hash != old.hash
    [said] = json.loads(
        workspace.store.get(keys.release(publish.publish(again(workspace)).release.version) + "leaks.json")
    )["benchmarks"]
    assert told not in said["unchecked"]


def test_the_same_items_again_add_nothing_in_any_order(workspace: Workspace, tmp_path: Path) -> None:
    place = folder(tmp_path / "mm", tmp_path / "images", ["000", "001"])
    first = benchmarks.add(workspace, "mm", place).benchmark
    rows = json.loads((tmp_path / "mm" / "items.json").read_text())
    (tmp_path / "mm" / "items.json").write_text(json.dumps(rows[::-1]))
    other = benchmarks.add(again(workspace), "mm", place)
    assert not other.made
    assert BenchmarkLog(workspace.store).read()["mm"].hash == first.hash
    for name in ("", "a/b", "x" * 65, "-"):
        with pytest.raises(SettingsError, match="benchmark"):
            benchmarks.add(workspace, name, place)


def test_what_is_found_is_shown_beside_the_benchmarks_own(workspace: Workspace, tmp_path: Path) -> None:
    unset = tiny_workspace(tiny_settings(tmp_path / "images"), workspace.store)
    with pytest.raises(SettingsError, match="benchmarks add"):
        leak_report(unset)
    place = folder(tmp_path / "mm", tmp_path / "images", ["000", "001"])
    benchmarks.add(again(workspace), "mm b", place)
    found = leak_report(again(workspace))
    assert found.samples > found.left_out > 0
    assert {each.theirs.question for each in found.examples if each.theirs} == {f"{LONG} 000", f"{LONG} 001"}
    page = leaks_page(found, lambda image: thumbnail(read_image(workspace, image)))
    assert page.count("data:image/jpeg;base64,") == 2 * len(found.examples)
    assert all(each.image in page for each in found.examples)

    shutil.rmtree(place)
    gone = leak_report(again(workspace))
    assert gone.left_out == found.left_out
    assert "there is no such file or folder" in gone.unread["mm b"]
    page = leaks_page(gone, lambda image: thumbnail(read_image(workspace, image)))
    assert page.count("not there any more") == len(found.examples)
    assert any("cannot be shown" in line for line in checked(gone))


def test_copies_are_found_by_sscd_where_its_weights_are_given(workspace: Workspace, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Colours(torch.nn.Module):  # type: ignore[misc,name-defined]
        """Stands for SSCD: pictures with the same colours are one, wherever these are."""

        def forward(self, pixels: "torch.Tensor") -> "torch.Tensor":  # type: ignore[name-defined]
            flat = pixels.flatten(2)
            return torch.cat([(flat > level).float().mean(2) for level in (-1.5, -0.5, 0.5, 1.5)], 1) - 0.5

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Colours()).save(str(tmp_path / "sscd.pt"))
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes((tmp_path / "sscd.pt").read_bytes())
    upside_down = tmp_path / "turned"
    upside_down.mkdir()
    with Pillow.open(tmp_path / "images" / "000.png") as picture:
        picture.convert("RGB").rotate(180).save(upside_down / "turned.png")
    chosen = {"sscd": str(tmp_path / "sscd.pt"), "sscd_cosine": 0.9999}
    settings = tiny_settings(tmp_path / "images", release={**WITH, "decontaminate": chosen})

    def given() -> Workspace:
        return tiny_workspace(settings, workspace.store)  # type: ignore[arg-type]

    benchmarks.add(again(workspace), "turned", str(upside_down))  # without SSCD
    without = publish.publish(again(workspace))
    assert without.funnel.rejects == {}
    told = "pictures that SSCD did not compare, described by other weights or none: add the benchmark again"
    first = publish.publish(given())
    assert leaks(given(), first.release.version)["benchmarks"][0]["unchecked"][told] == 1

    assert benchmarks.add(given(), "turned", str(upside_down)).made
    second = publish.publish(given())
    assert set(second.funnel.rejects) == {"benchmark image"}
    found = leaks(given(), second.release.version)
    assert told not in found["benchmarks"][0]["unchecked"]
    assert {each["kind"] for each in found["leaks"]} == {"SSCD"}
    assert str(tmp_path) not in json.dumps(found)
    assert not publish.publish(given()).made
    settings = tiny_settings(tmp_path / "images", release={**WITH, "decontaminate": chosen | {"sscd": str(moved)}})
    assert not publish.publish(given()).made  # where the weights lie changes no release
    assert verify(given()).damage == []
    assert list(gc.unreferenced(given())) == []
    kept = [output.stage for shard in given().registry.shards() for output in given().stage_outputs.all(shard.id)]
    assert "sscd" in kept
    images = [image for shard in given().registry.shards() for image in given().registry.image_ids(shard)]
    take_down(given(), images[:3])
    assert list(left(given())) == []

    moved.unlink()
    with pytest.raises(EncoderError, match=r"elsewhere\.pt: No such file"):
        publish.publish(given())


def leaks(workspace: Workspace, version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(workspace.store.get(keys.release(version) + "leaks.json"))
    return found
