"""An exported release and a mixture, loaded by LLaMA-Factory, ms-swift and megatron-energon themselves.

Skipped unless TASKGALAXY_TRAINERS names Pythons that have them (``make test-trainers`` makes such).
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

from taskgalaxy_ops.finetune.tiny import save_tiny
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.export import export
from taskgalaxy_ops.release.mixing.mix import mix
from taskgalaxy_ops.release.mixing.settings import Mixture, MixturePart

CHECK = Path(__file__).with_name("check_formats.py")


def loaded(trainer: str, pythons: dict[str, Path], folder: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """The rows that a trainer finds in a folder."""
    if trainer not in pythons:
        pytest.skip(f"TASKGALAXY_TRAINERS names no Python that has {trainer}")
    save_tiny(tmp_path / "model")
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "MODELSCOPE_CACHE": str(tmp_path / "ms")}
    done = subprocess.run(
        [str(pythons[trainer]), str(CHECK), trainer, str(folder), str(tmp_path / "model")],
        env={**kept, **offline, "USE_HF": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize("trainer", ["llamafactory", "ms-swift", "energon"])
def test_a_trainer_loads_an_exported_release(trainer: str, pythons: dict[str, Path], tmp_path: Path) -> None:
    store = workspace(tmp_path / "w")
    released(store, 12, test=0.3, copy_images_up_to=0)
    one = publish.published(store)[-1]
    folder = export(store, one, tmp_path / "out", ["llava", "sharegpt", "swift", "webdataset"]).folder
    found = loaded(trainer, pythons, folder, tmp_path)
    rows = json.loads((folder / "llava" / "train.json").read_text())
    expected = [([turn["value"] for turn in row["conversations"]], (folder / row["image"]).resolve()) for row in rows]
    seen = [(row["turns"], (folder / row["images"][0]).resolve()) for row in found]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("trainer", ["llamafactory", "ms-swift"])
def test_a_trainer_loads_a_mixture(trainer: str, pythons: dict[str, Path], tmp_path: Path) -> None:
    store, folder = workspace(tmp_path / "w"), tmp_path / "out"
    released(store, 6, test=0.3)
    data = tmp_path / "data"
    parts = (
        MixturePart(name="ours", release="latest"),
        MixturePart(name="set", files=(str(sets.sharegpt4v(data)),), images=str(data)),
        MixturePart(name="texts", files=(str(sets.cambrian(data)),), images=str(data)),
    )
    mix(Mixture(parts=parts), folder, ["llava", "sharegpt", "swift"], store)
    found = loaded(trainer, pythons, folder, tmp_path)
    rows = json.loads((folder / "llava" / "train.json").read_text())
    images = [[(folder / row["image"]).resolve()] if "image" in row else [] for row in rows]
    expected = [
        ([turn["value"] for turn in row["conversations"]], shown) for row, shown in zip(rows, images, strict=True)
    ]
    assert {len(shown) for shown in images} == {0, 1}
    assert sorted((row["turns"], [(folder / each).resolve() for each in row["images"]]) for row in found) == sorted(
        expected
    )
