"""Commands that only look work on a store that refuses every write, and try to write nothing but caches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import DamageError, ReadOnlyError, StoreError
from taskgalaxy_ops.generation.embed import encoded
from taskgalaxy_ops.generation.erase import ids_in
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.costs import costs
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.forecast import forecast
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.operations.verify import glance, verify
from taskgalaxy_ops.records import Image, begins_id, is_id, leading_id
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import Listed, Store, keys, open_store
from taskgalaxy_ops.storage.base import Content
from taskgalaxy_ops.storage.edits import Edits
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.shards import table
from taskgalaxy_ops.storage.snapshot import Snapshot, is_cache
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]


class RefusingStore:
    """A store whose every write fails, as one does whose reader has no right to write; it notes what was tried."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.url = store.url
        self.tried: list[str] = []

    def _refuse(self, key: str) -> StoreError:
        self.tried.append(key)
        return StoreError(f"no right to write {key}")

    def put_if_absent(self, key: str, data: Content) -> bool:
        raise self._refuse(key)

    def replace(self, key: str, data: bytes) -> None:
        raise self._refuse(key)

    def copy(self, key: str, to: str) -> None:
        raise self._refuse(to)

    def delete(self, key: str) -> None:
        raise self._refuse(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(key, start=start, length=length)

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        return self._store.list(prefix, after=after, ordered=ordered)

    def age(self, key: str) -> float:
        return self._store.age(key)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tiny_images(tmp_path / "images", 4)
    (folder / "broken.png").write_bytes(b"no image")
    return tiny_settings(folder, taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))})


