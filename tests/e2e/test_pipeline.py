"""From images to a release, in a real S3 server, with the simulated models; then again, and with things in the way."""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.galaxies import Commands, Models
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import render
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.status import status
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Match
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.reports.pages import contact_sheet
from taskgalaxy_ops.settings import Settings, SourceSettings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.expand import Growth, expand
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def whole(workspace: Workspace) -> publish.ReleaseReceipt:
    """Ingest, generate and release everything."""
    for source in workspace.settings.sources:
        pipeline.ingest(workspace, source)
    result = pipeline.generate(workspace)
    assert result.pending == 0, result.reasons
    return publish.publish(workspace)


Undisturbed = Callable[[], str]


@pytest.fixture(scope="module")
def contents() -> list[str]:
    """What ``undisturbed`` has found."""
    return []


@pytest.fixture
def undisturbed(settings: Callable[..., Settings], contents: list[str]) -> Undisturbed:
    """The hash of the release that an undisturbed run makes, in a store of its own; the run is made once."""

    def content() -> str:
        if not contents:
            alone = settings(store=f"{settings().store}-undisturbed")
            contents.append(whole(Workspace.open(alone)).release.content)
        return contents[0]

    return content


def test_two_runs_make_one_release(settings: Callable[..., Settings], models: Models, tmp_path: Path) -> None:
    workspace = Workspace.open(settings())
    pipeline.ingest(workspace, "mixed")
    expand(workspace, Growth(max_new=5))
    first = whole(workspace)
    assert first.made
    assert first.release.samples > 10
    before = models.stats()
    assert before["answered_again"] == 0
    assert before["asked_again"] == []

    again = Workspace.open(settings())  # nothing kept in memory
    second = whole(again)
    assert (second.release, second.made) == (first.release, False)
    assert "encoder" not in again.__dict__, "a second run must not even load the encoder"
    assert models.stats()["requests"] == before["requests"]

    assert list(again.store.list(keys.WORKERS)) == [], "who has ended is not counted"

    found = verify(again)
    assert found.damage == []
    assert found.checked["image"] == 12
    assert found.checked["release"] == 1
    local = publish.fetch(again, second.release, tmp_path / "copy")
    assert "simulated" in (local / "README.md").read_text("utf-8").lower()
    page = tmp_path / "page.html"
    contact_sheet.write(page, contact_sheet.report_data(RunResults(again)))
    assert "simulated" in page.read_text("utf-8").lower()


def test_the_funnel_adds_up_and_tells_each_stage(workspace: Workspace, models: Models) -> None:
    receipt = whole(workspace)
    results = RunResults(workspace)
    stages = {counts.stage: counts for counts in [*results.funnel, receipt.funnel]}
    assert stages["filter"].units_in == 12 * 24
    assert stages["write"].units_in == stages["filter"].units_out
    assert stages["vote"].units_in == stages["write"].units_out == len(results.pairs)
    assert stages["release"].units_in == stages["vote"].units_out == len(results.samples)
    paid = bill(workspace)
    stats = models.stats()
    assert paid.all.calls == sum(stats["calls"].values())
    assert paid.all.list_cost > 0
    assert paid.all.cost == 0
    spent = workspace.ledger().spent()
    assert (spent.calls, spent.cost) == (paid.all.calls, 0)
    told = status(workspace)
    assert told.pending == 0
    assert told.simulated is True
    by_stage = {each.stage: each for each in told.stages}
    for stage, counts in stages.items():
        if stage != "release":
            there = by_stage[stage]
            assert (there.units_in, there.units_out, there.rejects) == (
                counts.units_in,
                counts.units_out,
                counts.rejects,
            )
    assert sum(each.calls for each in told.stages) == paid.all.calls
    assert all(stage.units.high == 0 for stage in plan(workspace).stages)
    sample = results.samples[0]
    (fate,) = explain(workspace, sample.pair)["matches"]
    assert fate["task_type"] == sample.task_type
    assert any(pair["accepted"] for pair in fate["pairs"])


