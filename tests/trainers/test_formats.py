"""An exported release, loaded by each of the libraries that it is for, and a mixture by the trainers that take one.

A release of a few pictures, or the exported folder that TASKGALAXY_RELEASE names. LLaMA-Factory, ms-swift and
megatron-energon are skipped unless TASKGALAXY_TRAINERS names Pythons that have them (``make test-trainers`` makes
such).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import base_sets as sets
import pytest
from releases import released, workspace

from taskgalaxy_ops.extensions import RELEASE_FORMATS
from taskgalaxy_ops.finetune.tiny import save_tiny
from taskgalaxy_ops.release.formats.layouts import llava_images
from taskgalaxy_ops.release.mixing.mix import mix
from taskgalaxy_ops.release.mixing.settings import Mixture, MixturePart
from trainers.check_formats import READERS, check
from trainers.conftest import ELSEWHERE, RELEASE, exported

CHECK = Path(__file__).with_name("check_formats.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    formats = [name for name in RELEASE_FORMATS.shipped if name != "preference"]
    return exported(tmp_path_factory.mktemp("release"), 12, formats, test=0.3)


@pytest.mark.parametrize("reader", READERS)
def test_a_library_loads_an_exported_release(
    reader: str, folder: Path, pythons: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "model")
    found = _elsewhere(reader, pythons, folder, tmp_path) if reader in ELSEWHERE else None
    found = found or check(reader, folder, str(tmp_path / "model"))
    if RELEASE:
        with capsys.disabled():
            print(f"\n{reader} {found['version']}: {len(found['rows']):,} rows")
    _compare(found, folder)


@pytest.mark.parametrize("reader", ["llamafactory", "ms-swift"])
def test_a_trainer_loads_a_mixture(reader: str, pythons: dict[str, Path], tmp_path: Path) -> None:
    store, folder, data = workspace(tmp_path / "w"), tmp_path / "out", tmp_path / "data"
    released(store, 6, test=0.3)
    parts = (
        MixturePart(name="ours", release="latest"),
        MixturePart(name="set", files=(str(sets.sharegpt4v(data)),), images=str(data)),
        MixturePart(name="texts", files=(str(sets.cambrian(data)),), images=str(data)),
    )
    mix(Mixture(parts=parts), folder, ["llava", "sharegpt", "swift"], store)
    save_tiny(tmp_path / "model")
    assert {len(row["images"]) for row in _told(folder)} == {0, 1}
    _compare(_elsewhere(reader, pythons, folder, tmp_path), folder)


def _compare(found: dict[str, Any], folder: Path) -> None:
    """Hold the rows that a library found against those of LLaVA's JSON in the same folder."""
    seen = [_placed(row, folder) for row in found["rows"]]
    told = [_placed(row, folder) for row in _told(folder)]
    expected = [{name: row[name] for name in seen[0]} for row in told]
    assert sorted(map(json.dumps, seen)) == sorted(map(json.dumps, expected))


def _elsewhere(reader: str, pythons: dict[str, Path], folder: Path, tmp_path: Path) -> dict[str, Any]:
    if reader not in pythons:
        pytest.skip(f"TASKGALAXY_TRAINERS names no Python that has {reader}")
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "MODELSCOPE_CACHE": str(tmp_path / "ms")}
    done = subprocess.run(
        [str(pythons[reader]), str(CHECK), reader, str(folder), str(tmp_path / "model")],
        env={**kept, **offline, "USE_HF": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _told(folder: Path) -> list[dict[str, Any]]:
    """The rows of LLaVA's JSON, which a test of its own compares with the samples."""
    rows = json.loads((folder / "llava" / "train.json").read_text(encoding="utf-8"))
    return [
        {
            "id": row["id"],
            "turns": [turn["value"] for turn in row["conversations"]],
            "images": llava_images(row),
        }
        for row in rows
    ]


def _placed(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The row with the paths of its images, which some libraries give from the release's folder."""
    if "images" not in row:
        return row
    return {**row, "images": [str((folder / image).resolve()) for image in row["images"]]}
