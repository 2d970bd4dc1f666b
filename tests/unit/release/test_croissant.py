"""``croissant.json``: mlcroissant validates it and loads the records of a release's copy, also after a take-down."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.records import Claim
from taskgalaxy_ops.release import publish, select_samples
from taskgalaxy_ops.release.redact import withdraw
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from unit.release.test_groups import ALL, HELD, IDS, SAMPLE
from unit.release.test_publish import NASTY, Held, files_of, pair_of, plan_of, release_inputs, some_material

__all__ = ["tiny_models"]

SPLITS = {"test": 0.4, "validation": 0.2, "near_duplicate_bits": -1}


def described(files: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files["croissant.json"])
    return found


def loaded(files: dict[str, bytes], folder: Path) -> list[dict[str, Any]]:
    """The records that mlcroissant reads from a copy; every file is checked against its SHA-256. Raises for errors."""
    import mlcroissant

    for path, raw in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    found = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert found.metadata.ctx.conforms_to.to_json() == "http://mlcommons.org/croissant/1.1"
    assert not found.metadata.ctx.issues.errors
    return [{_name(key): _plain(value) for key, value in row.items()} for row in found.records("samples")]


def _name(key: str) -> str:
    return key.removeprefix("samples/")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {unquote(_name(key)).partition("/")[2]: _plain(each) for key, each in value.items()}
    return value.decode() if isinstance(value, bytes) else value


def rows_of(files: dict[str, bytes], folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of the copy's Parquet files, by id, with their split."""
    found = {}
    for path in (path for path in files if path.startswith("data/")):
        for row in pq.read_table(folder / path).to_pylist():
            found[row["id"]] = {**row, "split": Path(path).name.partition("-")[0]}
    return found


def some_held(**more: Any) -> Held:
    held = some_material(8)
    claims = {image: [*found, Claim("z", image, "z.png", None, NASTY, NASTY)] for image, found in held.claims.items()}
    return held.but(claims=claims, **more)


def test_mlcroissant_loads_every_column_of_every_row(tmp_path: Path) -> None:
    files = files_of(plan_of(some_held(), ReleaseSettings(**SPLITS, probability="votes")))
    records = loaded(files, tmp_path)
    rows = rows_of(files, tmp_path)
    assert {row["split"] for row in rows.values()} == {"train", "validation", "test"}
    assert {record["id"] for record in records} == rows.keys() and len(records) == len(rows)
    for record in records:
        row = rows[record["id"]]
        picture, stored = record.pop("image"), row.pop("image")
        assert isinstance(picture, Pillow.Image) and stored["bytes"] and picture.size == (48, 40)
        assert record.keys() == row.keys()
        assert record.pop("probability") == pytest.approx(row.pop("probability"))
        assert record == row


def test_names_of_the_context_and_images_that_are_referred_to_load(tmp_path: Path) -> None:
    fields = ("a caption", "page", 'o"dd.[0]')
    held = some_held()
    context = json.dumps(dict.fromkeys(fields, "x"))
    claims = {image: [Claim("photos", image, "a.png", context=context)] for image in held.claims}
    plan = plan_of(held.but(claims=claims), ReleaseSettings(**SPLITS, context=fields, copy_images_up_to=0))
    records = loaded(files_of(plan), tmp_path)
    assert {tuple(record["context"].items()) for record in records} == {tuple((name, "x") for name in fields)}
    assert {record["image"] for record in records} == {None}


def test_it_says_how_the_release_was_made() -> None:
    files = files_of(plan_of(some_held(), ReleaseSettings(**SPLITS)), at="2026-01-01")
    found = described(files)
    assert found["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
    assert "CC BY 4.0" in found["license"] and len(found["license"]) == 2
    assert {source["prov:label"] for source in found["prov:wasDerivedFrom"]} == {"photos", "z"}
    activities = found["prov:wasGeneratedBy"]
    agents = [[agent["prov:label"] for agent in each["prov:wasAssociatedWith"]] for each in activities]
    assert agents == [["conse"], ["teacher-model"], ["one-model", "two-model", "three-model"]]
    card = files["README.md"].decode()
    assert "Krippendorff's alpha of the judges" in found["rai:dataAnnotationAnalysis"][0]
    assert all(said[:60] in card for said in found["rai:dataLimitations"])
    assert "2026" not in files["croissant.json"].decode()
    simulated = described(files_of(plan_of(some_material(4, simulated=True), ReleaseSettings())))
    assert simulated["description"].startswith("SIMULATED")


def test_after_a_take_down_it_is_valid_and_names_what_is_left(tmp_path: Path) -> None:
    held = some_held()
    files = files_of(plan_of(held, ReleaseSettings(**SPLITS)))
    gone = min(held.images)

    def read(path: str) -> bytes:
        if path not in files:
            raise NotFoundError(path)
        return files[path]

    for path, content in withdraw(files["manifest.json"], read, [gone]):
        if content is None:
            del files[path]
        else:
            files[path] = content
    records = loaded(files, tmp_path)
    assert records and gone not in {record["image_id"] for record in records}
    assert {record["id"] for record in records} == rows_of(files, tmp_path).keys()
    listed = {each["contentUrl"] for each in described(files)["distribution"] if "contentUrl" in each}
    assert listed == {path for path in files if path.startswith("data/")}
    manifest = json.loads(files["manifest.json"])
    assert manifest["files"]["croissant.json"]["size"] == len(files["croissant.json"])


@pytest.mark.parametrize("inputs", [True, False])
def test_a_release_of_the_version_before_stays_the_latest_until_it_is_renewed(
    tmp_path: Path, tiny_models: TinyModels, inputs: bool
) -> None:
    tiny_seeds(tmp_path / "seeds.yaml")
    tiny_images(tmp_path / "images", 3)
    workspace = tiny_workspace(tiny_settings(tmp_path / "images", taxonomy={"seeds": str(tmp_path / "seeds.yaml")}))
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    results = RunResults(workspace)
    with select_samples(publish.release_inputs(results), workspace.settings.release) as plan:
        counts = {name: plan.counts[name] for name in ("samples", "images", "task_types")}
        before = publish.Published(
            **{"version": 1, "code": 2, "content": plan.content_by(2), "manifest_sha256": "", "partial": False},
            **counts,
            inputs=publish._inputs(results, code=2) if inputs else "",
        )
    log = Log(workspace.store, keys.RELEASES_LOG)
    log.append({"kind": "begin", "version": 1, "content": before.content})
    log.append({"kind": "done", **asdict(before)})
    receipt = publish.publish(workspace)
    assert (receipt.made, receipt.older, receipt.release) == (False, True, before)
    renewed = publish.publish(workspace, renew=True)
    assert renewed.made and (renewed.release.samples, renewed.release.code) == (before.samples, 3)
    assert not publish.publish(workspace).older


def test_questions_about_several_images_load_with_where_the_others_lie(tmp_path: Path) -> None:
    files = files_of(plan_of(release_inputs([SAMPLE, pair_of(HELD[3])], HELD), ALL))
    records = {record["variant"]: record for record in loaded(files, tmp_path)}
    row, further = records["several_images"], [IDS[2], IDS[1]]
    assert (row["image_id"], row["further_image_ids"]) == (IDS[0], further)
    assert [Path(path).stem for path in row["further_images"]] == further and set(row["further_images"]) <= files.keys()
    assert records["plain"]["further_images"] == []
