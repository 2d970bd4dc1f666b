"""Status, explain and the quick verify: what they tell, and how little of the store they read for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline, text
from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.operations.verify import glance
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.reports.text import explain as explain_text
from taskgalaxy_ops.reports.text import status as status_text
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.snapshot import Snapshot
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

IMAGES = 8


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tiny_images(tmp_path / "images", IMAGES)
    (folder / "broken.png").write_bytes(b"no image")
    return tiny_settings(folder, taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))})


@pytest.fixture
def workspace(settings: Settings, tiny_models: TinyModels) -> Workspace:
    """Eight images in four shards, run and released."""
    workspace = tiny_workspace(settings)
    pipeline.ingest(workspace, "mine")
    assert pipeline.generate(workspace).pending == 0
    publish.publish(workspace)
    tiny_models.start(None)
    return workspace


def reads(workspace: Workspace, look: Callable[[], Any]) -> Counter[str]:
    """What a look reads, by the kind of object."""
    found: Counter[str] = Counter()
    store = workspace.store
    assert isinstance(store, MemoryStore)

    def note(operation: str, key: str) -> None:
        kind = "markers" if "/markers/" in key else "journals" if "/journal/" in key else key.split("/")[0]
        if operation == "get":
            found[kind] += 1
        elif operation == "list" and key.startswith("homes/"):
            found["listings of homes"] += 1

    store.before = note
    try:
        look()
    finally:
        store.before = lambda operation, key: None
    return found


def test_status_tells_sources_and_stages(workspace: Workspace) -> None:
    found = status(workspace)
    results = RunResults(workspace)
    (source,) = found.sources
    assert (source.images, source.rejects, source.shards, source.shards_done) == (IMAGES, 1, 4, 4)
    there = {each.stage: each for each in found.stages}
    for counts in results.funnel:
        one = there[counts.stage]
        assert (one.shards_there, one.pending) == (one.shards, 0)
        assert (one.units_in, one.units_out, one.rejects) == (counts.units_in, counts.units_out, counts.rejects)
    for stage, tally in results.paid.by_stage.items():
        assert (there[stage].calls, there[stage].tokens) == (tally.calls, tally.tokens)
    assert (found.pending, found.images, found.simulated) == (0, IMAGES, True)
    text = "\n".join(status_text.status(found))
    assert "1 not an image" in text
    assert "release   v000001" in text


def test_status_of_a_run_that_was_stopped(settings: Settings, tiny_models: TinyModels) -> None:
    workspace = tiny_workspace(settings)
    assert "source    none yet" in "\n".join(status_text.status(status(workspace)))
    pipeline.ingest(workspace, "mine")
    tiny_models.start(5)
    assert pipeline.generate(workspace).pending
    found = status(tiny_workspace(settings, workspace.store))
    there = {each.stage: each for each in found.stages}
    assert there["match"].pending == 0
    assert there["vote"].pending is None
    assert found.pending is None
    assert found.sources[0].shards_done < 4
    said = "\n".join(status_text.status(found))
    assert "pending   filter: " in said and " matches, not asked yet" in said
    assert "          `taskgalaxy plan` says how much may follow from it" in said


def test_status_names_trainings_that_have_not_ended(workspace: Workspace) -> None:
    log = Log(workspace.store, keys.FINETUNE_LOG)
    for kind, key in (("intent", "a"), ("submitted", "a"), ("intent", "b"), ("ended", "a")):
        log.append({"kind": kind, "key": key, "run": "r"})
    log.append({"kind": "scored", "identity": "x", "model": "m"})
    assert status(workspace).finetunes == ["b"]


def test_looking_reads_no_shard_and_no_journal(workspace: Workspace, settings: Settings) -> None:
    """What the registry reads of image tables apart: plan and status take what markers say from one object."""
    for look in (status, plan, glance):
        fresh = tiny_workspace(settings, workspace.store)
        found = reads(fresh, lambda look=look, fresh=fresh: look(fresh))  # type: ignore[misc]
        assert found["markers"] == found["journals"] == 0, look
        assert found["cache"] == (2 if look is plan else 1), look  # markers; and what the latest release was made of
        assert found["listings of homes"] == 17, look  # in parallel parts, whatever the number of image shards


def test_what_markers_say_is_read_once_more_where_it_was_lost(workspace: Workspace, settings: Settings) -> None:
    before = status(workspace)
    workspace.store.delete(keys.cache("markers.json"))
    markers = sum("/markers/" in key and "/markers/ingest." not in key for key in workspace.store.objects)  # type: ignore[attr-defined]
    assert reads(workspace, lambda: status(workspace))["markers"] == markers
    assert reads(workspace, lambda: status(workspace))["markers"] == 0
    for spoilt in (b"", b"no gzip", b"\x1f\x8b"):
        workspace.store.replace(keys.cache("markers.json"), spoilt)
        assert status(tiny_workspace(settings, workspace.store)) == before


def test_a_marker_that_was_deleted_counts_no_more(workspace: Workspace) -> None:
    status(workspace)
    gone = next(key for key in workspace.store.objects if "/markers/vote." in key)  # type: ignore[attr-defined]
    workspace.store.delete(gone)
    (vote,) = (each for each in status(workspace).stages if each.stage == "vote")
    assert vote.shards_there == 3
    assert {each.stage: (each.shards_there, each.units.high) for each in plan(workspace).stages}["vote"] == (3, 0)


# explain


def test_a_samples_story_names_who_said_what(workspace: Workspace) -> None:
    results = RunResults(workspace)
    sample = results.samples[0]
    found = explain(workspace, sample.pair[:10])
    (match,) = found["matches"]
    (pair,) = match["pairs"]
    assert (pair["pair"], pair["accepted"], pair["releases"]) == (sample.pair, True, ["v000001"])
    assert match["fits"]
    assert [vote["judge"] for vote in pair["votes"]] == [vote.judge for vote in results.votes[sample.pair]]
    journal = Journal(workspace.store, _shard(workspace, sample.image))
    replies = {reply["raw"]["id"]: reply for reply in journal.replies()}
    steps = {"filter": match["filtered_by"], "write_plain": pair["written_by"]}
    for prompt, by in [*steps.items(), *(("vote", vote["by"]) for vote in pair["votes"])]:
        reply = replies[by["request"]]
        assert (by["model"], by["prompt"], by["reply"]) == (reply["model"], prompt, reply["reply"])
        assert by["tokens"] == sum(reply["usage"].values())
    text = "\n".join(explain_text.explained(found))
    assert f"SAMPLE pair {sample.pair[:12]}" in text
    assert f"request {steps['filter']['request']}" in text
    assert "released in v000001" in text


def _shard(workspace: Workspace, image: str) -> str:
    return next(
        shard.id
        for shard in workspace.registry.shards()
        if image in {each.image for each in workspace.registry.images(shard)}
    )


def test_what_fell_out_says_where_and_why(workspace: Workspace) -> None:
    results = RunResults(workspace)
    told: Counter[str] = Counter()
    for image in results.images:
        for match in explain(workspace, image)["matches"]:
            told.update(f"{reject['stage']}: {reject['reason']}" for reject in match["rejected"])
            told.update(f"vote: {pair['reason']}" for pair in match["pairs"] if not pair["accepted"])
            assert all(reject["by"] or reject["stage"] == "filter" for reject in match["rejected"])
    assert told == Counter(f"{reject.stage}: {reject.reason}" for reject in results.rejects)
    assert {"filter: not fitting", "write: declined", "vote: below quorum"} <= set(told)
    reject = next(reject for reject in results.rejects if reject.pair)
    assert "OUT at vote (below quorum): pair" in "\n".join(explain_text.explained(explain(workspace, str(reject.pair))))


def test_a_sample_that_a_release_left_out_says_why(workspace: Workspace, settings: Settings) -> None:
    release = {**settings.release.model_dump(mode="json"), "cap": 1}
    capped = tiny_workspace(settings.model_copy(update={"release": type(settings.release)(**release)}), workspace.store)
    assert publish.publish(capped).made
    results = RunResults(capped)
    fates: Counter[str | None] = Counter()
    for sample in results.samples:
        ((pair,),) = (match["pairs"] for match in explain(capped, sample.pair)["matches"])
        assert ("v000002" in pair["releases"]) == (pair["not_released"] is None)
        fates[pair["not_released"]] += 1
    assert fates["over the cap (release.cap is 1)"] > 0
    assert fates[None] == publish.published(capped)[-1].samples
    workspace.store.delete(keys.cache("left-out-000002.parquet"))  # it is worked out again
    again = Counter(
        pair["not_released"]
        for sample in results.samples
        for match in explain(capped, sample.pair)["matches"]
        for pair in match["pairs"]
    )
    assert again == fates


def test_a_task_types_story_adds_up(workspace: Workspace) -> None:
    results = RunResults(workspace)
    for path in TYPES:
        found = explain(workspace, path.split("~")[-1])
        rejects = Counter(f"{r.stage}: {r.reason}" for r in results.rejects if r.task_type == path)
        assert found["task_type"] == path
        assert found["rejected"] == dict(sorted(rejects.items()))
        assert found["fitting"] == sum(row.task_type == path for row in results.relevant)
        assert found["matched"] == found["fitting"] + rejects["filter: not fitting"]
        assert found["written"] == sum(pair.task_type == path for pair in results.pairs.values())
        assert found["accepted"] == sum(pair.task_type == path for pair in results.samples)
        assert sum(found["releases"].values()) <= found["accepted"]
    assert "version 0 (seeds): added, origin seed" in "\n".join(explain_text.explained(found))
    taxonomy_store = TaxonomyStore(workspace)
    taxonomy_store.publish(0, taxonomy_store.version().retire(TYPES[0]).nodes, [], "hand")
    found = explain(workspace, TYPES[0])
    assert [(each["version"], each["what"]) for each in found["history"]] == [(0, "added"), (1, "retired")]
    assert found["unfinished_shards"] > 0  # matches are to be made anew


def test_names_that_say_nothing_or_too_much(workspace: Workspace) -> None:
    assert explain(workspace, "broken.png")["rejected"][0]["reason"] == "not an image"
    assert explain(workspace, "000.png")["image"]["width"] == 16
    with pytest.raises(TaskGalaxyError, match="explain 'nothing': 0 things go by that name"):
        explain(workspace, "nothing")
    taxonomy_store = TaxonomyStore(workspace)
    nodes = [*taxonomy_store.version().nodes]
    twin = next(node for node in nodes if node.path == TYPES[0])
    double = [*nodes, type(twin)("colour~ocr a", 2, "hand", "live")]
    taxonomy_store.publish(0, double, [], "hand")
    with pytest.raises(TaskGalaxyError, match="2 things go by that name: task type colour~ocr a; task type ocr~ocr a"):
        explain(workspace, "ocr a")


def test_an_image_that_nobody_claims_and_a_pair_of_former_settings(workspace: Workspace, settings: Settings) -> None:
    sample = RunResults(workspace).samples[0]
    other = settings.model_copy(update={"write": type(settings.write)(variants=("chain_of_thought",))})
    found = explain(tiny_workspace(other, workspace.store), sample.pair)
    assert found["former"]["changed"] == [
        "prompt write_chain_of_thought",
        "prompt write_plain",
        "variants plain -> chain_of_thought",
    ]
    assert [match["waits_for"] for match in found["matches"]] == [["write (chain_of_thought)"]]
    text = "\n".join(explain_text.explained(found))
    assert "is of a former stage output" in text
    assert "PENDING: write (chain_of_thought) has not been answered" in text
    workspace.registry.remove("mine")
    assert "no source claims it any more" in "\n".join(explain_text.explained(explain(workspace, sample.image)))


def test_after_a_forget_the_request_is_the_new_one(workspace: Workspace, tiny_models: TinyModels) -> None:
    sample = RunResults(workspace).samples[0]
    (match,) = explain(workspace, sample.pair)["matches"]
    shard = _shard(workspace, sample.image)
    journal = Journal(workspace.store, shard)
    reply = match["pairs"][0]["written_by"]["reply"]
    forgotten = [unit for unit, source in journal.sources.items() if source == reply]
    workspace.edits().forget(shard, {"write": forgotten})
    tiny_models.requests = 1000
    assert pipeline.generate(tiny_workspace(workspace.settings, workspace.store)).pending == 0
    (match,) = explain(workspace, sample.pair)["matches"]
    assert match["pairs"][0]["written_by"]["request"] == "tiny-1001"


def test_explaining_reads_one_image_shard_however_many_there_are(workspace: Workspace) -> None:
    sample = RunResults(workspace).samples[0]
    for what in (sample.pair, sample.image, sample.task_type, "000.png"):
        explain(workspace, what)  # makes the lookups
        found = reads(workspace, lambda what=what: explain(workspace, what))  # type: ignore[misc]
        assert found["listings of homes"] == 17
        assert found["markers"] <= 12, "those of one home"
        assert found["journals"] <= 8


def test_what_models_write_cannot_steer_a_terminal() -> None:
    hostile = "a\x1b[2J\u202eb\nSAMPLE pair\x07 c"
    assert text.shown(hostile) == "a[2Jb SAMPLE pair c"


# verify --quick


def test_a_glance_finds_what_is_gone(workspace: Workspace) -> None:
    assert glance(workspace).damage == []
    table = next(key for key in workspace.store.objects if key.startswith("data/"))  # type: ignore[attr-defined]
    picture = next(key for key in workspace.store.objects if key.startswith("releases/v000001/images/"))  # type: ignore[attr-defined]
    workspace.store.replace(picture, b"cut")
    workspace.store.delete(table)
    damage = glance(workspace).damage
    assert any(table in line and "is gone" in line for line in damage)
    assert any(picture in line for line in damage)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_snapshot_lists_what_the_store_does(kind: str, folder_store: Store) -> None:
    store = MemoryStore() if kind == "memory" else folder_store
    names = [
        f"homes/{shard}/{part}" for shard in ("0a", "0b", "f", "taxonomy") for part in ("journal/e/1", "markers/m.1")
    ]
    for name in [*names, "homesick/1", "data/00/x"]:
        store.put_if_absent(name, b"")
    seen = Snapshot(store)
    for prefix in ("homes/", "homes/0", "homes/0a/", "homes/0a/markers/", "homes/taxonomy/", "homes/9", "data/", ""):
        for after in ("", "homes/0a/markers/m.1", "homes/f/journal/e/1"):
            assert [x.key for x in seen.list(prefix, after=after)] == [x.key for x in store.list(prefix, after=after)]
    store.put_if_absent("homes/0a/markers/m.2", b"")
    assert "homes/0a/markers/m.2" not in [each.key for each in seen.list("homes/")]
    assert seen.get("homes/0a/markers/m.2") == b""
