"""What a close reading found: each of these went wrong once. On the golden store, which needs no model."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden.golden_store import golden_settings, golden_workspace

from taskgalaxy_ops import cli, pipeline
from taskgalaxy_ops.errors import BudgetError, DamageError, NotFoundError, PendingError
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.generation.stages import filter as filter_stage
from taskgalaxy_ops.inference.gateway import CallContext
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.operations.explain import explain
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.ledger import Caps, Ledger, Spent
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return golden_workspace(tmp_path / "store")


def changed(workspace: Workspace, **of_each_model: Any) -> Workspace:
    """The same store under settings whose models differ."""
    judges = tuple(judge.model_copy(update=of_each_model) for judge in workspace.settings.judges)
    teacher = workspace.settings.teacher.model_copy(update=of_each_model)
    settings: Settings = workspace.settings.model_copy(update={"teacher": teacher, "judges": judges})
    return replace(workspace, settings=settings)


def test_a_image_shard_that_fails_is_one_plain_error_and_the_others_go_on(workspace: Workspace) -> None:
    other, broken = workspace.registry.shards()  # begun in this order
    made = workspace.stage_outputs.committed(broken.id)
    (matched,) = (stage_output for (stage, _), stage_output in made.items() if stage == "match")
    workspace.store.delete(workspace.stage_outputs.refs(matched)["matches"].key)
    for shard in (broken, other):
        for (stage, _), stage_output in workspace.stage_outputs.committed(shard.id).items():
            if stage in {"filter", "write", "vote"}:
                workspace.store.delete(stage_output.marker)
    with pytest.raises(DamageError, match="is gone"):
        pipeline.generate(workspace)
    assert {stage for stage, _ in workspace.stage_outputs.committed(other.id)} >= {"filter", "write", "vote"}


class Teacher:
    """A gateway in whose hands one image is gone while another's reply is under way."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def ask(self, question: RequestTemplate, units: list[RequestItem], context: CallContext) -> None:
        if units[0].image == "gone":
            self.failed.set()
            raise NotFoundError("blobs/gone")
        await self.failed.wait()
        await asyncio.sleep(0)
        said = {unit.key: Answer({"fits": True, "reason": ""}) for unit in units}
        names = tuple(unit.key for unit in units)
        context.journal.add(
            Reply(
                reply="r",
                stage="filter",
                model="t",
                units=names,
                answers=said,
                raw={"a": 1},
                usage={},
                cost=0,
                list_cost=0,
                ceiling=0,
                block="",
                attempts=1,
                seen=context.journal.seen,
                at=0,
                seconds=0,
            )
        )


def test_what_is_in_flight_when_an_image_is_gone_is_kept(workspace: Workspace) -> None:
    question = filter_stage.filter_template("?", workspace.settings.teacher)
    units = [question.unit(image, {"task_type": "a"}) for image in ("there", "gone")]
    shard = workspace.registry.shards()[0].id

    async def run() -> None:
        async with InferenceSession(
            workspace.store, workspace.settings.run, Teacher(), RunBudget(workspace.ledger()), AskedShard(id=shard)
        ) as session:  # type: ignore[arg-type]
            with pytest.raises(NotFoundError):
                await session.ask(lambda answers: [(question, [unit for unit in units if unit.key not in answers])])
            assert units[0].key in session.answers

    asyncio.run(run())


def test_verify_goes_on_past_a_damaged_list(workspace: Workspace) -> None:
    before = verify(workspace)
    first = workspace.registry.shards()[0]
    workspace.store.delete(first.images.key)
    found = verify(workspace)
    assert found.checked["release"] == before.checked["release"]
    assert found.checked["shard"] == before.checked["shard"]
    assert any(first.images.key in line and first.stage_output().marker in line for line in found.damage)


def test_verify_finds_a_marker_that_names_other_tables(workspace: Workspace) -> None:
    one, other = (
        next(
            stage_output
            for (stage, _), stage_output in workspace.stage_outputs.committed(shard.id).items()
            if stage == "match"
        )
        for shard in workspace.registry.shards()
    )
    workspace.store.replace(one.marker, json.dumps(workspace.stage_outputs.marker(other)).encode())
    (line,) = verify(workspace).damage
    assert one.marker in line


def test_verify_writes_nothing_and_loads_no_encoder(tmp_path: Path) -> None:
    empty = Workspace.open(golden_settings((tmp_path / "empty").as_uri(), "gone"))
    before = [listed.key for listed in empty.store.list("")]
    assert verify(empty).damage == []
    assert [listed.key for listed in empty.store.list("")] == before
    assert "encoder" not in empty.__dict__


def test_a_release_begun_before_the_latest_is_begun_anew(workspace: Workspace) -> None:
    log = Log(workspace.store, keys.RELEASES_LOG)
    log.append({"kind": "begin", "version": 2, "content": "old"})
    assert publish._begin(workspace, "old") == 2, "continued"
    log.append({"kind": "begin", "version": 3, "content": "new"})
    latest = publish.published(workspace)[-1]
    publish._finish(workspace, replace(latest, version=3, content="new"))
    assert publish._begin(workspace, "old") == 4


