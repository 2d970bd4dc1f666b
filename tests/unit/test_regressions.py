"""What a close reading found: each of these went wrong once. On the golden store, which needs no model."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden.golden_store import golden_galaxy, golden_settings

from taskgalaxy_ops import cli, pipeline
from taskgalaxy_ops.errors import BudgetError, DamageError, NotFoundError, PendingError
from taskgalaxy_ops.generation.results import Harvest
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.inference.gateway import Desk
from taskgalaxy_ops.inference.session import Asker
from taskgalaxy_ops.inference.spending import Purse, Till
from taskgalaxy_ops.models.request import Question, Unit
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.ledger import Caps, Ledger, Spent
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Galaxy


@pytest.fixture
def galaxy(tmp_path: Path) -> Galaxy:
    return golden_galaxy(tmp_path / "store")


def changed(galaxy: Galaxy, **of_each_model: Any) -> Galaxy:
    """The same store under settings whose models differ."""
    judges = tuple(judge.model_copy(update=of_each_model) for judge in galaxy.settings.judges)
    teacher = galaxy.settings.teacher.model_copy(update=of_each_model)
    settings: Settings = galaxy.settings.model_copy(update={"teacher": teacher, "judges": judges})
    return replace(galaxy, settings=settings)


def test_a_home_that_fails_is_one_plain_error_and_the_others_go_on(galaxy: Galaxy) -> None:
    other, broken = galaxy.registry.homes()  # begun in this order
    made = galaxy.shards.committed(broken.home)
    (matched,) = (shard for (stage, _), shard in made.items() if stage == "match")
    galaxy.store.delete(galaxy.shards.refs(matched)["matches"].key)
    for home in (broken, other):
        for (stage, _), shard in galaxy.shards.committed(home.home).items():
            if stage in {"filter", "write", "vote"}:
                galaxy.store.delete(shard.marker)
    with pytest.raises(DamageError, match="is gone"):
        pipeline.generate(galaxy)
    assert {stage for stage, _ in galaxy.shards.committed(other.home)} >= {"filter", "write", "vote"}


class Teacher:
    """A gateway in whose hands one image is gone while another's reply is under way."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def ask(self, question: Question, units: list[Unit], desk: Desk) -> None:
        if units[0].image == "gone":
            self.failed.set()
            raise NotFoundError("blobs/gone")
        await self.failed.wait()
        await asyncio.sleep(0)
        said = {unit.key: Answer({"fits": True, "reason": ""}) for unit in units}
        names = tuple(unit.key for unit in units)
        desk.journal.add(Reply("r", "filter", "t", names, said, {"a": 1}, {}, 0, 0, 0, "", 1, desk.journal.seen, 0, 0))


def test_what_is_in_flight_when_an_image_is_gone_is_kept(galaxy: Galaxy) -> None:
    question = filter_stage.filter_question("?", galaxy.settings.teacher)
    units = [question.unit(image, {"task_type": "a"}) for image in ("there", "gone")]
    home = galaxy.registry.homes()[0].home

    async def run() -> None:
        async with Asker(galaxy.store, galaxy.settings.run, Teacher(), Till(galaxy.ledger()), home) as asker:  # type: ignore[arg-type]
            with pytest.raises(NotFoundError):
                await asker.ask(lambda answers: [(question, [unit for unit in units if unit.key not in answers])])
            assert units[0].key in asker.answers

    asyncio.run(run())


def test_verify_goes_on_past_a_damaged_list(galaxy: Galaxy) -> None:
    before = verify(galaxy)
    first = galaxy.registry.homes()[0]
    galaxy.store.delete(first.images.key)
    found = verify(galaxy)
    assert found.checked["release"] == before.checked["release"]
    assert found.checked["shard"] == before.checked["shard"]
    assert any(first.images.key in line and first.shard().marker in line for line in found.damage)


def test_verify_finds_a_marker_that_names_other_tables(galaxy: Galaxy) -> None:
    one, other = (
        next(shard for (stage, _), shard in galaxy.shards.committed(home.home).items() if stage == "match")
        for home in galaxy.registry.homes()
    )
    galaxy.store.replace(one.marker, json.dumps(galaxy.shards.marker(other)).encode())
    (line,) = verify(galaxy).damage
    assert one.marker in line


def test_verify_writes_nothing_and_loads_no_encoder(tmp_path: Path) -> None:
    empty = Galaxy.open(golden_settings((tmp_path / "empty").as_uri(), "gone"))
    before = [listed.key for listed in empty.store.list("")]
    assert verify(empty).damage == []
    assert [listed.key for listed in empty.store.list("")] == before
    assert "encoder" not in empty.__dict__


def test_a_release_begun_before_the_latest_is_begun_anew(galaxy: Galaxy) -> None:
    log = Log(galaxy.store, keys.RELEASES_LOG)
    log.append({"kind": "begin", "version": 2, "content": "old"})
    assert publish._begin(galaxy, "old") == 2, "continued"
    log.append({"kind": "begin", "version": 3, "content": "new"})
    latest = publish.published(galaxy)[-1]
    publish._finish(galaxy, replace(latest, version=3, content="new"))
    assert publish._begin(galaxy, "old") == 4


