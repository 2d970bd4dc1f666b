"""The settings file that `up` makes."""

from __future__ import annotations

from pathlib import Path

import yaml

from taskgalaxy_ops.demo import _up_settings
from taskgalaxy_ops.settings import load_settings


def test_the_settings_of_up_name_nothing_outside_its_folder(tmp_path: Path) -> None:
    file = _up_settings(tmp_path / "taskgalaxy.yaml", "http://127.0.0.1:1/v1")
    settings = load_settings(file)
    assert settings.store.startswith("s3://")
    assert Path(settings.finetune.folder).is_relative_to(file.parent)
    assert settings.taxonomy.approval == "required"


def test_the_settings_of_up_are_the_users_but_for_the_simulators_address(tmp_path: Path) -> None:
    file = _up_settings(tmp_path / "taskgalaxy.yaml", "http://127.0.0.1:1/v1")
    raw = yaml.safe_load(file.read_text("utf-8"))
    raw["finetune"]["folder"] = "/data/mine"
    file.write_text(yaml.safe_dump(raw), "utf-8")
    settings = load_settings(_up_settings(file, "http://127.0.0.1:2/v1"))
    assert settings.finetune.folder == "/data/mine"
    assert {model.base_url for model in (settings.teacher, *settings.judges)} == {"http://127.0.0.1:2/v1"}
