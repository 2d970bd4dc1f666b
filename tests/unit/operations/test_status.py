"""Status, explain and the quick verify: what they tell, and how little of the store they read for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TYPES, TinyModels, tiny_galaxy, tiny_images, tiny_models, tiny_seeds, tiny_settings

from taskgalaxy_ops import pipeline, text
from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.generation.results import Harvest
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
from taskgalaxy_ops.taxonomy.store import Catalogue
from taskgalaxy_ops.workspace import Galaxy

__all__ = ["tiny_models"]

IMAGES = 8


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tiny_images(tmp_path / "images", IMAGES)
    (folder / "broken.png").write_bytes(b"no image")
    return tiny_settings(folder, taxonomy={"seeds": str(tiny_seeds(tmp_path / "seeds.yaml"))})


@pytest.fixture
def galaxy(settings: Settings, tiny_models: TinyModels) -> Galaxy:
    """Eight images in four shards, run and released."""
    galaxy = tiny_galaxy(settings)
    pipeline.ingest(galaxy, "mine")
    assert pipeline.generate(galaxy).pending == 0
    publish.publish(galaxy)
    tiny_models.start(None)
    return galaxy


def reads(galaxy: Galaxy, look: Callable[[], Any]) -> Counter[str]:
    """What a look reads, by the kind of object."""
    found: Counter[str] = Counter()
    store = galaxy.store
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


def test_status_tells_sources_and_stages(galaxy: Galaxy) -> None:
    found = status(galaxy)
    harvest = Harvest(galaxy)
    (source,) = found.sources
    assert (source.images, source.rejects, source.shards, source.shards_done) == (IMAGES, 1, 4, 4)
    there = {each.stage: each for each in found.stages}
    for counts in harvest.funnel:
        one = there[counts.stage]
        assert (one.shards_there, one.pending) == (one.shards, 0)
        assert (one.units_in, one.units_out, one.rejects) == (counts.units_in, counts.units_out, counts.rejects)
    for stage, tally in harvest.paid.by_stage.items():
        assert (there[stage].calls, there[stage].tokens) == (tally.calls, tally.tokens)
    assert (found.pending, found.images, found.simulated) == (0, IMAGES, True)
    text = "\n".join(status_text.status(found))
    assert "1 not an image" in text
    assert "release   v000001" in text


def test_status_of_a_run_that_was_stopped(settings: Settings, tiny_models: TinyModels) -> None:
    galaxy = tiny_galaxy(settings)
    assert "source    none yet" in "\n".join(status_text.status(status(galaxy)))
    pipeline.ingest(galaxy, "mine")
    tiny_models.start(5)
    assert pipeline.generate(galaxy).pending
    found = status(tiny_galaxy(settings, galaxy.store))
    there = {each.stage: each for each in found.stages}
    assert there["match"].pending == 0
    assert there["vote"].pending is None
    assert found.pending is None
    assert found.sources[0].shards_done < 4
    assert "`taskgalaxy plan` says how much" in "\n".join(status_text.status(found))


def test_status_names_trainings_that_have_not_ended(galaxy: Galaxy) -> None:
    log = Log(galaxy.store, keys.FINETUNE_LOG)
    for kind, key in (("intent", "a"), ("submitted", "a"), ("intent", "b"), ("ended", "a")):
        log.append({"kind": kind, "key": key, "run": "r"})
    log.append({"kind": "scored", "identity": "x", "model": "m"})
    assert status(galaxy).finetunes == ["b"]


def test_looking_reads_no_shard_and_no_journal(galaxy: Galaxy, settings: Settings) -> None:
    """What the registry reads of image tables apart: plan and status take what markers say from one object."""
    for look in (status, plan, glance):
        fresh = tiny_galaxy(settings, galaxy.store)
        found = reads(fresh, lambda look=look, fresh=fresh: look(fresh))  # type: ignore[misc]
        assert found["markers"] == found["journals"] == 0, look
        assert found["cache"] == 1, look
        assert found["listings of homes"] == 17, look  # in parallel parts, whatever the number of homes


def test_what_markers_say_is_read_once_more_where_it_was_lost(galaxy: Galaxy, settings: Settings) -> None:
    before = status(galaxy)
    galaxy.store.delete(keys.cache("markers.json"))
    markers = sum("/markers/" in key and "/markers/ingest." not in key for key in galaxy.store.objects)  # type: ignore[attr-defined]
    assert reads(galaxy, lambda: status(galaxy))["markers"] == markers
    assert reads(galaxy, lambda: status(galaxy))["markers"] == 0
    for spoilt in (b"", b"no gzip", b"\x1f\x8b"):
        galaxy.store.replace(keys.cache("markers.json"), spoilt)
        assert status(tiny_galaxy(settings, galaxy.store)) == before


def test_a_marker_that_was_deleted_counts_no_more(galaxy: Galaxy) -> None:
    status(galaxy)
    gone = next(key for key in galaxy.store.objects if "/markers/vote." in key)  # type: ignore[attr-defined]
    galaxy.store.delete(gone)
    (vote,) = (each for each in status(galaxy).stages if each.stage == "vote")
    assert vote.shards_there == 3
    assert {each.stage: (each.shards_there, each.units.high) for each in plan(galaxy).stages}["vote"] == (3, 0)


# explain


def test_a_samples_story_names_who_said_what(galaxy: Galaxy) -> None:
    harvest = Harvest(galaxy)
    sample = harvest.samples[0]
    found = explain(galaxy, sample.pair[:10])
    (match,) = found["matches"]
    (pair,) = match["pairs"]
    assert (pair["pair"], pair["accepted"], pair["releases"]) == (sample.pair, True, ["v000001"])
    assert match["fits"]
    assert [vote["judge"] for vote in pair["votes"]] == [vote.judge for vote in harvest.votes[sample.pair]]
    journal = Journal(galaxy.store, _home(galaxy, sample.image))
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


def _home(galaxy: Galaxy, image: str) -> str:
    return next(
        home.home for home in galaxy.registry.homes() if image in {each.image for each in galaxy.registry.images(home)}
    )


def test_what_fell_out_says_where_and_why(galaxy: Galaxy) -> None:
    harvest = Harvest(galaxy)
    told: Counter[str] = Counter()
    for image in harvest.images:
        for match in explain(galaxy, image)["matches"]:
            told.update(f"{reject['stage']}: {reject['reason']}" for reject in match["rejected"])
            told.update(f"vote: {pair['reason']}" for pair in match["pairs"] if not pair["accepted"])
            assert all(reject["by"] or reject["stage"] == "filter" for reject in match["rejected"])
    assert told == Counter(f"{reject.stage}: {reject.reason}" for reject in harvest.rejects)
    assert {"filter: not fitting", "write: declined", "vote: below quorum"} <= set(told)
    reject = next(reject for reject in harvest.rejects if reject.pair)
    assert "OUT at vote (below quorum): pair" in "\n".join(explain_text.explained(explain(galaxy, str(reject.pair))))


def test_a_sample_that_a_release_left_out_says_why(galaxy: Galaxy, settings: Settings) -> None:
    release = {**settings.release.model_dump(mode="json"), "cap": 1}
    capped = tiny_galaxy(settings.model_copy(update={"release": type(settings.release)(**release)}), galaxy.store)
    assert publish.publish(capped).made
    harvest = Harvest(capped)
    fates: Counter[str | None] = Counter()
    for sample in harvest.samples:
        ((pair,),) = (match["pairs"] for match in explain(capped, sample.pair)["matches"])
        assert ("v000002" in pair["releases"]) == (pair["not_released"] is None)
        fates[pair["not_released"]] += 1
    assert fates["over the cap (release.cap is 1)"] > 0
    assert fates[None] == publish.published(capped)[-1].samples
    galaxy.store.delete(keys.cache("left-out-000002.parquet"))  # it is worked out again
    again = Counter(
        pair["not_released"]
        for sample in harvest.samples
        for match in explain(capped, sample.pair)["matches"]
        for pair in match["pairs"]
    )
    assert again == fates


def test_a_task_types_story_adds_up(galaxy: Galaxy) -> None:
    harvest = Harvest(galaxy)
    for path in TYPES:
        found = explain(galaxy, path.split("~")[-1])
        rejects = Counter(f"{r.stage}: {r.reason}" for r in harvest.rejects if r.task_type == path)
        assert found["task_type"] == path
        assert found["rejected"] == dict(sorted(rejects.items()))
        assert found["fitting"] == sum(row.task_type == path for row in harvest.relevant)
        assert found["matched"] == found["fitting"] + rejects["filter: not fitting"]
        assert found["written"] == sum(pair.task_type == path for pair in harvest.pairs.values())
        assert found["accepted"] == sum(pair.task_type == path for pair in harvest.samples)
        assert sum(found["releases"].values()) <= found["accepted"]
    assert "version 0 (seeds): added, origin seed" in "\n".join(explain_text.explained(found))
    catalogue = Catalogue(galaxy)
    catalogue.publish(0, catalogue.version().retire(TYPES[0]).nodes, [], "hand")
    found = explain(galaxy, TYPES[0])
    assert [(each["version"], each["what"]) for each in found["history"]] == [(0, "added"), (1, "retired")]
    assert found["unfinished_shards"] > 0  # matches are to be made anew


def test_names_that_say_nothing_or_too_much(galaxy: Galaxy) -> None:
    assert explain(galaxy, "broken.png")["rejected"][0]["reason"] == "not an image"
    assert explain(galaxy, "000.png")["image"]["width"] == 16
    with pytest.raises(TaskGalaxyError, match="explain 'nothing': 0 things go by that name"):
        explain(galaxy, "nothing")
    catalogue = Catalogue(galaxy)
    nodes = [*catalogue.version().nodes]
    twin = next(node for node in nodes if node.path == TYPES[0])
    double = [*nodes, type(twin)("colour~ocr a", 2, "hand", "live")]
    catalogue.publish(0, double, [], "hand")
    with pytest.raises(TaskGalaxyError, match="2 things go by that name: task type colour~ocr a; task type ocr~ocr a"):
        explain(galaxy, "ocr a")


def test_an_image_that_nobody_claims_and_a_pair_of_former_settings(galaxy: Galaxy, settings: Settings) -> None:
    sample = Harvest(galaxy).samples[0]
    other = settings.model_copy(update={"write": type(settings.write)(variants=("chain_of_thought",))})
    found = explain(tiny_galaxy(other, galaxy.store), sample.pair)
    assert found["former"]["changed"] == [
        "prompt write_chain_of_thought",
        "prompt write_plain",
        "variants plain -> chain_of_thought",
    ]
    assert [match["waits_for"] for match in found["matches"]] == [["write (chain_of_thought)"]]
    text = "\n".join(explain_text.explained(found))
    assert "is of a former shard" in text
    assert "PENDING: write (chain_of_thought) has not been answered" in text
    galaxy.registry.remove("mine")
    assert "no source claims it any more" in "\n".join(explain_text.explained(explain(galaxy, sample.image)))


def test_after_a_forget_the_request_is_the_new_one(galaxy: Galaxy, tiny_models: TinyModels) -> None:
    sample = Harvest(galaxy).samples[0]
    (match,) = explain(galaxy, sample.pair)["matches"]
    home = _home(galaxy, sample.image)
    journal = Journal(galaxy.store, home)
    reply = match["pairs"][0]["written_by"]["reply"]
    forgotten = [unit for unit, source in journal.sources.items() if source == reply]
    galaxy.edits().forget(home, {"write": forgotten})
    tiny_models.requests = 1000
    assert pipeline.generate(tiny_galaxy(galaxy.settings, galaxy.store)).pending == 0
    (match,) = explain(galaxy, sample.pair)["matches"]
    assert match["pairs"][0]["written_by"]["request"] == "tiny-1001"


def test_explaining_reads_one_home_however_many_there_are(galaxy: Galaxy) -> None:
    sample = Harvest(galaxy).samples[0]
    for what in (sample.pair, sample.image, sample.task_type, "000.png"):
        explain(galaxy, what)  # makes the lookups
        found = reads(galaxy, lambda what=what: explain(galaxy, what))  # type: ignore[misc]
        assert found["listings of homes"] == 17
        assert found["markers"] <= 12, "those of one home"
        assert found["journals"] <= 8


def test_what_models_write_cannot_steer_a_terminal() -> None:
    hostile = "a\x1b[2J\u202eb\nSAMPLE pair\x07 c"
    assert text.shown(hostile) == "a[2Jb SAMPLE pair c"


# verify --quick


def test_a_glance_finds_what_is_gone(galaxy: Galaxy) -> None:
    assert glance(galaxy).damage == []
    table = next(key for key in galaxy.store.objects if key.startswith("data/"))  # type: ignore[attr-defined]
    picture = next(key for key in galaxy.store.objects if key.startswith("releases/v000001/images/"))  # type: ignore[attr-defined]
    galaxy.store.replace(picture, b"cut")
    galaxy.store.delete(table)
    damage = glance(galaxy).damage
    assert any(table in line and "is gone" in line for line in damage)
    assert any(picture in line for line in damage)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_snapshot_lists_what_the_store_does(kind: str, folder_store: Store) -> None:
    store = MemoryStore() if kind == "memory" else folder_store
    names = [
        f"homes/{home}/{part}" for home in ("0a", "0b", "f", "taxonomy") for part in ("journal/e/1", "markers/m.1")
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
