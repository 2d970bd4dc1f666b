"""docs/sources.md: its examples are run as they stand, and its recipes find images that lie as it says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest
import yaml
from sourcing import picture, seen

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.extensions import SOURCES

PAGE = (Path(__file__).parents[3] / "docs" / "sources.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(python|yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def model(name: str) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "simulated": True}


def test_the_examples_do_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKGALAXY_CACHE", str(tmp_path / "cache"))
    pictures = ModuleType("pictures")
    pictures.__dict__["picture"] = picture
    monkeypatch.setitem(sys.modules, "pictures", pictures)
    datasets.disable_progress_bars()
    names: dict[str, Any] = {}
    said = 0
    for kind, text in _BLOCK.findall(PAGE.partition("## The paper's sources")[0]):
        if kind == "python":
            exec(text, names)
        elif kind == "yaml":
            settings = {
                "store": "store",
                "teacher": model("t"),
                "judges": [model("a"), model("b")],
                **yaml.safe_load(text),
            }
            Path("taskgalaxy.yaml").write_text(yaml.safe_dump(settings))
        else:
            command, _, expected = text.removeprefix("$ taskgalaxy ").partition("\n")
            capsys.readouterr()
            assert main(command.split()) == 0
            assert capsys.readouterr().out == expected
            said += 1
    assert said == 6


CONVERSATION = [{"from": "human", "value": "<image>\nWhat is it?"}]
LAID_OUT = {  # by source: the file's content, the images that it names
    "allava-laion": (
        [{"image": "allava_laion/images/1.jpeg", "url": "https://example.org/1"}],
        ["allava_laion/images/1.jpeg"],
    ),
    "allava-vflan": ([{"image": "allava_vflan/images/a/2.png"}], ["allava_vflan/images/a/2.png"]),
    "visual-genome": (
        [{"image_id": 2, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/2.jpg"}],
        ["VG_100K_2/2.jpg"],
    ),
    "mathv360k": ([{"id": "i", "image": "TabMWP/images/1.png"}], ["TabMWP/images/1.png"]),
    "sharegpt4v": (
        [{"image": "coco/train2017/1.jpg"}, {"image": "sam/images/sa_1.jpg"}],
        ["coco/train2017/1.jpg", "sam/images/sa_1.jpg"],
    ),
}


def test_the_papers_sources_are_found_as_their_authors_lay_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipes = yaml.safe_load(_BLOCK.findall(PAGE.partition("## The paper's sources")[2])[0][1])["sources"]
    assert recipes.keys() == LAID_OUT.keys()
    for number, (name, recipe) in enumerate(recipes.items()):
        content, images = LAID_OUT[name]
        file = Path(recipe["location"].partition(":")[2])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([{**entry, "conversations": CONVERSATION} for entry in content]))
        for image in images:
            path = Path(recipe.get("options", {}).get("images") or file.parent, image)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    for name, recipe in recipes.items():
        found = seen(**recipe)
        assert (sorted(found.files), found.broken) == (sorted(LAID_OUT[name][1]), {}), name


def test_every_kind_and_option_is_on_the_page() -> None:
    table = PAGE.partition("## What holds")[0]
    for kind in SOURCES.shipped:
        assert f"`{kind}:" in table or f"`{kind}:" in table.replace("://", ":"), kind
        for option in getattr(SOURCES.get(kind), "options", {}):
            assert f"`{option}`" in table, option
