"""Take-down, forget, import and garbage collection on a real S3 server, with real replies of simulated models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import load_dataset

from e2e.galaxies import Commands, Models
from e2e.test_pipeline import whole
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.errors import SettingsError, SourceError
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.results import Harvest
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.operations import answers, gc, takedown
from taskgalaxy_ops.operations.forget import forget
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.release import MANIFEST, publish
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.sources import ingest
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.keys import LAYOUT_VERSION
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Galaxy


def _content(galaxy: Galaxy, one: publish.Published) -> dict[str, str]:
    manifest = json.loads(galaxy.store.get(keys.release(one.version) + MANIFEST))
    return {path: entry["sha256"] for path, entry in manifest["files"].items()}


def test_an_image_that_is_taken_down_is_nowhere(
    settings: Callable[..., Settings], models: Models, tmp_path: Path
) -> None:
    galaxy = Galaxy.open(settings())
    first = whole(galaxy).release
    harvest = Harvest(galaxy)
    image = harvest.samples[0].image
    others = {pair.pair for pair in harvest.samples if pair.image != image}
    paid, before = bill(galaxy).all, models.stats()

    found = takedown.take_down(galaxy, [image], "the person in it asked")
    assert list(takedown.left(galaxy)) == []
    gone = len(harvest.samples) - len(others)
    assert (found.releases, sum(map(len, found.homes.values()))) == ({first.name: gone}, 1)
    assert found.shards == 4  # match, filter, write, vote of its home
    assert all(image.encode() not in _raw(galaxy, listed.key) for listed in _but_its_denial(galaxy, first))
    (withdrawn,) = publish.published(galaxy)
    assert withdrawn.withdrawn == gone
    local = publish.fetch(galaxy, withdrawn, tmp_path / "copy")
    loaded = load_dataset(str(local), cache_dir=str(tmp_path / "cache"))
    assert {row for split in loaded.values() for row in split["id"]} == others
    assert verify(galaxy).damage == []

    again = Galaxy.open(settings())
    receipts = [pipeline.ingest(again, source) for source in again.settings.sources]
    assert [(r.new_images, [x.reason for x in r.rejects]) for r in receipts] == [(0, [Reason.TAKEN_DOWN])]
    second = whole(again)
    assert {pair.pair for pair in Harvest(again).samples} == others
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


def _raw(galaxy: Galaxy, key: str) -> bytes:
    return galaxy.store.get(key)


def _but_its_denial(galaxy: Galaxy, one: publish.Published) -> list[publish.Listed]:
    may = (keys.REGISTRY_LOG, keys.release(one.version) + "withdrawn.json")
    journals = ("/journal/",)  # they name it as erased
    return [
        listed
        for listed in galaxy.store.list("")
        if not listed.key.startswith(may) and not any(part in listed.key for part in journals)
    ]


def test_one_that_never_came_is_refused_when_it_comes(settings: Callable[..., Settings], models: Models) -> None:
    galaxy = Galaxy.open(settings())
    pipeline.ingest(Galaxy.open(settings(store=f"{galaxy.settings.store}-other")), "mixed")
    image = next(Galaxy.open(settings(store=f"{galaxy.settings.store}-other")).registry.claims()).image
    assert takedown.take_down(galaxy, [image]).homes == {}
    receipt = pipeline.ingest(galaxy, "mixed")
    assert (receipt.images, [reject.reason for reject in receipt.rejects]) == (11, [Reason.TAKEN_DOWN])
    assert list(takedown.left(galaxy)) == []
    with pytest.raises(SourceError, match="no image id"):
        takedown.take_down(galaxy, ["../../etc"])


def test_a_take_down_while_a_run_works_erases_what_that_run_writes(
    settings: Callable[..., Settings], models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    galaxy = Galaxy.open(settings())
    pipeline.ingest(galaxy, "mixed")
    image = next(galaxy.registry.claims()).image
    real, done = ingest.HomeRun.__call__, []

    async def late(self: ingest.HomeRun) -> ingest.HomeResult:
        outcome = await real(self)
        if not done:  # its shards are written, the run is about to look at the denylist
            done.append(takedown.take_down(Galaxy.open(settings()), [image]))
        return outcome

    monkeypatch.setattr(ingest.HomeRun, "__call__", late)
    pipeline.generate(galaxy)
    assert done[0].homes
    assert list(takedown.left(galaxy)) == []
    before = models.stats()["units"]
    whole(Galaxy.open(settings()))
    assert models.stats()["units"] == before
    assert image not in {pair.image for pair in Harvest(galaxy).samples}


def test_forgotten_answers_are_asked_once_more(galaxy: Galaxy, models: Models) -> None:
    first = whole(galaxy).release
    judge = galaxy.settings.judges[1].name
    with pytest.raises(SettingsError, match="Everything is too much"):
        forget(galaxy)
    told = forget(galaxy, model=judge, where={"answer.vote": "1"})
    assert told.units.keys() == {"vote"}
    assert 0 < told.list_cost <= bill(galaxy).by_model[judge].list_cost
    before = models.stats()
    assert whole(galaxy).release == first, "a dry run changes nothing"
    done = forget(galaxy, model=judge, where={"answer.vote": "1"}, dry_run=False)
    assert done.units == told.units
    result = pipeline.generate(galaxy)
    assert sum(home.stages["vote"].missing for home in result.homes) == done.units["vote"]
    after = models.stats()
    assert [each["asked"] for each in after["asked_again"]] == [2] * done.units["vote"]
    assert after["units"]["by_stage"] == before["units"]["by_stage"], "and no other unit"
    assert publish.publish(galaxy).release == first, "the simulated judge says the same again"
    assert forget(galaxy, since=2e9).units == {}


def test_answers_of_another_store_are_not_paid_for_again(
    settings: Callable[..., Settings], models: Models, tmp_path: Path
) -> None:
    one = Galaxy.open(settings())
    first = whole(one)
    file = tmp_path / "answers.jsonl.gz"
    written = answers.export(one, file)
    assert written == bill(one).all.calls
    before = models.stats()
    other = Galaxy.open(settings(store=f"{one.settings.store}-other"))
    pipeline.ingest(other, "mixed")
    found = answers.load(other, file)
    assert (found.read, found.known, found.elsewhere) == (written, 0, 0)
    assert answers.load(other, file).units == 0
    second = whole(other)
    assert models.stats()["requests"] == before["requests"]
    assert _content(other, second.release) == _content(one, first.release)
    assert other.ledger().spent().calls == 0


def test_only_what_nothing_names_and_is_old_is_collected(galaxy: Galaxy, models: Models) -> None:
    whole(galaxy)
    gc.collect(galaxy, grace_seconds=-1, delete=True)
    before = {listed.key for listed in galaxy.store.list("")}
    assert gc.collect(galaxy, grace_seconds=0, delete=True).objects == 0
    home = galaxy.registry.homes()[0].home
    shard = next(shard for shard in galaxy.shards.all(home) if shard.stage == "write")
    galaxy.store.delete(shard.marker)  # as verify tells to, of one that is damaged
    galaxy.store.put_if_absent(keys.blob("0" * 64), b"of a scan that was killed")
    young = gc.collect(galaxy, delete=True)
    assert (young.objects, young.young) == (0, 3)
    told = gc.collect(galaxy, grace_seconds=-1)
    assert (told.objects, told.young) == (3, 0)
    assert gc.collect(galaxy, grace_seconds=-1, delete=True).objects == 3
    assert whole(galaxy).made is False
    assert before - {listed.key for listed in galaxy.store.list("")} <= {
        shard.marker,
        *(key for key in before if key.startswith("data/")),
    }
    assert verify(galaxy).damage == []
    assert Log(galaxy.store, keys.journal(home)).read()


def test_the_commands_ask_before_what_cannot_be_undone(
    settings: Callable[..., Settings], models: Models, commands: Commands, pictures: Path, tmp_path: Path
) -> None:
    chosen = settings()
    commands.run(chosen, "ingest")
    commands.run(chosen, "generate")
    commands.run(chosen, "release")
    file = next((pictures / "shapes").iterdir())
    refused = commands.run(chosen, "takedown", str(file), code=1)
    assert "Nobody is there to ask: say --yes." in refused["error"]
    named = tmp_path / "list.txt"
    named.write_text(f"{sha256_hex(file.read_bytes())[:12]}\n\n", "utf-8")
    found = commands.run(chosen, "takedown", "--list", str(named), "--yes")
    assert (len(found["taken_down"]["images"]), found["left"]) == (1, [])
    assert commands.run(chosen, "verify", "--takedown")["checked"]["take-down"] == 1
    assert commands.run(chosen, "takedown", "--finish")["left"] == []
    wrong = commands.run(chosen, "takedown", "no such file.png", "--yes", code=1)
    assert "no image id (8 to 64 hex digits), and no file of this machine" in wrong["error"]

    assert commands.run(chosen, "answers", "export", str(tmp_path / "a.jsonl"))["replies"] > 0
    told = commands.run(chosen, "forget", "--model", "sim-judge-a", "--since", "1h", "--dry-run")
    assert told["units"]["vote"] > 0
    assert not told["forgotten"]
    assert "Nobody is there to ask" in commands.run(chosen, "forget", "--where", "stage=vote", code=1)["error"]
    assert commands.run(chosen, "forget", "--model", "sim-judge-a", "--since", "1h", "--yes")["forgotten"]
    assert "no time" in commands.run(chosen, "forget", "--since", "Tuesday", code=2)["error"]
    assert commands.run(chosen, "answers", "import", str(tmp_path / "a.jsonl"))["by_stage"]["vote"] > 0
    (tmp_path / "b.jsonl").write_text('{"stage": "vote", "units": ["x"]}\n', "utf-8")
    assert "b.jsonl, line 1" in commands.run(chosen, "answers", "import", str(tmp_path / "b.jsonl"), code=1)["error"]
    assert commands.run(chosen, "answers", "read-again")["answers"] == {}
    assert commands.run(chosen, "gc")["objects"] == 0
    assert commands.run(chosen, "compact")["journals"] == 0
    assert commands.run(chosen, "upgrade") == {"from": LAYOUT_VERSION, "to": LAYOUT_VERSION}