def test_a_new_source_asks_only_for_its_new_images(
    settings: Callable[..., Settings], models: Models, pictures: Path
) -> None:
    old = {"old": {"location": str(pictures / "photos")}}
    whole(Workspace.open(settings(sources=old)))
    before = models.stats()
    both = {**old, "more": {"location": str(pictures)}}  # holds the old ones too
    workspace = Workspace.open(settings(sources=both))
    pipeline.ingest(workspace, "more")
    needed = sum(
        h.stages["filter"].missing
        for h in pipeline.generate(workspace, pipeline.RunOptions(ask=False, commit=False)).shards
    )
    assert needed == 9 * 24
    whole(workspace)
    after = models.stats()
    assert after["units"]["by_stage"]["filter"] - before["units"]["by_stage"]["filter"] == needed
    assert after["asked_again"] == []


def test_new_task_types_ask_only_for_pairs_that_enter_the_top_k(workspace: Workspace, models: Models) -> None:
    whole(workspace)
    before = models.stats()["units"]["by_stage"]
    old = {(m.image, m.task_type) for m in _matches(workspace)}
    taxonomy_store = TaxonomyStore(workspace)
    base = taxonomy_store.version()
    new = [
        f"colour~colour of things~{thing} colour identification" for thing in ("sky", "wall", "flower", "fur", "car")
    ]
    new += [f"shapes & patterns~shape recognition~{name}" for name in ("circle test", "square test", "triangle test")]
    new += ["ocr~scene text ocr~banner reading", "counting~window counting"]
    taxonomy_store.publish(base.number, add_types(base.nodes, new), [], "hand")
    whole(workspace)
    entered = {(m.image, m.task_type) for m in _matches(workspace)} - old
    assert entered, "none of the new types came near any image: the test shows nothing"
    after = models.stats()
    assert after["units"]["by_stage"]["filter"] - before["filter"] == len(entered)
    assert after["asked_again"] == []


def _matches(workspace: Workspace) -> list[Match]:
    shards = pipeline.generate(workspace, pipeline.RunOptions(last_stage="match")).matches
    return [
        match
        for stage_output in shards.values()
        for match in workspace.stage_outputs.load(stage_output, "matches", Match)
    ]


def test_a_killed_run_is_gone_on_with(
    settings: Callable[..., Settings], models: Models, commands: Commands, undisturbed: Undisturbed
) -> None:
    chosen = settings()
    commands.here(chosen, "ingest")
    models.control(latency=0.05)
    process = commands.start(chosen, "generate")
    try:
        while models.stats()["requests"] < 9:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.communicate()
    models.control(latency=0)
    kept = _asked(chosen)
    commands.here(chosen, "generate")
    everything = _asked(chosen)
    # What was in the journal is not asked again; what was in flight or not yet flushed is, once.
    assert set(kept) <= set(everything)
    assert len(set(everything)) == len(everything)
    stats = models.stats()
    assert stats["units"]["distinct"] == len(everything)
    assert all(each["asked"] == 2 for each in stats["asked_again"])
    assert commands.here(chosen, "release")["release"]["content"] == undisturbed()


def _asked(settings: Settings) -> list[str]:
    """The units of every reply in the journals, image shard by image shard, in order."""
    workspace = Workspace.open(settings)
    found: list[str] = []
    for shard in workspace.registry.shards():
        found += [unit for reply in Journal(workspace.store, shard.id).replies() for unit in reply["units"]]
    return found


def test_models_that_die_and_come_back(
    settings: Callable[..., Settings], models: Models, commands: Commands, pictures: Path
) -> None:
    few = {"sources": {"few": {"location": str(pictures / "shapes")}}}  # models that were killed read them anew
    chosen = settings()
    quick = settings(
        **few,
        teacher={**chosen.teacher.model_dump(mode="json"), "retries": 0, "patience_seconds": 0},
        judges=[{**judge.model_dump(mode="json"), "retries": 0, "patience_seconds": 0} for judge in chosen.judges],
    )
    commands.here(quick, "ingest")
    models.control(latency=0.2)
    process = commands.start(quick, "generate")
    while models.stats()["requests"] < 5:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    with models.away():
        out, error = process.communicate(timeout=600)
        assert process.returncode == 3, error
        assert "pending" in out
        commands.here(quick, "release", code=3)  # refused while anything is pending
    again = settings(**few)  # wherever the models are now: addresses are part of no key
    commands.here(again, "generate")
    assert commands.here(again, "release")["made"]