def test_a_content_that_another_published_meanwhile_is_not_published_again(workspace: Workspace) -> None:
    latest = publish.published(workspace)[-1]
    assert publish._begin(workspace, latest.content) == latest


def test_a_copy_is_not_laid_over_another_release(workspace: Workspace, tmp_path: Path) -> None:
    (one,) = publish.published(workspace)
    local = publish.fetch(workspace, one, tmp_path / "copy")
    assert publish.fetch(workspace, one, tmp_path / "copy") == local
    assert json.loads((local / "history.json").read_text())["version"] == 1
    (local / "manifest.json").write_text("{}")
    with pytest.raises(DamageError, match="holds another release"):
        publish.fetch(workspace, one, tmp_path / "copy")


def test_replies_that_say_simulated_are_so_whatever_the_settings_say(workspace: Workspace) -> None:
    real = changed(workspace, simulated=False)
    assert not real.settings.simulated
    assert RunResults(real).simulated
    assert publish.release_inputs(RunResults(real)).simulated


def test_a_pair_whose_votes_are_pending_is_explained(workspace: Workspace) -> None:
    judges = tuple(judge.model_copy(update={"revision": "2"}) for judge in workspace.settings.judges)
    pending = replace(workspace, settings=workspace.settings.model_copy(update={"judges": judges}))
    pair = next(iter(RunResults(pending).pairs))
    (fate,) = explain(pending, pair)["matches"]
    assert {each["accepted"] for each in fate["pairs"]} == {None}


def test_a_picked_file_may_be_broken(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    settings = golden_settings(workspace.settings.store, str(tmp_path / "images"))
    receipt = pipeline.ingest(replace(workspace, settings=settings), "shapes", pick=lambda file: True)
    assert (receipt.files, receipt.images, len(receipt.rejects)) == (1, 0, 1)


def test_exit_codes(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(workspace.settings.model_dump(mode="json")), "utf-8")

    def pending(*_: Any, **__: Any) -> None:
        raise PendingError("not whole")

    monkeypatch.setattr("taskgalaxy_ops.cli.taxonomy.expand", pending)
    assert cli.main(["taxonomy", "expand", "--settings", str(file), "--quiet"]) == 3
    assert cli.main(["ingest", "--remove", "--settings", str(file)]) == 1
    (tmp_path / "a file").touch()
    assert cli.main(["report", "--settings", str(file), "--out", str(tmp_path / "a file" / "page.html")]) == 1


def test_what_another_image_shard_holds_idle_is_not_spent(folder_store: Store) -> None:
    async def run() -> None:
        run_budget = RunBudget(Ledger(folder_store, Caps(max_cost=100, max_calls=None)))
        first, second = ShardBudget(run_budget, "a", 8), ShardBudget(run_budget, "b", 8)
        await first.back(await first.draw(12), 1)  # holds 96 of 100, used 1
        await second.back(await second.draw(12), 1)
        await asyncio.gather(first.close(), second.close())
        assert run_budget.ledger.spent() == Spent(cost=2, calls=2)

    asyncio.run(run())


def test_a_draw_waits_for_calls_that_are_out_and_fails_when_none_is(folder_store: Store) -> None:
    async def run() -> None:
        run_budget = RunBudget(Ledger(folder_store, Caps(max_cost=100, max_calls=None)))
        shard_budgets = [ShardBudget(run_budget, shard, 8) for shard in "abc"]
        spent = []

        async def ask(shard_budget: ShardBudget, cost: int) -> None:
            block = await shard_budget.draw(40)
            await asyncio.sleep(0)
            await shard_budget.back(block, cost)
            spent.append(cost)

        await asyncio.gather(*(ask(shard_budget, 2) for shard_budget in shard_budgets for _ in range(5)))
        assert (
            run_budget.ledger.spent().calls - sum(held.calls_left for held in run_budget.open.values())
            == len(spent)
            == 15
        )
        await asyncio.gather(*(ask(shard_budget, 35) for shard_budget in shard_budgets[:1]))
        with pytest.raises(BudgetError):
            await asyncio.wait_for(shard_budgets[1].draw(40), 10)
        for shard_budget in shard_budgets:
            await shard_budget.close()
        assert run_budget.ledger.spent() == Spent(cost=65, calls=16)

    asyncio.run(run())


def test_free_calls_are_drawn_to_the_last_by_several_image_shards(folder_store: Store) -> None:
    async def run() -> None:
        run_budget = RunBudget(Ledger(folder_store, Caps(max_cost=None, max_calls=20)))
        shard_budgets = [ShardBudget(run_budget, shard, 8) for shard in "abcd"]
        sent: list[str] = []

        async def ask(shard_budget: ShardBudget) -> None:
            block = await shard_budget.draw(0)
            sent.append(block)
            await asyncio.sleep(0)
            await shard_budget.back(block, 0)

        found = await asyncio.gather(
            *(ask(shard_budget) for shard_budget in shard_budgets for _ in range(9)), return_exceptions=True
        )
        assert len(sent) == 20
        assert sum(isinstance(each, BudgetError) for each in found) == 16
        for shard_budget in shard_budgets:
            await shard_budget.close()
        assert run_budget.ledger.spent() == Spent(cost=0, calls=20)

    asyncio.run(run())
