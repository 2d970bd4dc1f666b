"""The demo itself, on a few images of one's own: servers, summary, a second run, and a death in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def images(pictures: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "my own images"
    folder.mkdir()
    for path in [*(pictures / "shapes").glob("*.png"), *sorted((pictures / "documents").glob("*.png"))[:2]]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return folder


def start(folder: Path, images: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "taskgalaxy_ops.cli", "demo", "--folder", str(folder), "--source", str(images)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], folder: Path) -> tuple[dict[str, Any], str]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return summary, out


def running(folder: Path) -> list[int]:
    """The servers that the folder's state files name as running."""
    states = [json.loads(file.read_text("utf-8")) for file in folder.glob("*.service.json")]
    return [state["pid"] for state in states if state.get("pid")]


def test_the_demo_runs_twice_and_goes_on_after_a_kill(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "the demo"
    process = start(folder, images)
    counts = folder / "simulator-stats.jsonl"
    try:
        while not counts.is_file() or len(counts.read_bytes().splitlines()) < 70:  # some way into the filter
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
    finally:
        for pid in [process.pid, *running(folder)]:
            os.killpg(pid, signal.SIGKILL)
        process.communicate()

    first, out = finish(start(folder, images), folder)
    assert "stopped what an earlier run left behind" not in out  # all of it was killed
    assert "'broken.jpg': " in out
    assert first["sources"] == ["my own images"]
    assert first["images"] == 6
    assert first["samples"] > 10
    assert first["rejects"]["ingest"]
    assert first["simulated"] is True
    assert first["release"]["made"] is True
    assert first["model_calls"] > 0
    assert first["lifetime"]["list_cost"] > 0 == first["cost"]
    assert Path(first["contact_sheet"]).is_file()
    (manifest,) = (folder / "release").glob("v*/manifest.json")
    assert json.loads(manifest.read_text("utf-8"))["simulated"] is True
    assert running(folder) == []

    second, out = finish(start(folder, images), folder)
    assert (second["model_calls"], second["encoder_passes"]) == (0, 0)
    assert second["release"] == {**first["release"], "made": False}
    asked = Counter(unit for line in counts.read_text("utf-8").splitlines() for unit in json.loads(line)["units"])
    assert max(asked.values()) <= 2


def test_a_source_that_is_no_folder_is_named(tmp_path: Path) -> None:
    process = start(tmp_path / "demo", tmp_path / "nowhere")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SOURCE: " in out
    assert "nowhere is no folder" in out