def test_faults_lose_nothing_and_ask_nothing_twice_for_good(
    settings: Callable[..., Settings], models: Models, undisturbed: Undisturbed
) -> None:
    expected = undisturbed()
    faults = {"rate_limit": 0.1, "server_error": 0.1, "malformed": 0.1, "truncated": 0.05, "retry_after": 0}
    models.control(faults=faults)
    assert whole(Workspace.open(settings())).release.content == expected


def test_the_budget_stops_the_run_and_says_what_is_left(settings: Callable[..., Settings], models: Models) -> None:
    workspace = Workspace.open(settings(budget={"max_calls": 7}))
    pipeline.ingest(workspace, "mixed")
    result = pipeline.generate(workspace)
    assert result.pending > 0
    assert any("7 calls of 7" in reason and "raise the cap" in reason for reason in result.reasons)
    assert sum(models.stats()["calls"].values()) <= 7
    richer = Workspace.open(settings())
    assert pipeline.generate(richer).pending == 0
    assert models.stats()["asked_again"] == []


def test_broken_files_are_named_and_the_others_go_through(
    settings: Callable[..., Settings], pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my images; rm -rf"
    folder.mkdir()
    good = sorted(path for path in pictures.rglob("*") if path.suffix in {".png", ".jpg", ".jpeg"})[:4]
    for number, path in enumerate(good):
        (folder / f"größe {number} '\"$(x)\n{path.suffix}").write_bytes(path.read_bytes())
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.png").write_bytes(good[0].read_bytes()[: good[0].stat().st_size // 2])
    (folder / "twice.png").write_bytes(good[0].read_bytes())
    workspace = Workspace.open(settings(sources={"mine": SourceSettings(location=str(folder)).model_dump()}))
    receipt = pipeline.ingest(workspace, "mine")
    named = {reject.file: reject.reason for reject in receipt.rejects}
    assert receipt.images == 4
    assert set(named) >= {"empty.png", "text.jpg", "cut.png"}
    assert len(named) == 4  # of the twins, the later name
    assert whole(workspace).release.images > 0


def test_the_vote_catches_most_planted_answers_and_keeps_most_right_ones(workspace: Workspace, models: Models) -> None:
    whole(workspace)
    results = RunResults(workspace)
    stats = models.stats()
    planted = {(p["image"], p["task_type"], p["variant"], p["question"]) for p in stats["pairs"]["planted"]}
    assert planted
    teacher = workspace.settings.teacher
    sent = {}  # the server knows an image by the bytes that it was sent
    for image in results.images:
        url = render(workspace.store.get(keys.blob(image)), teacher.image_side, teacher.image_quality)
        sent[image] = sha256_hex(base64.b64decode(url.partition(",")[2]))
    accepted = {sample.pair for sample in results.samples}
    kept: dict[bool, list[bool]] = {True: [], False: []}
    for pair in results.pairs.values():
        wrong = (sent[pair.image], pair.task_type, pair.variant, pair.question) in planted
        kept[wrong].append(pair.pair in accepted)
    assert len(kept[True]) == len(planted)
    assert sum(kept[True]) <= 0.25 * len(kept[True])
    assert sum(kept[False]) >= 0.75 * len(kept[False])
    for judge in ("sim-judge-a", "sim-judge-b"):
        votes = stats["votes"][judge]
        assert votes["unknown"] == 0
        assert votes["found_right"] + votes["found_wrong"] + votes["cannot_tell"] == len(results.pairs)
