"""The demo itself, on a few images of one's own: servers, summary, a second run, and a death in the middle."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from taskgalaxy_ops.finetune.recipes import load_recipe

QUICK = ("--without-airflow", "--without-finetune")
IMAGES = 4
UNITS = 10  # a request
TYPES = 60  # an image
PROBED = TYPES // UNITS  # requests of the filter about the one image that the forecast looks at


@pytest.fixture(scope="module")
def mine(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options of a small demo: images of one's own, and settings that change the demo's.

    Fewer task types and units a request than in the demo: as many requests to be killed between, and less to ask.
    """
    folder = tmp_path_factory.mktemp("own")
    images = folder / "my own images"
    images.mkdir()
    for path in [*sorted((pictures / "shapes").glob("*.png"))[:3], min((pictures / "documents").glob("*.png"))]:
        (images / path.name).write_bytes(path.read_bytes())
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    recipe = folder / "quick.yaml"
    raw = {**load_recipe("tiny").model_dump(mode="json"), "blind_control": False}
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    settings = folder / "mine.yaml"
    changed = {
        "match": {"k": TYPES},
        "run": {"units_a_request": UNITS, "lease_seconds": 15},
        "finetune": {"recipe": str(recipe), "questions": 30},
    }
    settings.write_text(yaml.safe_dump(changed), encoding="utf-8")
    return "--source", str(images), "--settings", str(settings)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "taskgalaxy_ops.cli", "demo", "--folder", str(folder), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], folder: Path) -> tuple[dict[str, Any], str]:
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return summary, out


def kill(folder: Path, process: subprocess.Popen[str]) -> None:
    """The demo, its servers, Airflow's parts and their tasks: all at once, as when a machine loses power."""
    victims = [psutil.Process(pid) for pid in [process.pid, *running(folder)]]
    victims += [child for victim in victims for child in victim.children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.communicate()


def filter_reaches(folder: Path, process: subprocess.Popen[str], number: int) -> None:
    """Wait until the teacher was asked this often in the filter."""
    counts = folder / "simulator-stats.jsonl"
    while not counts.is_file() or counts.read_bytes().count(b'"stage":"filter"') < number:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def asked_twice(folder: Path) -> dict[str, int]:
    """Units that were asked more than once, and how often."""
    lines = (folder / "simulator-stats.jsonl").read_text("utf-8").splitlines()
    return {unit: n for unit, n in Counter(u for line in lines for u in json.loads(line)["units"]).items() if n > 1}


def running(folder: Path) -> list[int]:
    """The servers that the folder's state files name as running."""
    states = [json.loads(file.read_text("utf-8")) for file in folder.glob("*.service.json")]
    return [state["pid"] for state in states if state.get("pid")]


@pytest.fixture(scope="module")
def by_library(mine: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The demo without Airflow, killed once and gone on with: its folder, its summary, and what it said."""
    folder = tmp_path_factory.mktemp("by library") / "the demo"
    process = start(folder, *mine, *QUICK)
    try:
        filter_reaches(folder, process, PROBED + 8)
    finally:
        kill(folder, process)
    return folder, *finish(start(folder, *mine, *QUICK), folder)


def test_the_demo_runs_twice_and_goes_on_after_a_kill(
    mine: tuple[str, ...], by_library: tuple[Path, dict[str, Any], str]
) -> None:
    folder, first, out = by_library
    assert "stopped what an earlier run left behind" not in out  # all of it was killed
    assert "'broken.jpg': " in out
    assert first["sources"] == ["my own images"]
    assert first["images"] == IMAGES
    assert first["samples"] > 10
    assert first["rejects"]["ingest"]
    assert first["simulated"] is True
    assert first["release"]["made"] is True
    assert first["model_calls"] > 0
    assert first["lifetime"]["list_cost"] > 0 == first["cost"]
    assert "forecast  my own images: 1 of its 4 images answered in full" in out  # one in twenty is one
    assert first["forecast"] is None
    assert Path(first["contact_sheet"]).is_file()
    assert f"release:       {folder / 'release' / first['release']['version']}" in out
    assert "the fine-tune follows" not in out
    (manifest,) = (folder / "release").glob("v*/manifest.json")
    assert json.loads(manifest.read_text("utf-8"))["simulated"] is True
    assert running(folder) == []

    second, out = finish(start(folder, *mine, *QUICK), folder)
    assert (second["model_calls"], second["encoder_passes"]) == (0, 0)
    assert "forecast  nothing is left to ask" in out
    assert second["release"] == {**first["release"], "made": False}
    assert max(asked_twice(folder).values(), default=2) == 2
    assert (second["airflow"], second["scores"]) == (None, None)


def test_the_demo_through_airflow_goes_on_after_a_kill_of_everything(
    mine: tuple[str, ...], tmp_path: Path, by_library: tuple[Path, dict[str, Any], str]
) -> None:
    folder = tmp_path / "the demo"
    process = start(folder, *mine)
    try:
        filter_reaches(folder, process, PROBED + 2)  # the taxonomy's and the probe's answers are half a minute old
    finally:
        kill(folder, process)
    lines = [json.loads(line) for line in (folder / "simulator-stats.jsonl").read_text("utf-8").splitlines()]
    settled = {unit for line in lines if line["at"] < lines[-1]["at"] - 3 for unit in line["answered"]}

    found, out = finish(start(folder, *mine), folder)
    assert "'broken.jpg': " in out
    assert (found["images"], found["sources"], found["pending"]) == (IMAGES, ["my own images"], 0)
    assert found["release"]["made"] is True
    assert found["airflow"]["tasks"] > 10
    assert running(folder) == []
    # It ends with a fine-tune on what there is: few images, so no verdict, and a loss that has fallen.
    if find_spec("trl"):
        # Where release and contact sheet are is said before that, not at the end.
        said = [out.index(text) for text in ("release:       ", "contact sheet: ", "the fine-tune follows")]
        assert sorted(said) == said
        assert said[-1] < out.index("galaxy_finetune")
        assert found["scores"]["loss"]["after"]["last"] < found["scores"]["loss"]["after"]["first"] / 2
        assert {each["benchmark"] for each in found["scores"]["benchmarks"]} >= {"easy-vqa"}
    twice = asked_twice(folder)
    assert max(twice.values(), default=2) == 2
    # Nothing that had been answered three seconds before the kill: journals are written each second.
    assert settled
    assert not settled.intersection(twice)

    # What Airflow made is what the library makes: the same bytes.
    _, alone, _ = by_library
    assert found["release"]["sha256"] == alone["release"]["sha256"]
    assert (found["samples"], found["task_types"], found["rejects"]["filter"], found["rejects"]["vote"]) == (
        *(alone["samples"], alone["task_types"], alone["rejects"]["filter"], alone["rejects"]["vote"]),
    )


def test_a_source_that_is_no_folder_is_named(tmp_path: Path) -> None:
    process = start(tmp_path / "demo", "--source", str(tmp_path / "nowhere"))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SOURCE: " in out
    assert "nowhere is no folder" in out
