"""A forecast is what the rest of a run comes to, in its interval; a probe is small, kept, and drawn from everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import cli, pipeline
from taskgalaxy_ops.generation.bill import bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.forecast import checked, forecast, probe, record
from taskgalaxy_ops.reports.pages.contact_sheet import report_data
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

IMAGES = {"one": 120, "two": 80}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forecasts")
    tiny_seeds(root / "seeds.yaml")
    tiny_images(root / "one", IMAGES["one"])
    tiny_images(root / "two", IMAGES["two"], first=IMAGES["one"])
    return root


def settings_of(folder: Path, **changes: Any) -> Settings:
    raw = tiny_settings("x").model_dump(mode="json")
    paid = {"price": {"input": 1, "output": 3}}
    return tiny_settings(
        "x",
        **{
            "sources": {name: {"location": str(folder / name)} for name in IMAGES},
            "ingest": {"shard_images": 16, "min_side": 8},
            "taxonomy": {"seeds": str(folder / "seeds.yaml")},
            "teacher": raw["teacher"] | paid,
            "judges": [each | paid for each in raw["judges"]],
            "budget": {"max_cost": None, "max_calls": None},
            **changes,
        },
    )


@pytest.fixture
def workspace(folder: Path, tiny_models: TinyModels) -> Workspace:
    made = tiny_workspace(settings_of(folder), MemoryStore())
    for name in IMAGES:
        pipeline.ingest(made, name)
    return made


def again(workspace: Workspace) -> Workspace:
    return tiny_workspace(workspace.settings, workspace.store)


def test_nothing_is_known_before_anything_was_asked(workspace: Workspace, tiny_models: TinyModels) -> None:
    found = forecast(workspace)
    assert found.unknown == ["one", "two"]
    assert found.cost.high == 0
    assert tiny_models.requests == 0


def test_a_probe_is_at_most_one_image_in_twenty_of_each_source_and_is_kept(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    probe(workspace)
    images = {unit[4] for unit in tiny_models.seen}
    assert len(images) == 6 + 4
    asked, requests = set(tiny_models.seen), tiny_models.requests
    probe(again(workspace))
    assert tiny_models.requests == requests, "enough is known"
    assert pipeline.generate(again(workspace)).pending == 0
    assert all(tiny_models.seen[unit] == 1 for unit in asked), "nothing of it is asked again"


def test_a_probe_may_be_smaller_and_covers_more_than_one_shard(workspace: Workspace, tiny_models: TinyModels) -> None:
    probe(workspace, images=6)
    assert len({unit[4] for unit in tiny_models.seen}) == 3 + 3
    shards = [
        shard.id for shard in workspace.registry.shards() if list(workspace.store.list(f"homes/{shard.id}/journal/e/"))
    ]
    assert len(shards) > 2


def test_a_forecast_holds(workspace: Workspace) -> None:
    probe(workspace)
    made = forecast(again(workspace))
    record(workspace, made)
    before = workspace.ledger().spent()
    assert [each.images for each in made.sources] == [IMAGES["one"] - 6, IMAGES["two"] - 4]
    assert pipeline.generate(again(workspace)).pending == 0
    after = workspace.ledger().spent()
    cost, tokens = (after.cost - before.cost) / NANO, after.tokens - before.tokens
    assert made.cost.low < cost < made.cost.high
    assert made.tokens.low < tokens < made.tokens.high
    assert abs(made.cost.expected / cost - 1) < 0.25, "of ten images"
    assert made.cost.high < 2 * made.cost.low
    found = checked(again(workspace))
    assert found is not None
    assert (round(found.spent, 9), found.spent_tokens, found.cost) == (round(cost, 9), tokens, made.cost)
    assert forecast(again(workspace)).cost.high == 0, "nothing is left"


def test_a_forecast_at_list_prices_is_checked_at_list_prices(workspace: Workspace, folder: Path) -> None:
    raw = workspace.settings.model_dump(mode="json")
    free = {"price": {"input": 0, "output": 0}, "list_price": {"input": 1, "output": 3}}
    settings = settings_of(folder, teacher=raw["teacher"] | free, judges=[each | free for each in raw["judges"]])
    probe(tiny_workspace(settings, workspace.store))
    probed = bill(tiny_workspace(settings, workspace.store)).all.list_cost
    made = forecast(tiny_workspace(settings, workspace.store))
    record(workspace, made)
    assert pipeline.generate(tiny_workspace(settings, workspace.store)).pending == 0
    after = tiny_workspace(settings, workspace.store)
    found = checked(after)
    assert found is not None
    assert (found.spent, found.cost.high, found.list_cost) == (0, 0, made.list_cost)
    assert found.spent_list == pytest.approx((bill(after).all.list_cost - probed) / NANO)
    assert made.list_cost.low < found.spent_list < made.list_cost.high
    record(after, forecast(after))
    assert checked(after) == found, "one of nothing takes no other's place"
    shown = dict(report_data(RunResults(after)).forecast)
    assert shown["at list prices, spent since"] == f"${found.spent_list:,.4f}"


def test_images_that_fell_out_at_once_do_not_tell_what_the_others_come_to(
    workspace: Workspace, tiny_models: TinyModels
) -> None:
    pipeline.generate(workspace, pipeline.RunOptions(last_stage="filter"))
    assert forecast(again(workspace)).unknown == ["one", "two"], "nothing was written yet, and much fits"


@pytest.mark.parametrize("replies", [40, 150, 400])
def test_a_run_that_was_broken_off_tells_of_the_rest(
    workspace: Workspace, tiny_models: TinyModels, replies: int
) -> None:
    """Wherever it was: images that are answered in part lean neither way."""
    tiny_models.start(replies)
    pipeline.generate(workspace)
    made = forecast(again(workspace))
    tiny_models.start(None)
    before = workspace.ledger().spent().tokens
    assert pipeline.generate(again(workspace)).pending == 0
    if not made.unknown:
        tokens = workspace.ledger().spent().tokens - before
        spread = made.tokens.high - made.tokens.expected
        assert abs(made.tokens.expected - tokens) < 2 * spread


def test_a_source_of_which_too_little_is_known_is_reckoned_from_the_others(workspace: Workspace) -> None:
    pipeline.generate(workspace, pipeline.RunOptions(sources=["one"]))
    made = {each.source: each for each in forecast(again(workspace)).sources}
    assert made["two"].elsewhere and made["two"].cost.expected > 0
    assert made["one"].images == 0


def test_prices_of_today_count(workspace: Workspace, folder: Path) -> None:
    probe(workspace)
    raw = workspace.settings.model_dump(mode="json")
    twice = {"price": {"input": 2, "output": 6}}
    dearer = settings_of(folder, teacher=raw["teacher"] | twice, judges=[each | twice for each in raw["judges"]])
    once = forecast(again(workspace)).cost.expected
    assert forecast(tiny_workspace(dearer, workspace.store)).cost.expected == pytest.approx(2 * once)


def test_a_model_that_goes_by_batch_is_forecast_at_its_discount(workspace: Workspace, folder: Path) -> None:
    probe(workspace)
    raw = workspace.settings.model_dump(mode="json")
    batch = {"mode": "batch"}
    cheaper = settings_of(folder, teacher=raw["teacher"] | batch, judges=[each | batch for each in raw["judges"]])
    once = forecast(again(workspace)).cost.expected
    assert forecast(tiny_workspace(cheaper, workspace.store)).cost.expected == pytest.approx(once / 2)


def command(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    for module in ("run", "look"):
        monkeypatch.setattr(f"taskgalaxy_ops.cli.{module}.workspace_of", lambda chosen: again(workspace))
    return cli.main([*arguments, "--quiet"])


def test_the_commands_tell_it(
    workspace: Workspace, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(workspace, monkeypatch, "plan", "--cost") == 0
    assert "one: too little is answered yet. `taskgalaxy plan --probe` asks a little" in capsys.readouterr().out
    assert tiny_models.requests == 0
    assert command(workspace, monkeypatch, "plan", "--cost", "--probe") == 0
    told = capsys.readouterr().out
    assert "114 images left" in told and "from 6 images" in told and "together" in told
    requests = tiny_models.requests
    assert command(workspace, monkeypatch, "plan", "--cost", "--json") == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["cost"]["expected"] > 0
    assert tiny_models.requests == requests
    assert command(workspace, monkeypatch, "generate") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("forecast  of ") and "since then $0." in last
    assert command(workspace, monkeypatch, "status") == 0
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_run_whose_budget_ends_says_what_the_rest_would_cost_and_what_to_raise(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capped = tiny_workspace(
        settings_of(folder, budget={"max_cost": None, "max_calls": None, "run": {"max_cost": 0.1}}), workspace.store
    )
    assert command(capped, monkeypatch, "generate") == 3
    told = capsys.readouterr().out
    assert "(budget.run.max_cost)" in told and "raise the cap (budget.run) and run again" in told
    assert "the rest would cost about $0." in told
    first = workspace.ledger().spent().cost
    assert 0.05 * NANO < first <= 0.1 * NANO
    assert command(capped, monkeypatch, "generate") == 3, "another run has a budget of its own"
    assert first < workspace.ledger().spent().cost <= 2 * 0.1 * NANO


def test_a_source_whose_budget_ends_leaves_the_others_theirs(workspace: Workspace, folder: Path) -> None:
    budget = {"max_cost": None, "max_calls": None, "sources": {"one": {"max_calls": 20}}, "day": {"max_tokens": 10**9}}
    result = pipeline.generate(tiny_workspace(settings_of(folder, budget=budget), workspace.store))
    assert result.unaffordable and result.pending
    assert workspace.ledger().spent(("source", "one")).calls == 20
    left = {each.source: each.images for each in forecast(again(workspace)).sources}
    assert left["two"] == 0 < left["one"]


def test_a_model_without_a_price_is_not_asked_while_money_is_counted(
    workspace: Workspace,
    folder: Path,
    tiny_models: TinyModels,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = workspace.settings.model_dump(mode="json")
    monkeypatch.setenv(raw["teacher"]["api_key_env"], "a key")
    paid = raw["teacher"] | {"base_url": "https://models.example/v1", "simulated": False, "price": None}
    capped = settings_of(folder, teacher=paid, budget={"max_cost": 5})
    result = pipeline.generate(tiny_workspace(capped, workspace.store))
    assert tiny_models.requests == 0
    assert any("is not known. Set its `price` in the settings" in reason for reason in result.reasons)
    free = settings_of(folder, teacher=paid, budget={"max_cost": None})
    assert pipeline.generate(tiny_workspace(free, workspace.store)).pending == 0
    assert command(tiny_workspace(free, workspace.store), monkeypatch, "plan", "--cost") == 0
    assert "unknown   model 'teacher': what 'teacher' costs at https://models.example/v1" in capsys.readouterr().out
