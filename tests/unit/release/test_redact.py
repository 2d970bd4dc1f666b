"""Images taken out of a release that was made: nothing of them is left, and the rest loads as before."""

import importlib.util
import io
import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from taskgalaxy_ops import release
from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.release import select
from taskgalaxy_ops.release.redact import WITHDRAWN, redacted, withdraw
from taskgalaxy_ops.settings import ReleaseSettings
from unit.release.test_publish import file_of, files_of, image_of, loaded, plan_of, some_material

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(select, "_PART_ROWS", 25)


def made(**chosen) -> Files:
    settings = ReleaseSettings(**{"validation": 0.3, "test": 0.3, **chosen})
    return files_of(plan_of(some_material(), settings))


def read(files: Files):
    def one(path: str) -> bytes:
        if path not in files:
            raise NotFoundError(path)
        return files[path]

    return one


def withdrawn(files: Files, images: set[str], steps: int | None = None) -> Files:
    """The files after a withdrawal, or after its first steps."""
    files = dict(files)
    for path, raw in list(withdraw(files["manifest.json"], read(files), images))[:steps]:
        files.pop(path, None)
        if raw is not None:
            files[path] = raw
    return files


def rows(files: Files) -> list[dict]:
    tables = [pq.read_table(io.BytesIO(files[path])) for path in sorted(files) if path.endswith(".parquet")]
    return [row for table in tables for row in table.to_pylist()]


def llava(files: Files) -> dict[str, list[dict]]:
    return {split: json.loads(files[f"llava/{split}.json"]) for split in release.SPLITS}


IMAGES = {image_of(number).image for number in (0, 7, 8)}


@pytest.mark.parametrize("limit", [0, 9_000, 2_000_000_000])
def test_nothing_of_the_images_is_left_and_all_else_is(limit):
    before = made(copy_images_up_to=limit)
    after = withdrawn(before, IMAGES)
    gone = {row["id"] for row in rows(before) if row["image_id"] in IMAGES}
    assert len(gone) == 9
    assert rows(after) == [row for row in rows(before) if row["id"] not in gone]
    assert llava(after) == {s: [row for row in found if row["id"] not in gone] for s, found in llava(before).items()}
    assert json.loads(after[WITHDRAWN]) == {"images": sorted(IMAGES), "samples": sorted(gone)}
    for path, raw in after.items():
        if path != WITHDRAWN:
            assert not any(image in path or image.encode() in raw for image in IMAGES)
            assert not any(sample in path or sample.encode() in raw for sample in gone)
            assert not any(file_of(number) in raw for number in (0, 7, 8))
    untouched = [path for path in before if path.startswith("images/") and not any(image in path for image in IMAGES)]
    assert all(after[path] == before[path] for path in untouched) and bool(untouched) == bool(limit)


def test_the_manifest_has_the_files_as_they_are():
    after = withdrawn(made(), IMAGES)
    manifest = json.loads(after["manifest.json"])
    assert set(manifest["files"]) == set(after) - {"manifest.json", "history.json"}
    for path, entry in manifest["files"].items():
        assert entry == {"size": len(after[path]), "sha256": sha256_hex(after[path])}
    assert manifest["withdrawn"] == {"images": 3, "samples": 9}


def test_the_card_says_so_once_and_shows_none_of_the_pictures():
    before = made()
    shown = next(path for path in before if path.startswith("samples/"))
    image = next(row["image_id"] for row in rows(before) if row["id"].startswith(Path(shown).stem))
    once = withdrawn(before, {image})
    assert shown not in once and shown not in once["README.md"].decode()
    head, notice, rest = (
        once["README.md"].decode().partition("> **Withdrawn in part** after it was made (images: 1, samples: 3)")
    )
    assert head.endswith("---\n\n> [!WARNING]\n") and notice and "`withdrawn.json`" in rest.split("\n")[0]
    twice = withdrawn(once, IMAGES)["README.md"].decode()
    assert twice.count("Withdrawn in part") == 1 and f"(images: {len(IMAGES | {image})}, " in twice
    assert "# TaskGalaxy release\n" in twice and yaml.safe_load(twice.split("---\n")[1])["configs"]


def test_images_that_the_release_does_not_hold_change_nothing():
    files = made()
    assert withdrawn(files, {sha256_hex(b"another")}) == files
    once = withdrawn(files, IMAGES)
    assert withdrawn(once, IMAGES) == once == withdrawn(once, {*IMAGES, sha256_hex(b"another")})


def test_an_interrupted_withdrawal_is_gone_on_with():
    files = made()
    whole = withdrawn(files, IMAGES)
    steps = len(list(withdraw(files["manifest.json"], read(files), IMAGES)))
    for done in range(steps):
        assert withdrawn(withdrawn(files, IMAGES, done), IMAGES) == whole, f"interrupted after {done} steps"


def test_a_file_by_itself():
    files, images = made(), frozenset(IMAGES)
    samples = frozenset(row["id"] for row in rows(files) if row["image_id"] in images)
    after = withdrawn(files, IMAGES)
    for path, raw in files.items():
        if path not in {"manifest.json", "card.html", "croissant.json"}:  # they are made from the others
            assert redacted(path, raw, images, samples) == after.get(path)


@pytest.mark.skipif(not importlib.util.find_spec("datasets"), reason="`datasets` is not installed")
@pytest.mark.parametrize("whole_split", [False, True])
def test_datasets_opens_what_is_left(tmp_path, whole_split):
    files = made()
    tests = {row["image_id"] for row in rows({p: raw for p, raw in files.items() if p.startswith("data/test")})}
    gone = tests if whole_split else set(random.Random(1).sample(sorted(tests), 1))
    files = withdrawn(files, gone | IMAGES)
    there = loaded(tmp_path, files.items())
    assert set(there) == {"train", "validation", *([] if whole_split else ["test"])}
    assert {s: [row["id"] for row in found] for s, found in there.items()} == {
        s: [row["id"] for row in found] for s, found in llava(files).items() if found
    }
