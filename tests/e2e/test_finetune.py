"""A real training of the tiny model, from the command line: falling loss, checkpoint, scores that mean something."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from releases import COLOURS, released, workspace

from e2e.galaxies import Commands
from taskgalaxy_ops.finetune import run as finetune_run
from taskgalaxy_ops.finetune.backends.local import LocalBackend
from taskgalaxy_ops.finetune.jobs import State
from taskgalaxy_ops.finetune.recipes import load_recipe
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="the extra `train` is not installed")


def test_a_fine_tune_from_the_command_line(tmp_path: Path, commands: Commands) -> None:
    store = workspace(tmp_path)
    released(store)
    recipe = tmp_path / "quick.yaml"
    raw = {**load_recipe("tiny").model_dump(mode="json"), "name": "quick", "epochs": 12}
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    command = ("finetune", "--recipe", str(recipe), "--evaluate", "held-out")

    # Killed with all of its group while the first job runs: as a worker that dies.
    with commands.start(store.settings, *command) as first:
        tuning = finetune_run.tuning(store, recipe=str(recipe))
        give_up = time.monotonic() + 60
        while LocalBackend().state(tuning.jobs["before"], None) is not State.RUNNING:
            assert first.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
    assert LocalBackend().state(tuning.jobs["before"], None) is State.RUNNING  # … and the job lives on

    found = commands.here(store.settings, *command)
    entries = Log(store.store, keys.FINETUNE_LOG).read()
    # Each job was started once. (The kill may fall between an intent and its submission; then there are two intents.)
    assert Counter(entry.body["key"] for entry in entries if entry.body["kind"] == "submitted") == Counter(
        job.key for job in tuning.jobs.values()
    )
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
    assert commands.here(store.settings, *command) == found
    assert len(Log(store.store, keys.FINETUNE_LOG).read()) == len(entries)


def _local(folder: Path, key: str) -> Path:
    return folder / "store" / key