@pytest.fixture
def workspace(
    settings: Settings, tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """Four images of one source in a folder, ingested."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power cut is tested here
    workspace = replace(tiny_workspace(settings), store=open_store(str(tmp_path / "store")))
    pipeline.ingest(_anew(workspace), "mine")
    return _anew(workspace)


def _anew(workspace: Workspace, store: Store | None = None) -> Workspace:
    return tiny_workspace(workspace.settings, store or workspace.store)  # type: ignore[arg-type]


def _run(workspace: Workspace) -> None:
    assert pipeline.generate(_anew(workspace)).pending == 0
    publish.publish(_anew(workspace))


def _objects(store: Store) -> dict[str, bytes]:
    return {each.key: store.get(each.key) for each in store.list("")}


def _look(workspace: Workspace, image: str | None) -> None:
    """Every command that only looks."""
    plan(workspace)
    status(workspace)
    forecast(workspace)
    for what in filter(None, [image, TYPES[0], "broken.png"]):
        explain(workspace, what)
    costs(workspace, task_types=True)
    contact_sheet.report_data(RunResults(workspace.snapshot()))
    TaxonomyStore(workspace).versions()
    assert verify(workspace).damage == []
    assert glance(workspace).damage == []


@pytest.mark.parametrize("how_far", ["ingested", "run", "a forget was begun", "new task types"])
def test_readers_write_nothing(workspace: Workspace, how_far: str) -> None:
    (shard, *_) = workspace.registry.shards()
    image = None
    if how_far != "ingested":
        _run(workspace)
        image = workspace.registry.image_ids(shard)[0]
    if how_far == "a forget was begun":
        unit = next(iter(Journal(workspace.store, shard.id).answers))
        body = {"kind": "forget", "edit": "e", "home": shard.id, "units": {"filter": [unit]}}
        Log(workspace.store, keys.EDITS_LOG).append(body)
    if how_far == "new task types":
        types = TaxonomyStore(workspace)
        types.publish(0, [*types.version().nodes[:-2]], [], "hand")
    for key in filter(is_cache, _objects(workspace.store)):
        workspace.store.delete(key)
    before = _objects(workspace.store)
    store = RefusingStore(workspace.store)
    _look(_anew(workspace, store), image)
    assert [key for key in store.tried if not is_cache(key)] == []
    assert _objects(workspace.store) == before

    _look(_anew(workspace), image)  # one who may write leaves caches
    after = _objects(workspace.store)
    assert {key: after[key] for key in after if not is_cache(key)} == {
        key: before[key] for key in before if not is_cache(key)
    }


def test_a_forget_that_was_begun_is_planned_as_the_run_will_do_it(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    _run(workspace)
    (shard, *_) = workspace.registry.shards()
    journal = Journal(workspace.store, shard.id)
    stages = {unit: reply["stage"] for unit, reply in journal.accepted_replies().items()}
    unit = next(unit for unit, stage in stages.items() if stage == "filter")
    body = {"kind": "forget", "edit": "e", "home": shard.id, "units": {"filter": [unit]}}
    Log(workspace.store, keys.EDITS_LOG).append(body)
    planned = {each.stage: each.units for each in plan(_anew(workspace)).stages}
    assert planned["filter"].low == planned["filter"].high == 1
    assert RunResults(_anew(workspace)).pending == 1
    assert "e" in Edits(workspace.store).begun()[shard.id]
    tiny_models.start(None)
    assert pipeline.generate(_anew(workspace)).pending == 0
    assert tiny_models.distinct("filter") == 1
    assert Edits(workspace.store).begun() == {}


def test_a_snapshot_refuses_all_writes_but_caches() -> None:
    store = MemoryStore()
    look = Snapshot(store)
    look.replace(keys.cache("a"), b"")
    look.replace(keys.tally("a"), b"")
    for write in (
        lambda: look.put_if_absent(keys.journal("a"), b""),
        lambda: look.replace(keys.LATEST, b""),
        lambda: look.copy(keys.cache("a"), keys.LATEST),
        lambda: look.delete(keys.blob("a")),
    ):
        with pytest.raises(ReadOnlyError):
            write()
    assert store.objects.keys() == {keys.cache("a"), keys.tally("a")}


def test_seeds_are_version_0_before_and_after_they_are_published(workspace: Workspace) -> None:
    types = TaxonomyStore(workspace)
    before = types.version(), types.versions(), [each.to_pylist() for each in types.node_columns(["path", "status"])]
    assert Log(workspace.store, keys.VERSIONS_LOG).read() == []
    types.ensure_seeds()
    types.ensure_seeds()
    after = types.version(), types.versions(), [each.to_pylist() for each in types.node_columns(["path", "status"])]
    assert len(Log(workspace.store, keys.VERSIONS_LOG).read()) == 1
    assert (before[0], before[2]) == (after[0], after[2])
    assert before[1] == [{name: after[1][0][name] for name in before[1][0]}]


# What else was mended on the way.


def test_an_image_shard_that_was_wholly_taken_down_meanwhile_is_embedded_as_empty(workspace: Workspace) -> None:
    (shard, *_) = workspace.registry.shards()
    shards, committed = [shard], {shard.id: workspace.stage_outputs.committed(shard.id)}
    workspace.registry.deny(workspace.registry.image_ids(shard), "meanwhile")
    found = encoded(workspace, shard, committed[shard.id])
    assert (found.ids, found.vectors.shape) == ((), (0, workspace.encoder.dim))
    (output,) = pipeline.embed(workspace, shards, committed).values()
    assert workspace.stage_outputs.load_embeddings(output)[0] == []
    matches = pipeline.match_shards(_anew(workspace), shards, committed)
    assert workspace.stage_outputs.refs(matches[shard.id])["matches"].rows == 0


def test_explain_counts_cached_and_reasoning_tokens_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(workspace)
    image = RunResults(workspace).samples[0].image
    read = Journal.replies
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 60, "reasoning_tokens": 15}
    monkeypatch.setattr(Journal, "replies", lambda journal: [{**reply, "usage": usage} for reply in read(journal)])
    found = explain(workspace, image)
    assert {match["filtered_by"]["tokens"] for match in found["matches"]} == {120}


@pytest.mark.parametrize("log", [keys.FORECASTS_LOG, keys.FINETUNE_LOG])
@pytest.mark.parametrize("check", [verify, glance])
def test_verify_reads_the_logs_that_status_reads(settings: Settings, log: str, check: object) -> None:
    workspace = tiny_workspace(settings)
    Log(workspace.store, log).append({"kind": "started", "key": "k"})
    (key,) = [key for key in workspace.store.objects if key.startswith(log)]  # type: ignore[attr-defined]
    workspace.store.replace(key, b"damaged")
    assert check(workspace).damage  # type: ignore[operator]


def test_other_settings_keep_store_and_run(settings: Settings) -> None:
    workspace = Workspace(settings, MemoryStore(), "a run")
    other = workspace.with_settings(match=type(settings.match)(k=7))
    assert (other.settings.match.k, workspace.settings.match.k) == (7, 3)
    assert (other.run, other.store) == ("a run", workspace.store)


def test_an_encoder_that_was_never_loaded_made_no_pass(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskgalaxy_ops.workspace.open_encoder", lambda *_: pytest.fail("it was loaded"))
    assert Workspace(settings, MemoryStore()).encoder_passes == 0
    workspace = tiny_workspace(settings)
    workspace.encoder.encode_texts(["a", "b"])
    assert workspace.encoder_passes == workspace.snapshot().encoder_passes == 2


def test_the_form_of_an_id() -> None:
    image = "0123456789abcdef" * 4
    assert is_id(image)
    assert not any(map(is_id, [image[:-1], image + "0", image.upper(), image[:-1] + "\n", ""]))
    assert begins_id("abcd", 4)
    assert not begins_id("abc", 4)
    assert not begins_id(image + "0", 4)
    assert leading_id(f"{image}.png") == image
    assert leading_id("picture.png") is None


def test_the_images_that_a_table_names() -> None:
    image = Image("a" * 64, 1, 2, "png", 3, "")
    assert ids_in(table([image], Image).raw) == {"a" * 64}
    assert ids_in(table([image], Image).raw, ("nothing",)) == set()
    with pytest.raises(DamageError):
        ids_in(b"no table")
