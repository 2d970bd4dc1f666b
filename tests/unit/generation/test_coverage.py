"""Coverage counts what a plain count over all rows counts, for any part of a run that was answered."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import coverage as module
from taskgalaxy_ops.generation.coverage import Coverage, ShardTables, counted, coverage
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two sources, which share an image, and two forms."""
    folders = {"one": tiny_images(tmp_path / "one", 6), "two": tiny_images(tmp_path / "two", 4, first=5)}
    return tiny_settings(
        folders["one"],
        sources={name: {"location": str(folder)} for name, folder in folders.items()},
        taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))},
        write={"variants": ["plain", "chain_of_thought"]},
    )


def ran(settings: Settings, last_stage: str = "vote") -> Workspace:
    workspace = tiny_workspace(settings)
    for source in settings.sources:
        pipeline.ingest(workspace, source)
    pipeline.generate(workspace, pipeline.RunOptions(last_stage=last_stage))
    return workspace


def plainly(workspace: Workspace) -> dict[str, dict[str, Counter[str]]]:
    """By "", source and form: by what is counted, the rows of each task type, one row at a time."""
    results = RunResults(workspace)
    found: dict[str, dict[str, Counter[str]]] = {}
    matches = [*((each.image, each.task_type, None) for each in results.relevant)]
    matches += [(each.image, each.task_type, None) for each in results.rejects if each.stage == "filter"]
    rows = {
        "matched": matches,
        "kept": [(each.image, each.task_type, None) for each in results.relevant],
        "pairs": [(each.image, each.task_type, each.variant) for each in results.pairs.values()],
        "samples": [(each.image, each.task_type, each.variant) for each in results.samples],
    }
    for what, those in rows.items():
        for image, path, form in those:
            names = {"", *(claim.source for claim in results.claims[image]), *([form] if form else [])}
            for name in names:
                found.setdefault(name, {}).setdefault(what, Counter())[path] += 1
    return found


def as_counters(found: Coverage) -> dict[str, dict[str, Counter[str]]]:
    parts = {"": found.counts, **found.by_source, **found.by_form}
    counters: dict[str, dict[str, Counter[str]]] = {}
    for name, counts in parts.items():
        for what in ("matched", "kept", "pairs", "samples"):
            own = Counter(dict(zip(found.types, getattr(counts, what).tolist(), strict=True)))
            if own := +own:
                counters.setdefault(name, {})[what] = own
    return counters


def test_every_task_type_source_and_form_is_counted(settings: Settings, tiny_models: TinyModels) -> None:
    workspace = ran(settings)
    found = coverage(workspace)
    assert as_counters(found) == plainly(workspace)
    assert found.types == tuple(sorted(TYPES))
    assert (found.images, found.waiting, found.pending) == (9, 0, 0)
    results = RunResults(workspace)
    fits_nothing = results.images.keys() - {each.image for each in results.relevant}
    assert found.unmatched == len(fits_nothing)
    assert {image for ids in found.drawn.values() for image in ids} == fits_nothing


def test_counting_in_small_parts_changes_nothing(
    settings: Settings, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = ran(settings)
    before = as_counters(coverage(workspace))
    monkeypatch.setattr(module, "_ROWS", 5)
    assert as_counters(coverage(workspace)) == before


@pytest.mark.parametrize("replies", [0, 3, 12, 25])
def test_what_has_no_answer_yet_is_pending_and_an_image_that_waits_is_not_called_unfit(
    settings: Settings, tiny_models: TinyModels, replies: int
) -> None:
    tiny_models.start(replies)
    workspace = ran(settings)
    found, results = coverage(workspace), RunResults(workspace)
    assert found.pending == results.pending > 0
    counters, plain = as_counters(found), plainly(workspace)
    for what in ("kept", "pairs", "samples"):
        assert counters[""].get(what) == plain.get("", {}).get(what)
    assert counters[""]["matched"].total() == 9 * settings.match.k
    answered = Counter(
        each.image for each in (*results.relevant, *results.rejects) if getattr(each, "stage", "filter") == "filter"
    )
    fit = {each.image for each in results.relevant}
    assert found.unmatched == sum(number == settings.match.k and image not in fit for image, number in answered.items())


def test_images_without_an_embedding_wait_and_nothing_is_encoded_or_written(
    settings: Settings, tiny_models: TinyModels, tmp_path: Path
) -> None:
    workspace = ran(settings)
    tiny_images(tmp_path / "one", 3, first=20)
    pipeline.ingest(workspace, "one")
    assert isinstance(workspace.store, MemoryStore)
    before, passes = dict(workspace.store.objects), workspace.encoder_passes
    found = coverage(workspace)
    assert (found.images, found.waiting) == (9, 3)
    assert workspace.encoder_passes == passes
    written = {key for key in workspace.store.objects if key not in before}
    assert all(key.startswith("cache/") for key in written)


def test_an_empty_store_has_task_types_and_no_images(settings: Settings) -> None:
    found = coverage(tiny_workspace(settings))
    assert (len(found.types), found.images, found.counts.sums()["samples"]) == (len(TYPES), 0, 0)


def test_images_that_were_taken_out_of_all_sources_do_not_count(settings: Settings, tiny_models: TinyModels) -> None:
    workspace = ran(settings)
    workspace.registry.remove("two")
    pipeline.generate(workspace)
    found = coverage(workspace)
    assert found.images == 6
    assert list(found.by_source) == ["one"]
    assert as_counters(found) == plainly(workspace)


def test_a_task_type_that_is_none_of_the_versions_is_an_error() -> None:
    rows = pa.table({"image": ["i"], "task_type": ["gone"]})
    forms = rows.append_column("variant", pa.array(["plain"]))
    shard = ShardTables(shard="s", matches=rows, relevant=rows, pairs=forms, samples=forms, sources={"one": {"i"}})
    with pytest.raises(ValueError, match="gone is no task type"):
        counted(["there"], [shard])