def test_a_content_that_another_published_meanwhile_is_not_published_again(galaxy: Galaxy) -> None:
    latest = publish.published(galaxy)[-1]
    assert publish._begin(galaxy, latest.content) == latest


def test_a_copy_is_not_laid_over_another_release(galaxy: Galaxy, tmp_path: Path) -> None:
    (one,) = publish.published(galaxy)
    local = publish.fetch(galaxy, one, tmp_path / "copy")
    assert publish.fetch(galaxy, one, tmp_path / "copy") == local
    assert json.loads((local / "history.json").read_text())["version"] == 1
    (local / "manifest.json").write_text("{}")
    with pytest.raises(DamageError, match="holds another release"):
        publish.fetch(galaxy, one, tmp_path / "copy")


def test_replies_that_say_simulated_are_so_whatever_the_settings_say(galaxy: Galaxy) -> None:
    real = changed(galaxy, simulated=False)
    assert not real.settings.simulated
    assert Harvest(real).simulated
    assert publish.material(Harvest(real)).simulated


def test_a_pair_whose_votes_are_pending_is_explained(galaxy: Galaxy) -> None:
    judges = tuple(judge.model_copy(update={"revision": "2"}) for judge in galaxy.settings.judges)
    pending = replace(galaxy, settings=galaxy.settings.model_copy(update={"judges": judges}))
    pair = next(iter(Harvest(pending).pairs))
    (fate,) = explain(pending, pair)["matches"]
    assert {each["accepted"] for each in fate["pairs"]} == {None}


def test_a_picked_file_may_be_broken(galaxy: Galaxy, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    settings = golden_settings(galaxy.settings.store, str(tmp_path / "images"))
    receipt = pipeline.ingest(replace(galaxy, settings=settings), "shapes", pick=lambda file: True)
    assert (receipt.files, receipt.images, len(receipt.rejects)) == (1, 0, 1)


def test_exit_codes(galaxy: Galaxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(galaxy.settings.model_dump(mode="json")), "utf-8")

    def pending(*_: Any, **__: Any) -> None:
        raise PendingError("not whole")

    monkeypatch.setattr("taskgalaxy_ops.cli.taxonomy.expand", pending)
    assert cli.main(["taxonomy", "expand", "--settings", str(file), "--quiet"]) == 3
    assert cli.main(["ingest", "--remove", "--settings", str(file)]) == 1
    (tmp_path / "a file").touch()
    assert cli.main(["report", "--settings", str(file), "--out", str(tmp_path / "a file" / "page.html")]) == 1


def test_what_another_home_holds_idle_is_not_spent(folder_store: Store) -> None:
    async def run() -> None:
        till = Till(Ledger(folder_store, Caps(max_cost=100, max_calls=None)))
        first, second = Purse(till, "a", 8), Purse(till, "b", 8)
        await first.back(await first.draw(12), 1)  # holds 96 of 100, used 1
        await second.back(await second.draw(12), 1)
        await asyncio.gather(first.close(), second.close())
        assert till.ledger.spent() == Spent(cost=2, calls=2)

    asyncio.run(run())


def test_a_draw_waits_for_calls_that_are_out_and_fails_when_none_is(folder_store: Store) -> None:
    async def run() -> None:
        till = Till(Ledger(folder_store, Caps(max_cost=100, max_calls=None)))
        purses = [Purse(till, home, 8) for home in "abc"]
        spent = []

        async def ask(purse: Purse, cost: int) -> None:
            block = await purse.draw(40)
            await asyncio.sleep(0)
            await purse.back(block, cost)
            spent.append(cost)

        await asyncio.gather(*(ask(purse, 2) for purse in purses for _ in range(5)))
        assert till.ledger.spent().calls - sum(held.calls_left for held in till.open.values()) == len(spent) == 15
        await asyncio.gather(*(ask(purse, 35) for purse in purses[:1]))
        with pytest.raises(BudgetError):
            await asyncio.wait_for(purses[1].draw(40), 10)
        for purse in purses:
            await purse.close()
        assert till.ledger.spent() == Spent(cost=65, calls=16)

    asyncio.run(run())


def test_free_calls_are_drawn_to_the_last_by_several_homes(folder_store: Store) -> None:
    async def run() -> None:
        till = Till(Ledger(folder_store, Caps(max_cost=None, max_calls=20)))
        purses = [Purse(till, home, 8) for home in "abcd"]
        sent: list[str] = []

        async def ask(purse: Purse) -> None:
            block = await purse.draw(0)
            sent.append(block)
            await asyncio.sleep(0)
            await purse.back(block, 0)

        found = await asyncio.gather(*(ask(purse) for purse in purses for _ in range(9)), return_exceptions=True)
        assert len(sent) == 20
        assert sum(isinstance(each, BudgetError) for each in found) == 16
        for purse in purses:
            await purse.close()
        assert till.ledger.spent() == Spent(cost=0, calls=20)

    asyncio.run(run())
