"""``match.prefer_starving``: what it reads is numbered and named in keys, so that new images re-key nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.coverage import as_entry, coverage
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.starving import entry, handicaps, record
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.storage.coverage_log import CoverageEntry, CoverageLog
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

PREFERRED = {"k": 3, "prefer_starving": 0.4}


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Opens the store under a match setting, as a new process would."""
    folder, store = tiny_images(tmp_path / "images", 8), MemoryStore()
    seeds = str(tiny_seeds(tmp_path / "seeds.yaml"))

    def open_(**match: Any) -> Workspace:
        return tiny_workspace(tiny_settings(folder, match=match or {"k": 3}, taxonomy={"seeds": seeds}), store)

    return open_


def run(workspace: Workspace) -> RunResults:
    pipeline.ingest(workspace, "mine")
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons
    return RunResults(workspace, result)


def markers(workspace: Workspace, stage: str) -> set[str]:
    found = (listed.key for listed in workspace.store.list("homes/"))
    return {key for key in found if f"/markers/{stage}." in key}


def test_off_reads_and_records_nothing(opened: Any, tiny_models: TinyModels) -> None:
    workspace = opened()
    run(workspace)
    assert handicaps(workspace) is None
    assert not list(workspace.store.list("coverage/"))
    [body, *_] = [workspace.stage_outputs.marker(each) for each in _outputs(workspace, "match")]
    assert "coverage entry" not in body["made_of"]


def _outputs(workspace: Workspace, stage: str) -> list[Any]:
    shards = workspace.registry.shards()
    return [one for shard in shards for one in workspace.stage_outputs.all(shard.id) if one.stage == stage]


def test_switched_on_the_first_run_records_what_plain_matching_gave(opened: Any, tiny_models: TinyModels) -> None:
    run(opened())
    before = coverage(opened())
    planned = {each.stage: each.units for each in plan(opened(**PREFERRED)).stages}
    assert CoverageLog(opened().store).newest() is None, "a plan records nothing"
    tiny_models.start(None)
    results = run(opened(**PREFERRED))
    newest = CoverageLog(opened().store).newest()
    assert newest is not None
    assert (newest.number, newest.samples) == (1, as_entry(before).samples)
    assert planned["filter"].exact
    assert tiny_models.distinct("filter") == planned["filter"].low
    # Task types that had many have fewer matches than before, those that had few have more.
    rows = zip(before.types, before.counts.matched, coverage(opened(**PREFERRED)).counts.matched, strict=True)
    moved = Counter({path: int(now) - int(then) for path, then, now in rows})
    had = newest.samples
    assert sum(moved[path] * had.get(path, 0) for path in moved) < 0
    assert sum(moved.values()) == 0
    assert results.count("filter", "relevant")
    assert verify(opened(**PREFERRED)).damage == []


def test_a_new_image_changes_no_other_images_matches(opened: Any, tiny_models: TinyModels, tmp_path: Path) -> None:
    run(opened())
    run(opened(**PREFERRED))
    there, asked = markers(opened(), "match"), tiny_models.distinct("filter")
    tiny_images(tmp_path / "images", 2, first=50)
    run(opened(**PREFERRED))
    added = markers(opened(), "match") - there
    assert len(added) == 1
    assert tiny_models.distinct("filter") == asked + 2 * 3
    again = tiny_models.requests
    run(opened(**PREFERRED))
    assert tiny_models.requests == again


def test_recording_again_matches_anew_only_if_the_numbers_are_others(opened: Any, tiny_models: TinyModels) -> None:
    run(opened())
    run(opened(**PREFERRED))
    workspace = opened(**PREFERRED)
    first = entry(workspace)
    assert record(workspace, first) == first
    there = markers(workspace, "match")
    second = record(workspace, as_entry(coverage(workspace)))
    assert second.number == 2
    [why] = [each.why for each in plan(opened(**PREFERRED)).stages if each.stage == "match"]
    assert list(why) == ["coverage entry 1 -> 2"]
    run(opened(**PREFERRED))
    assert markers(workspace, "match") - there
    # Back to the first numbers: the keys are those of before, and nothing is made or asked.
    assert record(opened(**PREFERRED), first).number == 3
    there, asked = markers(workspace, "match"), tiny_models.requests
    run(opened(**PREFERRED))
    assert (markers(workspace, "match"), tiny_models.requests) == (there, asked)


def test_of_two_runs_that_record_the_first_entry_one_counts(opened: Any) -> None:
    workspace = opened(**PREFERRED)
    assert record(workspace, CoverageEntry(0, 0, {"ocr~ocr a": 5}), first=True).number == 1
    other = record(opened(**PREFERRED), CoverageEntry(0, 0, {"ocr~ocr a": 7}), first=True)
    assert (other.number, other.samples) == (1, {"ocr~ocr a": 5})
    assert handicaps(workspace) == {"ocr~ocr a": pytest.approx(0.4 * 0.778151, abs=1e-6)}
