"""Take-down, forget, import and garbage collection on a real S3 server, with real replies of simulated models."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from e2e.galaxies import Commands, Models
from e2e.test_pipeline import whole
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.generation import shard_run
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.operations import answers, gc, takedown
from taskgalaxy_ops.operations.forget import forget
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import MANIFEST, publish
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.keys import LAYOUT_VERSION
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace


@pytest.fixture
def settings(settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """As for other tests, with half of the task types: what is erased or collected is of the same kinds."""
    return partial(settings, match={"k": 12})


def _content(workspace: Workspace, one: publish.Published) -> dict[str, str]:
    manifest = json.loads(workspace.store.get(keys.release(one.version) + MANIFEST))
    return {path: entry["sha256"] for path, entry in manifest["files"].items()}


def test_an_image_that_is_taken_down_is_nowhere(
    settings: Callable[..., Settings], models: Models, tmp_path: Path
) -> None:
    from datasets import load_dataset

    workspace = Workspace.open(settings())
    first = whole(workspace).release
    results = RunResults(workspace)
    image = results.samples[0].image
    others = {pair.pair for pair in results.samples if pair.image != image}
    paid, before = bill(workspace).all, models.stats()

    found = takedown.take_down(workspace, [image], "the person in it asked")
    assert list(takedown.left(workspace)) == []
    gone = len(results.samples) - len(others)
    assert (found.releases, sum(map(len, found.by_shard.values()))) == ({first.name: gone}, 1)
    assert found.shards == 4  # match, filter, write, vote of its image shard
    assert all(image.encode() not in _raw(workspace, listed.key) for listed in _but_its_denial(workspace, first))
    (withdrawn,) = publish.published(workspace)
    assert withdrawn.withdrawn == gone
    local = publish.fetch(workspace, withdrawn, tmp_path / "copy")
    loaded = load_dataset(str(local), cache_dir=str(tmp_path / "cache"))
    assert {row for split in loaded.values() for row in split["id"]} == others
    assert verify(workspace).damage == []

    again = Workspace.open(settings())
    receipts = [pipeline.ingest(again, source) for source in again.settings.sources]
    assert [(r.new_images, [x.reason for x in r.rejects]) for r in receipts] == [(0, [Reason.TAKEN_DOWN])]
    second = whole(again)
    assert {pair.pair for pair in RunResults(again).samples} == others
    assert models.stats()["units"] == before["units"], "what the others needed was answered"
    assert "encoder" not in again.__dict__
    still = bill(again).all
    assert (still.calls, still.tokens, still.list_cost) == (paid.calls, paid.tokens, paid.list_cost), (
        "what it cost stays"
    )
    assert second.made
    assert verify(again).damage == []
    assert list(takedown.left(again)) == []
    assert takedown.finish(again).releases == {}
    assert publish.published(again)[-1] == second.release


def _raw(workspace: Workspace, key: str) -> bytes:
    return workspace.store.get(key)


def _but_its_denial(workspace: Workspace, one: publish.Published) -> list[publish.Listed]:
    may = (keys.REGISTRY_LOG, keys.release(one.version) + "withdrawn.json")
    journals = ("/journal/",)  # they name it as erased
    return [
        listed
        for listed in workspace.store.list("")
        if not listed.key.startswith(may) and not any(part in listed.key for part in journals)
    ]


def test_one_that_never_came_is_refused_when_it_comes(settings: Callable[..., Settings], models: Models) -> None:
    workspace = Workspace.open(settings())
    pipeline.ingest(Workspace.open(settings(store=f"{workspace.settings.store}-other")), "mixed")
    image = next(Workspace.open(settings(store=f"{workspace.settings.store}-other")).registry.claims()).image
    assert takedown.take_down(workspace, [image]).by_shard == {}
    receipt = pipeline.ingest(workspace, "mixed")
    assert (receipt.images, [reject.reason for reject in receipt.rejects]) == (11, [Reason.TAKEN_DOWN])
    assert list(takedown.left(workspace)) == []
    with pytest.raises(SourceError, match="no image id"):
        takedown.take_down(workspace, ["../../etc"])


def test_a_take_down_while_a_run_works_erases_what_that_run_writes(
    settings: Callable[..., Settings], models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(settings())
    pipeline.ingest(workspace, "mixed")
    image = next(workspace.registry.claims()).image
    real, done = shard_run.ShardRun.__call__, []

    async def late(self: shard_run.ShardRun) -> shard_run.ShardResult:
        outcome = await real(self)
        if not done:  # its shards are written, the run is about to look at the denylist
            done.append(takedown.take_down(Workspace.open(settings()), [image]))
        return outcome

    monkeypatch.setattr(shard_run.ShardRun, "__call__", late)
    pipeline.generate(workspace)
    assert done[0].shards
    assert list(takedown.left(workspace)) == []
    before = models.stats()["units"]
    whole(Workspace.open(settings()))
    assert models.stats()["units"] == before
    assert image not in {pair.image for pair in RunResults(workspace).samples}


def test_forgotten_answers_are_asked_once_more(workspace: Workspace, models: Models) -> None:
    first = whole(workspace).release
    judge = workspace.settings.judges[1].name
    with pytest.raises(SettingsError, match="Everything is too much"):
        forget(workspace)
    told = forget(workspace, model=judge, where={"answer.vote": "1"})
    assert told.units.keys() == {"vote"}
    assert 0 < told.list_cost <= bill(workspace).by_model[judge].list_cost
    before = models.stats()
    assert whole(workspace).release == first, "a dry run changes nothing"
    done = forget(workspace, model=judge, where={"answer.vote": "1"}, dry_run=False)
    assert done.units == told.units
    result = pipeline.generate(workspace)
    assert sum(shard.stages["vote"].missing for shard in result.shards) == done.units["vote"]
    after = models.stats()
    assert [each["asked"] for each in after["asked_again"]] == [2] * done.units["vote"]
    assert after["units"]["by_stage"] == before["units"]["by_stage"], "and no other unit"
    assert publish.publish(workspace).release == first, "the simulated judge says the same again"
    assert forget(workspace, since=2e9).units == {}


def test_answers_of_another_store_are_not_paid_for_again(
    settings: Callable[..., Settings], models: Models, tmp_path: Path
) -> None:
    one = Workspace.open(settings())
    first = whole(one)
    file = tmp_path / "answers.jsonl.gz"
    written = answers.export(one, file)
    assert written == bill(one).all.calls
    before = models.stats()
    other = Workspace.open(settings(store=f"{one.settings.store}-other"))
    pipeline.ingest(other, "mixed")
    found = answers.load(other, file)
    assert (found.read, found.known, found.elsewhere) == (written, 0, 0)
    assert answers.load(other, file).units == 0
    second = whole(other)
    assert models.stats()["requests"] == before["requests"]
    assert _content(other, second.release) == _content(one, first.release)
    assert other.ledger().spent().calls == 0


def test_only_what_nothing_names_and_is_old_is_collected(workspace: Workspace, models: Models) -> None:
    whole(workspace)
    gc.collect(workspace, grace_seconds=-1, delete=True)
    before = {listed.key for listed in workspace.store.list("")}
    assert gc.collect(workspace, grace_seconds=0, delete=True).objects == 0
    shard = workspace.registry.shards()[0].id
    stage_output = next(
        stage_output for stage_output in workspace.stage_outputs.all(shard) if stage_output.stage == "write"
    )
    workspace.store.delete(stage_output.marker)  # as verify tells to, of one that is damaged
    workspace.store.put_if_absent(keys.blob("0" * 64), b"of a scan that was killed")
    young = gc.collect(workspace, delete=True)
    assert (young.objects, young.young) == (0, 3)
    told = gc.collect(workspace, grace_seconds=-1)
    assert (told.objects, told.young) == (3, 0)
    assert gc.collect(workspace, grace_seconds=-1, delete=True).objects == 3
    assert whole(workspace).made is False
    assert before - {listed.key for listed in workspace.store.list("")} <= {
        stage_output.marker,
        *(key for key in before if key.startswith("data/")),
    }
    assert verify(workspace).damage == []
    assert Log(workspace.store, keys.journal(shard)).read()


def test_the_commands_ask_before_what_cannot_be_undone(
    settings: Callable[..., Settings], models: Models, commands: Commands, pictures: Path, tmp_path: Path
) -> None:
    chosen = settings()
    commands.here(chosen, "ingest")
    commands.here(chosen, "generate")
    commands.here(chosen, "release")
    file = next((pictures / "shapes").iterdir())
    refused = commands.here(chosen, "takedown", str(file), code=1)
    assert "Nobody is there to ask: say --yes." in refused["error"]
    named = tmp_path / "list.txt"
    named.write_text(f"{sha256_hex(file.read_bytes())[:12]}\n\n", "utf-8")
    found = commands.here(chosen, "takedown", "--list", str(named), "--yes")
    assert (len(found["taken_down"]["images"]), found["left"]) == (1, [])
    assert commands.here(chosen, "verify", "--takedown")["checked"]["take-down"] == 1
    assert commands.here(chosen, "takedown", "--finish")["left"] == []
    wrong = commands.here(chosen, "takedown", "no such file.png", "--yes", code=1)
    assert "no image id (8 to 64 hex digits), and no file of this machine" in wrong["error"]

    assert commands.here(chosen, "answers", "export", str(tmp_path / "a.jsonl"))["replies"] > 0
    told = commands.here(chosen, "forget", "--model", "sim-judge-a", "--since", "1h", "--dry-run")
    assert told["units"]["vote"] > 0
    assert not told["forgotten"]
    assert "Nobody is there to ask" in commands.here(chosen, "forget", "--where", "stage=vote", code=1)["error"]
    assert commands.here(chosen, "forget", "--model", "sim-judge-a", "--since", "1h", "--yes")["forgotten"]
    assert "no time" in commands.here(chosen, "forget", "--since", "Tuesday", code=2)["error"]
    assert commands.here(chosen, "answers", "import", str(tmp_path / "a.jsonl"))["by_stage"]["vote"] > 0
    (tmp_path / "b.jsonl").write_text('{"stage": "vote", "units": ["x"]}\n', "utf-8")
    assert "b.jsonl, line 1" in commands.here(chosen, "answers", "import", str(tmp_path / "b.jsonl"), code=1)["error"]
    assert commands.here(chosen, "answers", "read-again")["answers"] == {}
    assert commands.here(chosen, "gc")["objects"] == 0
    assert commands.here(chosen, "compact")["journals"] == 0
    assert commands.here(chosen, "upgrade") == {"from": LAYOUT_VERSION, "to": LAYOUT_VERSION}
