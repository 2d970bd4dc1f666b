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
from taskgalaxy_ops.operations.forecast import checked, forecast, record
from taskgalaxy_ops.operations.judges import judge_report
from taskgalaxy_ops.operations.plan import plan
from taskgalaxy_ops.operations.probe import probe
from taskgalaxy_ops.reports.pages.contact_sheet import report_data
from taskgalaxy_ops.reports.pages.forecast import forecast_page
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.reports.text.judges import judges
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage.ledger import NANO
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]

IMAGES = {"one": 120, "two": 80}
FEW = 12  # images of the source "few"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forecasts")
    tiny_seeds(root / "seeds.yaml")
    tiny_images(root / "one", IMAGES["one"])
    tiny_images(root / "two", IMAGES["two"], first=IMAGES["one"])
    tiny_images(root / "few", FEW, first=IMAGES["one"] + IMAGES["two"])
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


@pytest.fixture(scope="module")
def ingested(folder: Path) -> MemoryStore:
    made = tiny_workspace(settings_of(folder), MemoryStore())
    for name in IMAGES:
        pipeline.ingest(made, name)
    assert isinstance(made.store, MemoryStore)
    return made.store


@pytest.fixture
def workspace(folder: Path, ingested: MemoryStore, tiny_models: TinyModels) -> Workspace:
    store = MemoryStore()
    store.objects, store.written = dict(ingested.objects), dict(ingested.written)
    return tiny_workspace(settings_of(folder), store)


def again(workspace: Workspace) -> Workspace:
    return tiny_workspace(workspace.settings, workspace.store)


@pytest.fixture
def with_few(workspace: Workspace, folder: Path) -> Workspace:
    """The same store with a third source, of twelve images."""
    sources = {name: {"location": str(folder / name)} for name in (*IMAGES, "few")}
    made = tiny_workspace(settings_of(folder, sources=sources), workspace.store)  # type: ignore[arg-type]
    pipeline.ingest(made, "few")
    return made


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


def test_a_forecast_knows_how_many_answers_a_question_gets(workspace: Workspace, folder: Path) -> None:
    often = tiny_workspace(settings_of(folder, write={"variants": ["plain"], "answers": 3}), workspace.store)
    probe(often)
    made, before = forecast(often), often.ledger().spent()
    assert pipeline.generate(again(often)).pending == 0
    cost = (often.ledger().spent().cost - before.cost) / NANO
    assert made.cost.low < cost < made.cost.high
    assert abs(made.cost.expected / cost - 1) < 0.25, "of ten images"
    assert forecast(again(often)).cost.high == 0, "nothing is left"


@pytest.mark.parametrize("rule", ["mark", "reject"])
def test_a_forecast_knows_what_a_blind_probe_costs_and_saves(workspace: Workspace, folder: Path, rule: str) -> None:
    model = workspace.settings.judges[0].model_dump(mode="json") | {"name": "blind", "model": "blind"}
    blind = {"model": model, "tries": 2, "right": 1, "rule": rule}
    probed = tiny_workspace(settings_of(folder, vote={"blind": blind}), workspace.store)
    probe(probed)
    made, before = forecast(probed), probed.ledger().spent()
    assert pipeline.generate(again(probed)).pending == 0
    cost = (probed.ledger().spent().cost - before.cost) / NANO
    assert made.cost.low < cost < made.cost.high
    assert abs(made.cost.expected / cost - 1) < 0.25, "of ten images"
    assert forecast(again(probed)).cost.high == 0, "nothing is left"
    report = judge_report(again(probed))
    assert sum(asked for _, asked in report.blind["form"].values()) > 0
    assert (report.blind["form"]["plain"][0] > 0) and "asked without image" in "\n".join(judges(report))


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


