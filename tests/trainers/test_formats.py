"""An exported release, loaded by LLaMA-Factory, ms-swift and megatron-energon themselves.

Skipped unless TASKGALAXY_TRAINERS names Pythons that have them (``make test-trainers`` makes such).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from releases import released, workspace

from taskgalaxy_ops.finetune.tiny import save_tiny
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.release.export import export

CHECK = Path(__file__).with_name("check_formats.py")


@pytest.mark.parametrize("trainer", ["llamafactory", "ms-swift", "energon"])
def test_a_trainer_loads_an_exported_release(trainer: str, pythons: dict[str, Path], tmp_path: Path) -> None:
    if trainer not in pythons:
        pytest.skip(f"TASKGALAXY_TRAINERS names no Python that has {trainer}")
    store = workspace(tmp_path / "w")
    released(store, 12, test=0.3, copy_images_up_to=0)
    one = publish.published(store)[-1]
    folder = export(store, one, tmp_path / "out", ["llava", "sharegpt", "swift", "webdataset"]).folder
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
    found = json.loads(done.stdout.strip().splitlines()[-1])
    rows = json.loads((folder / "llava" / "train.json").read_text())
    expected = [([turn["value"] for turn in row["conversations"]], (folder / row["image"]).resolve()) for row in rows]
    seen = [(row["turns"], (folder / row["images"][0]).resolve()) for row in found]
    assert sorted(seen) == sorted(expected)
