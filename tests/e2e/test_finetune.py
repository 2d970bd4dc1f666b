"""A real training of the tiny model, from the command line: falling loss, checkpoint, scores that mean something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from releases import COLOURS, released, workspace

from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.backends.local import LocalBackend
from taskgalaxy_ops.finetune.jobs import State
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log

pytest.importorskip("trl", reason="the extra `train` is not installed")


def test_a_fine_tune_from_the_command_line(tmp_path: Path) -> None:
    store = workspace(tmp_path)
    released(store)
    recipe = tmp_path / "quick.yaml"
    raw = {**load_recipe("tiny").model_dump(mode="json"), "name": "quick", "epochs": 12}
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(store.settings.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "taskgalaxy_ops.cli", "finetune", "--settings", str(settings)]
    command += ["--recipe", str(recipe), "--evaluate", "held-out"]

    # Killed with all of its group while the first job runs: as a worker that dies.
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as first:
        tuning = finetune_run.tuning(store, recipe=str(recipe))
        give_up = time.monotonic() + 60
        while LocalBackend().state(tuning.jobs["before"], None) is not State.RUNNING:
            assert first.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
    assert LocalBackend().state(tuning.jobs["before"], None) is State.RUNNING  # … and the job lives on

    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    entries = Log(store.store, keys.FINETUNE_LOG).read()
    assert sum(entry.body["kind"] == "intent" for entry in entries) == 3  # each job was started once
    for role in ("before", "after", "blind"):
        assert found["loss"][role]["last"] < found["loss"][role]["first"] / 2
    (whole, *_) = found["benchmarks"]
    scores = {name: value["value"] for name, value in whole["scores"].items()}
    # Flat colours are learnt in seconds; and only by looking.
    assert scores["TaskGalaxy"] > scores["Baseline"] + 0.2
    assert scores["TaskGalaxy"] > scores["TaskGalaxy, images swapped"] + 0.2
    assert scores["TaskGalaxy"] > scores["TaskGalaxy without images"] + 0.1
    assert whole["verdict"] == "a gain in seeing"
    assert "plumbing" in found["note"]

    kept = [each.key for each in store.store.list("finetune/scores/")]
    (table,) = [key for key in kept if key.endswith(".parquet")]
    assert {"TaskGalaxy", "Majority answer"} <= set(pq.read_table(_local(tmp_path, table))["method"].to_pylist())
    (card,) = store.store.list("reports/finetune-")
    page = store.store.get(card.key).decode()
    assert "SIMULATED" in page
    assert page.count("data:image/svg+xml") == 2

    # The checkpoint is one that transformers loads, and it speaks.
    from taskgalaxy_ops.evaluate.rank import Ranker

    results = finetune_run.results(store, tuning.jobs)
    copy = finetune_run.release_copy(store, None)
    row = next(row for row in copy.rows("train") if row["task_type"].startswith("colour"))
    assert Ranker(results["after"]["checkpoint"]).generate(copy.image(row), "What colour is it?") in COLOURS

    # Again: nothing is trained or scored anew.
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(again.stdout) == found
    assert len(Log(store.store, keys.FINETUNE_LOG).read()) == len(entries)


def _local(folder: Path, key: str) -> Path:
    return folder / "store" / key