def test_a_small_source_is_forecast_from_sources_that_the_run_leaves_out(
    with_few: Workspace, tiny_models: TinyModels
) -> None:
    pipeline.generate(with_few, pipeline.RunOptions(sources=["one"]))
    requests = tiny_models.requests
    asked = probe(again(with_few), sources=["few"], only_needed=True)
    assert (asked.images, asked.usage.calls, tiny_models.requests) == ({}, 0, requests), "the others tell enough"
    made = forecast(again(with_few), ["few"])
    (few,) = made.sources
    assert (made.unknown, few.elsewhere, few.images, few.measured) == ([], True, FEW, IMAGES["one"])
    assert few.cost.low < 0.05 * few.cost.expected and few.cost.high > 1.9 * few.cost.expected, "wide"
    before = with_few.ledger().spent().cost
    assert pipeline.generate(again(with_few), pipeline.RunOptions(sources=["few"])).pending == 0
    assert made.cost.low < (with_few.ledger().spent().cost - before) / NANO < made.cost.high
    told = "\n".join(costs_text.forecast(made, asked))
    assert "from 120 images of all sources" in told
    assert "few: too few images are answered, so it rests on those of all sources" in told
    assert "nothing had to be asked first" in told


def test_few_answers_of_its_own_count_with_those_of_others(with_few: Workspace, tiny_models: TinyModels) -> None:
    pipeline.generate(with_few, pipeline.RunOptions(sources=["one"]))
    requests = tiny_models.requests
    assert probe(again(with_few), sources=["few"]).images == {"few": 1}, "who asks for a probe gets one"
    assert tiny_models.requests > requests
    (few,) = forecast(again(with_few), ["few"]).sources
    assert (few.elsewhere, few.images, few.measured) == (True, FEW - 1, IMAGES["one"] + 1)
    assert few.cost.high > 1.9 * few.cost.expected


def test_a_larger_source_is_probed_although_others_tell_enough(with_few: Workspace) -> None:
    pipeline.generate(with_few, pipeline.RunOptions(sources=["one"]))
    assert probe(again(with_few), sources=["two", "few"], only_needed=True).images == {"two": 4}
    made = {each.source: each for each in forecast(again(with_few), ["two"]).sources}
    assert (made["two"].elsewhere, made["two"].measured) == (False, 4)


def test_sources_that_differ_widen_the_interval(with_few: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.generate(with_few, pipeline.RunOptions(sources=["one", "two"]))
    monkeypatch.setattr("taskgalaxy_ops.operations.forecast._UNLIKE", 0.0)
    made = forecast(again(with_few), ["few"])
    none = {"tokens": 0.0, "cost": 0.0, "list_cost": 0.0}
    monkeypatch.setattr("taskgalaxy_ops.operations.forecast._spread", lambda *_: none)
    alike = forecast(again(with_few), ["few"])
    assert made.cost.expected == alike.cost.expected
    assert made.cost.high > alike.cost.high


def test_what_a_probe_of_a_handful_brought_and_what_to_do_next(
    with_few: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not advise the command that was just run."""
    assert command(with_few, monkeypatch, "plan", "--probe", "--source", "few") == 0
    told = capsys.readouterr().out
    assert "probe     asked about 1 image of few: " in told
    assert "few: 1 of its 12 images answered in full (3 matches, " in told
    assert "a forecast takes 3. `taskgalaxy plan --source few --probe 3` asks about 3; or run it: at most " in told
    (few,) = forecast(again(with_few), ["few"]).too_few
    most = sum(each.units.high for each in plan(again(with_few), ["few"]).stages if each.stage in {"filter", "write"})
    assert (few.left, few.answered, few.matches) == (FEW - 1, 1, 3)
    assert few.most_units > most, "with votes"

    assert command(with_few, monkeypatch, "plan", "--probe", "6", "--source", "few", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["probe"]["images"] == {"few": 5}, "one of the six was answered"
    assert found["forecast"]["unknown"] == []
    assert [each["elsewhere"] for each in found["forecast"]["sources"]] == [False]


def test_a_probe_that_got_no_answer_says_so(
    with_few: Workspace,
    tiny_models: TinyModels,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_models.start(0)
    assert command(with_few, monkeypatch, "plan", "--probe", "--source", "few") == 0
    told = capsys.readouterr().out
    assert "probe     asked about 1 image of few: " in told
    assert "few: 1 image asked about, and none answered. Ask again later" in told
    assert "--probe" not in told.partition("forecast  ")[2]
    asked = probe(again(with_few), sources=["few"])
    assert asked.reasons
    page = forecast_page(forecast(again(with_few), ["few"]), ["few"], asked)
    assert "Probe: asked about 1 image of few" in page and "Ask again later" in page


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
    told = capsys.readouterr().out
    assert "one: none of its 120 images is answered, nor enough of other sources. `taskgalaxy plan --probe`, or" in told
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
