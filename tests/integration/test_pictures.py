"""What the teacher was sent is what is released and what a trainer loads: pixel for pixel, for a zoo of image files.

And a store that was made before the rendering learnt something new asks again about those images alone whose picture
changed.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.golden_store import golden_workspace
from PIL import Image as Pillow
from tiny import TYPES, TinyModels, tiny_models, tiny_seeds, tiny_settings, tiny_workspace
from zoo import deep_png, encoded, picture, ramp, zoo

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.evaluate.rank import _opened
from taskgalaxy_ops.generation import pictures
from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import rendered_for
from taskgalaxy_ops.operations import plan, takedown, verify
from taskgalaxy_ops.records import Image
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.local_copy import ReleaseCopy
from taskgalaxy_ops.reports.text import release as release_text
from taskgalaxy_ops.sources.decoders import Decoded, Decoders
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

Pixels = np.ndarray[Any, Any]
SIDE = 256


def as_pixels(image: Pillow.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def opened(raw: bytes) -> Pixels:
    with Pillow.open(io.BytesIO(raw)) as image:
        return as_pixels(image)


def a_folder(folder: Path, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Writes the files into a folder; returns them by image id."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(files.values()):
        (folder / f"{number:03d}.png").write_bytes(raw)
    return {sha256_hex(raw): raw for raw in files.values()}


def a_workspace(tmp_path: Path, **changes: Any) -> Workspace:
    model = tiny_settings("x").teacher.model_dump(mode="json") | {"image_side": SIDE}
    fields = {
        "taxonomy": {"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))},
        "teacher": model,
        "judges": [{**model, "name": "a", "model": "a"}],
        "vote": {"quorum": 1, "audit_share": 0},
        "match": {"k": 1},
        "ingest": {"shard_images": 16, "min_side": 8},
        **changes,
    }
    return tiny_workspace(tiny_settings(tmp_path / "images", **fields))


def sent_by(models: TinyModels) -> set[bytes]:
    """The pictures that the teacher was sent."""
    return {base64.b64decode(unit[-1].partition(",")[2]) for unit in models.seen if unit[0] == "teacher"}


def run(workspace: Workspace) -> None:
    pipeline.ingest(workspace, "mine")
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons


def released(workspace: Workspace, folder: Path) -> Path:
    return publish.fetch(workspace, publish.publish(workspace).release, folder)


def test_what_a_trainer_loads_is_what_the_teacher_was_sent(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiny._reply", _always)
    files = a_folder(tmp_path / "images", zoo())
    workspace = a_workspace(tmp_path)
    run(workspace)
    teacher = workspace.settings.teacher
    expected = {image: rendered_for(raw, teacher) for image, raw in files.items()}
    assert sent_by(tiny_models) == set(expected.values())
    copy = released(workspace, tmp_path / "copy")

    # LLaVA's trainer: Image.open(os.path.join(image_folder, row["image"])).convert("RGB")
    rows = json.loads((copy / "llava" / "train.json").read_text())
    assert {Path(row["image"]).stem for row in rows} == set(files)
    for row in rows:
        image = Path(row["image"]).stem
        assert (copy / row["image"]).read_bytes() == expected[image]
        with Pillow.open(copy / row["image"]) as loaded:
            assert (as_pixels(loaded) == opened(expected[image])).all()
            assert max(loaded.size) <= SIDE and min(loaded.size) >= 28 and not loaded.getexif()

    # The trainers and the ranking of our own
    for row in ReleaseCopy(copy).rows("train"):
        file = ReleaseCopy(copy).image(row)
        assert (np.asarray(_opened(file)) == opened(expected[Path(file).stem])).all()

    # datasets, then TRL's collator
    datasets = pytest.importorskip("datasets")
    table = datasets.load_dataset(str(copy), cache_dir=str(tmp_path / "cache"))["train"]
    assert {row["image_id"] for row in table} == set(files)
    for row in table:
        assert (as_pixels(row["image"]) == opened(expected[row["image_id"]])).all()
    assert_collated(table, expected)

    readme = (copy / "README.md").read_text()
    assert "the picture that the teacher was sent" in readme
    assert "turned upright, as EXIF says" in readme and "deep grey, as 8 bits" in readme
    assert verify.verify(workspace).damage == []


def assert_collated(table: Any, expected: Mapping[str, bytes]) -> None:
    """What TRL's collator gives to a model's processor, as processors see it: RGB."""
    pytest.importorskip("trl")
    import torch
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    seen: list[Pixels] = []

    class Processor:
        def apply_chat_template(self, messages: list[Any], **_: Any) -> list[str]:
            return ["text" for _ in messages]

        def __call__(self, images: list[list[Pillow.Image]], text: list[str], **_: Any) -> dict[str, Any]:
            seen.extend(as_pixels(image) for each in images for image in each)
            ids = torch.ones((len(text), 2), dtype=torch.long)
            return {"input_ids": ids, "attention_mask": ids}

        class tokenizer:  # as processors call it
            pad_token_id = 0

    rows = list(table)
    examples = [{"images": [row["image"]], "text": row["question"]} for row in rows]
    DataCollatorForVisionLanguageModeling(Processor()).torch_call(examples)
    assert len(seen) == len(rows)
    for row, pixels in zip(rows, seen, strict=True):
        assert (pixels == opened(expected[row["image_id"]])).all()


def _always(stage: str, drawn: float, token: str) -> dict[str, Any]:
    if stage == "filter":
        return {"fits": True, "reason": token}
    if stage == "write":
        return {"question": f"What is {token}?", "answer": token, "reasoning": ""}
    return {"vote": 1, "reason": token}


def some(more: Mapping[str, bytes] = {}) -> dict[str, bytes]:
    return {"turned": zoo()["JPEG, turned 6"], "clear": zoo()["png, rgba"], "plain": zoo()["JPEG"], **more}


def test_originals_are_released_where_they_are_asked_for_and_the_card_warns_of_them(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiny._reply", _always)
    files = a_folder(tmp_path / "images", some())
    raw = tiny_settings("x").release.model_dump(mode="json")
    workspace = a_workspace(tmp_path, release={**raw, "images": "original"})
    run(workspace)
    copy = released(workspace, tmp_path / "copy")
    for row in json.loads((copy / "llava" / "train.json").read_text()):
        assert (copy / row["image"]).read_bytes() == files[Path(row["image"]).stem]
    assert not list(workspace.store.list(keys.RENDERED))
    readme = (copy / "README.md").read_text()
    assert "its source's file, unchanged, with its EXIF" in readme
    assert (
        "| turned upright, as EXIF says | 1 |" in readme and "| set on white where they are transparent | 1 |" in readme
    )
    assert verify.verify(workspace).damage == []


def test_a_rendition_that_was_released_stays_whatever_a_later_encoder_makes(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiny._reply", _always)
    a_folder(tmp_path / "images", some())
    workspace = a_workspace(tmp_path)
    run(workspace)
    first = released(workspace, tmp_path / "copy")
    monkeypatch.setattr("taskgalaxy_ops.release.renditions.rendered_for", lambda raw, model: b"another encoder's")
    capped = workspace.settings.release.model_copy(update={"cap": 9})
    second = released(workspace.with_settings(release=capped), tmp_path / "copy")
    assert first != second
    for file in (first / "images").rglob("*.jpg"):
        assert (second / file.relative_to(first)).read_bytes() == file.read_bytes()


def test_beyond_the_limit_renditions_are_referred_to_and_there(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiny._reply", _always)
    files = a_folder(tmp_path / "images", some())
    raw = tiny_settings("x").release.model_dump(mode="json")
    workspace = a_workspace(tmp_path, release={**raw, "copy_images_up_to": 0})
    run(workspace)
    copy = released(workspace, tmp_path / "copy")
    rows = json.loads((copy / "llava" / "train.json").read_text())
    for row in rows:
        key = row["image"].removeprefix(workspace.store.url.rstrip("/") + "/")
        image = key.split("/")[2]
        assert workspace.store.get(key) == rendered_for(files[image], workspace.settings.teacher)
    gone = rows[0]["image"].split("/")[-2]
    takedown.take_down(workspace, [gone], "asked for")
    left = released(workspace, tmp_path / "copy after")
    assert gone not in "".join(path.read_text() for path in left.rglob("*.json") if path.name != "withdrawn.json")
    assert not list(workspace.store.list(keys.renderings(gone)))
    assert verify.verify(workspace).damage == []
    assert list(takedown.left(workspace)) == []


def _without_levels(found: Decoded) -> Decoded:
    return found._replace(image=replace(found.image, levels=None)) if isinstance(found.image, Image) else found


def test_after_an_upgrade_only_what_looks_otherwise_is_asked_again(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiny._reply", _always)
    changed = {
        "thin": zoo()["thin"],
        "dark": deep_png(ramp(900)),
        "dark tiff": zoo()["tiff, 16 bits, 12 of them used"],
    }
    same = {
        "deep": deep_png(ramp(65535)),
        "large": zoo()["large"],
        **{str(n): encoded(picture(seed=n), "PNG") for n in range(9)},
    }
    a_folder(tmp_path / "images", some({**changed, **same}))
    workspace = a_workspace(tmp_path)
    with monkeypatch.context() as before:  # as a version that knew of no thin images and no levels
        before.setattr(pictures, "images_apart", lambda workspace, models: {})
        before.setattr("taskgalaxy_ops.generation.stage_keys.images_apart", lambda workspace, models: {})
        inspect = Decoders.inspect
        before.setattr(Decoders, "inspect", lambda self, raw: _without_levels(inspect(self, raw)))
        plainly = ImageShard.to_json
        before.setattr(ImageShard, "to_json", lambda self: {k: v for k, v in plainly(self).items() if k != "levels"})
        run(workspace)
    tiny_models.start(None)
    told = {stage.stage: stage for stage in plan.plan(workspace).stages}
    assert told["filter"].units.exact and told["filter"].units.low == len(changed)
    assert told["embed"].units.high == told["match"].units.high == 0
    assert "images rendered otherwise than most" in " ".join(told["filter"].why)
    assert tiny_models.requests == 0
    result = pipeline.generate(workspace)
    assert result.pending == 0
    assert sent_by(tiny_models) == {rendered_for(raw, workspace.settings.teacher) for raw in changed.values()}
    assert tiny_models.distinct("filter") == len(changed)
    again = {stage.stage: stage.units.high for stage in plan.plan(workspace).stages}
    assert set(again.values()) == {0}


def test_a_store_says_itself_which_of_its_images_are_rendered_otherwise(
    tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer image shards: no file is read for it. Without the cache the same comes out."""
    files = a_folder(tmp_path / "images", some({"thin": zoo()["thin"], "dark": deep_png(ramp(4095))}))
    monkeypatch.setattr(pictures, "_FEW", 0)
    workspace = a_workspace(tmp_path)
    pipeline.ingest(workspace, "mine")
    store, read = workspace.store, []
    store.before = lambda operation, key: read.append((operation, key))  # type: ignore[attr-defined]
    models = [workspace.settings.teacher]
    first = pictures.images_apart(workspace, models)
    assert not [key for operation, key in read if key.startswith(keys.BLOBS)]
    apart = pictures.of_model(first, models[0])
    thin, dark = sha256_hex(zoo()["thin"]), sha256_hex(deep_png(ramp(4095)))
    assert apart == {thin: {"min_side": 28}, dark: {"levels": "0:4095"}} and set(apart) <= set(files)
    read.clear()
    assert pictures.images_apart(workspace, models) == first
    assert [key for operation, key in read if operation == "get" and key.startswith(keys.DATA)] == []
    template = filter_template("Decide.", models[0])
    item, knowing = {"task_type": TYPES[0]}, replace(template, apart=apart)
    assert [image for image in files if template.unit(image, item) != knowing.unit(image, item)] == [
        image for image in files if image in apart
    ]


def test_a_release_of_before_is_the_latest_until_it_is_renewed(tmp_path: Path) -> None:
    workspace = golden_workspace(tmp_path / "store")
    (before,) = publish.published(workspace)
    receipt = publish.publish(workspace)
    assert (receipt.made, receipt.older, receipt.release) == (False, True, before)
    assert "taskgalaxy release --renew" in "\n".join(release_text.released(receipt))
    renewed = publish.publish(workspace, renew=True)
    assert renewed.made and not renewed.older and renewed.release.samples == before.samples
    old, new = (publish.fetch(workspace, one, tmp_path / "copies") for one in (before, renewed.release))
    assert {file.suffix for file in (old / "images").rglob("*.*")} == {".png"}
    assert {file.suffix for file in (new / "images").rglob("*.*")} == {".jpg"}
    for kept in (publish.publish(workspace, renew=True), publish.publish(workspace)):
        assert (kept.made, kept.older, kept.release) == (False, False, renewed.release)
    assert verify.verify(workspace).damage == []
