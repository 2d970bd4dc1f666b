"""What of the demo a settings file of one's own replaces."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from taskgalaxy_ops.demo.run import _own
from taskgalaxy_ops.demo.settings import OWN_STORE, demo_settings
from taskgalaxy_ops.errors import SettingsError
from taskgalaxy_ops.settings import parse_settings

MODEL = "{name: m, base_url: 'http://127.0.0.1:9/v1', model: m}"


def own(folder: Path, text: str) -> dict[str, Any]:
    file = folder / "mine.yaml"
    file.write_text(text, "utf-8")
    return _own(Namespace(settings=str(file), source=None))


def test_a_file_without_models_keeps_the_simulated_ones(tmp_path: Path) -> None:
    found = own(tmp_path, "match: {k: 7}")
    assert found.pop("store").startswith(OWN_STORE)
    assert found == {"match": {"k": 7}}
    settings = parse_settings(demo_settings("http://127.0.0.1:9/v1", found))
    assert (settings.match.k, settings.teacher.name, len(settings.judges)) == (7, "sim-teacher", 3)


def test_models_of_ones_own_see_the_demos_images(tmp_path: Path) -> None:
    found = own(tmp_path, f"teacher: {MODEL}\njudges: [{MODEL}]")
    of_demo = demo_settings("", {})
    assert (found["sources"], found["match"]) == (of_demo["sources"], of_demo["match"])
    assert "run" not in found


@pytest.mark.parametrize("text", [f"teacher: {MODEL}", f"judges: [{MODEL}]", "- a list"])
def test_half_of_the_models_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="a `teacher` and `judges` are needed, or neither"):
        own(tmp_path, text)
