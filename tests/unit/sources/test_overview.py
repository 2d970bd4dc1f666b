"""`taskgalaxy sources` and `sources preview`: what they say, and that a look writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sourcing import picture

from taskgalaxy_ops.cli import main
from taskgalaxy_ops.sources.kinds import SOURCES, kind_of


def model(name: str) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "simulated": True}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command with two sources, "tars" and "folder", and returns what it prints."""
    (tmp_path / "mine").mkdir()
    for seed in range(3):
        (tmp_path / "mine" / f"{seed}.png").write_bytes(picture(seed))
    (tmp_path / "mine" / "small.png").write_bytes(b"no image")
    (tmp_path / "mine" / "notes.txt").write_bytes(b"text")
    rows = [{"image": "mine/1.png"}, {"image": "mine/9.png"}]
    (tmp_path / "llava.json").write_text(json.dumps(rows))
    raw = {
        "store": (tmp_path / "store").as_uri(),
        "teacher": model("t"),
        "judges": [model("a"), model("b")],
        "sources": {
            "folder": {"location": str(tmp_path / "mine")},
            "llava": {"location": f"llava:{tmp_path}/llava.json", "licence": "CC0-1.0"},
        },
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(raw))

    def ran(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments, "--settings", str(tmp_path / "settings.yaml")]) == code
        read = capsys.readouterr()
        return read.err if code else read.out

    return ran


def test_sources_by_kind_with_rejects_by_reason(run: Callable[..., str], tmp_path: Path) -> None:
    assert run("sources").splitlines() == [
        f"folder  file  not registered yet  {tmp_path}/mine",
        f"llava  llava  not registered yet  llava:{tmp_path}/llava.json",
    ]
    run("ingest", "--quiet")
    lines = run("sources").splitlines()
    assert lines[0].startswith("folder  file  3 images, 1 rejects (not an image 1), changed 20")
    assert lines[1] == "  left out: 1 by suffix (.txt 1; see `suffixes`)"
    assert "llava  llava  1 images, 1 rejects (unreadable 1), changed 20" in lines[2]
    listed = json.loads(run("sources", "--json"))["sources"]
    assert [(each["source"], each["kind"], each["images"], each["rejects"]) for each in listed] == [
        ("folder", "file", 3, {"not an image": 1}),
        ("llava", "llava", 1, {"unreadable": 1}),
    ]
    assert all(each["scanned"] > 1e9 for each in listed)


def test_a_look_shows_images_and_rejects_and_writes_nothing(run: Callable[..., str], tmp_path: Path) -> None:
    assert run("sources", "preview", "folder").splitlines() == [
        f"folder: 4 files of file at {tmp_path}/mine; the first are",
        "  0.png  40 x 40 png",
        "  1.png  40 x 40 png",
        "  2.png  40 x 40 png",
        "  small.png  REJECT not an image (no known image format)",
        "left out: 1 by suffix (.txt 1; see `suffixes`)",
        "Nothing was registered.",
    ]
    found = json.loads(run("sources", "preview", "llava", "--json"))
    assert [(each["file"], each["image"], each["licence"]) for each in found["first"]] == [
        ("mine/1.png", "40 x 40 png", "CC0-1.0")
    ]
    assert (found["broken"], found["first_broken"][0]["file"]) == (1, "mine/9.png")
    assert found["left_out"] == {"image that no entry names": 3}
    assert not (tmp_path / "store").exists()


def test_a_source_that_is_only_registered_can_be_looked_into(run: Callable[..., str], tmp_path: Path) -> None:
    run("ingest", "--quiet")
    raw = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({**raw, "sources": {}}))
    assert run("sources", "preview", "llava").startswith(f"llava: 2 files of llava at llava:{tmp_path}/llava.json")


def test_a_location_can_be_looked_into_with_options(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps([{"image": "2.png"}]))
    images = f"images={tmp_path}/mine"
    told = run("sources", "preview", f"sharegpt:{tmp_path}/b.json", "--option", images, "--limit", "1")
    assert "2.png  40 x 40 png" in told
    assert "is no option of the kind 'sharegpt'" in run(
        "sources", "preview", f"sharegpt:{tmp_path}/b.json", "--option", "x=y", code=1
    )
    assert "write NAME=VALUE" in run("sources", "preview", "folder", "--option", "x", code=1)
    assert "name a source of the settings" in run("sources", "preview", code=1)
    assert "is no folder" in run("sources", "preview", "nowhere", code=1)


def test_what_a_file_is_called_never_reaches_the_terminal_as_it_is(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine" / "\x1b[31m.png").write_bytes(picture(7))
    assert "\x1b" not in run("sources", "preview", "folder")


def test_every_kind_that_ships_is_there_and_names_its_options() -> None:
    for kind in SOURCES.shipped:
        opener = SOURCES.get(kind)
        assert callable(opener)
        assert all(isinstance(about, str) and about for about in getattr(opener, "options", {}).values())
        assert kind_of(f"{kind}:{'//' if kind in {'file', 's3'} else ''}x")[0] == kind
    assert kind_of("C:some folder") == ("file", "C:some folder")
