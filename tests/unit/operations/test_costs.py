"""What was paid adds up, however it is broken down; requests that units share are divided without a rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from hypothesis import given
from hypothesis import strategies as st
from tiny import TYPES, TinyModels, tiny_images, tiny_models, tiny_seeds, tiny_settings, tiny_workspace

from taskgalaxy_ops import cli, pipeline
from taskgalaxy_ops.operations.costs import NOT_RECORDED, TAKEN_DOWN, Costs, costs, shares
from taskgalaxy_ops.operations.takedown import take_down
from taskgalaxy_ops.reports.text import costs as costs_text
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.workspace import Workspace

__all__ = ["tiny_models"]


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Two sources that share an image, and models that cost money."""
    raw = tiny_settings("x").model_dump(mode="json")
    paid = {"price": {"input": 1, "output": 3}, "list_price": None}
    sources = {
        "one": {"location": str(tiny_images(folder / "one", 5))},
        "two": {"location": str(tiny_images(folder / "two", 3, first=4))},
    }
    models = {"teacher": raw["teacher"] | paid, "judges": [each | paid for each in raw["judges"]]}
    seeds = {"seeds": str(tiny_seeds(folder / "seeds.yaml"))}
    return tiny_settings("x", **{"sources": sources, "taxonomy": seeds, **models, **changes})


@pytest.fixture
def workspace(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """A store that two runs have paid for, the first of them about one source alone."""
    store, settings = MemoryStore(), settings_of(tmp_path)
    for name in ("one", "two"):
        made = tiny_workspace(settings, store)
        pipeline.ingest(made, name)
        assert pipeline.generate(made).pending == 0
    return tiny_workspace(settings, store)


def adds_up(found: Costs) -> bool:
    whole = (found.total.cost, found.total.list_cost, found.total.tokens)
    every = [found.role, found.stage, found.model, found.source, found.run, found.task_type]
    return all(
        tuple(sum(getattr(each, name) for each in part.values()) for name in ("cost", "list_cost", "tokens")) == whole
        for part in every
    )


def test_every_breakdown_adds_up_and_to_what_the_ledger_spent(workspace: Workspace) -> None:
    found = costs(workspace, task_types=True)
    assert adds_up(found)
    assert found.total.cost == workspace.ledger().spent().cost > 0
    assert found.total.tokens == workspace.ledger().spent().tokens
    assert set(found.role) == {"teacher", "judge"} and set(found.model) == {"teacher", "a", "b", "c"}
    assert set(found.task_type) <= set(TYPES)
    assert len(found.run) == 2
    assert workspace.ledger().spent(("source", "one")).cost == found.source["one"].cost
    for run, tally in found.run.items():
        assert workspace.ledger().spent(("run", run)).cost == tally.cost


def test_what_two_sources_claim_counts_for_the_one_that_brought_it(workspace: Workspace) -> None:
    """Image 4 is in both: it was asked about once, when the first was run."""
    found = costs(workspace)
    assert found.source["one"].cost > found.source["two"].cost > 0
    assert sum(tally.units for tally in found.source.values()) == found.total.units
    assert sorted(workspace.registry.origins().values()) == ["one", "one", "one", "two"], (
        "homes of two images, and of one"
    )
    workspace.registry.remove("one")
    assert costs(workspace).source == found.source, "history, whatever becomes of the source"


def test_a_take_down_leaves_the_sums(workspace: Workspace) -> None:
    before = costs(workspace, task_types=True)
    image = workspace.registry.image_ids(workspace.registry.shards()[0])[0]
    take_down(workspace, [image], "asked to")
    after = costs(tiny_workspace(workspace.settings, workspace.store), task_types=True)
    assert adds_up(after)
    assert (after.total.cost, after.source) == (
        before.total.cost,
        before.source,
    ) or after.total.cost == before.total.cost
    assert after.task_type[TAKEN_DOWN].cost > 0


def test_journals_of_an_older_version_are_read(workspace: Workspace) -> None:
    """Without run and task types in their replies."""
    before = costs(workspace)

    def older(entries: list[LogEntry]) -> list[LogEntry]:
        def plain(reply: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in reply.items() if name not in {"run", "types"}}

        return [
            LogEntry(e.number, {**e.body, "replies": [plain(r) for r in e.body["replies"]]})
            if e.body["kind"] == "replies"
            else e
            for e in entries
        ]

    for shard in workspace.journals():
        Log(workspace.store, keys.journal(shard)).compact(older)
        workspace.store.delete(keys.tally(shard))
    found = costs(tiny_workspace(workspace.settings, workspace.store), task_types=True)
    assert adds_up(found)
    assert found.total == before.total
    assert set(found.run) == set(found.task_type) == {NOT_RECORDED}


@given(
    amounts=st.tuples(*[st.integers(0, 10**12)] * 3),
    units=st.integers(1, 40),
)
def test_a_shared_request_is_divided_without_a_rest(amounts: tuple[int, int, int], units: int) -> None:
    tokens, cost, list_cost = amounts
    reply = {
        "raw": {"id": 1},
        "units": [f"u{n}" for n in range(units)],
        "types": [f"type {n % 3}" for n in range(units)],
        "usage": {"prompt_tokens": tokens // 3, "completion_tokens": tokens - tokens // 3, "cached_tokens": 9},
        "cost": cost,
        "list_cost": list_cost,
    }
    found = list(shares(reply, "-"))
    assert [sum(part[place] for part in found) for place in (1, 2, 3, 4)] == [units, tokens, cost, list_cost]
    for place in (2, 3, 4):
        parts = [part[place] for part in found]
        assert max(parts) - min(parts) <= 1
    assert list(shares({**reply, "raw": {}}, "-")) == []


def test_people_read_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = costs_text.costs(costs(workspace, task_types=True))
    text = "\n".join(lines)
    assert lines[0].startswith("paid      $0.0")
    for word in ("by role", "by model", "by source", "by run", "by task type", "judge", "two", "UTC", "tokens"):
        assert word in text
    monkeypatch.setattr("taskgalaxy_ops.cli.look.workspace_of", lambda chosen: workspace)
    assert cli.main(["costs", "--json"]) == 0
    assert '"cost"' in capsys.readouterr().out
