"""What run results read, and what they need not read: bills by image shard, releases that have nothing to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from golden.golden_store import golden_workspace

from taskgalaxy_ops.generation.bill import Bill, bill
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.records import Reply
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Workspace


class Watched:
    """A store that notes what is read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.read[key] += 1
        return self._store.get(key, start=start, length=length)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return golden_workspace(tmp_path / "store")


def watched(workspace: Workspace, **release: object) -> tuple[Workspace, Watched]:
    store = Watched(workspace.store)
    settings = workspace.settings.model_copy(update={"release": ReleaseSettings(**release)})  # type: ignore[arg-type]
    return Workspace(settings, store), store  # type: ignore[arg-type]


def plain(found: Bill) -> object:
    """As JSON: seconds, which are added up in any order, to three digits."""
    parts = {"all": {"": found.all}, "by_stage": found.by_stage, "by_model": found.by_model}
    told = {part: {name: tally.to_json() for name, tally in by.items()} for part, by in parts.items()}
    return told, found.simulated


def added_up(workspace: Workspace) -> Bill:
    """A bill by its definition."""
    found = Bill()
    for shard in [keys.TAXONOMY_SHARD, *(shard.id for shard in workspace.registry.shards())]:
        for reply in Journal(workspace.store, shard).replies():
            by = found.by_stage.setdefault(reply["stage"], Tally()), found.by_model.setdefault(reply["model"], Tally())
            found.simulated.update([reply["model"]] if reply["simulated"] else [])
            for tally in (found.all, *by):
                tally.calls += bool(reply["raw"])
                tally.units += len(reply["answers"])
                tally.simulated += bool(reply["simulated"])
                tally.seconds += reply["seconds"] if reply["raw"] else 0
                tally.prompt_tokens += reply["usage"].get("prompt_tokens", 0)
                tally.completion_tokens += reply["usage"].get("completion_tokens", 0)
                tally.cost += reply["cost"]
                tally.list_cost += reply["list_cost"]
    return found


def reply(number: int) -> Reply:
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    return Reply(
        reply=f"r{number}",
        stage="expand",
        model="new",
        units=(),
        answers={},
        raw={"id": number},
        usage=usage,
        cost=7,
        list_cost=8,
        ceiling=9,
        block="b",
        attempts=1,
        seen=0,
        at=1.0,
        seconds=0.5,
    )


def test_a_bill_is_the_sum_of_all_replies_and_reads_what_was_appended(workspace: Workspace) -> None:
    assert plain(bill(workspace)) == plain(added_up(workspace)) and bill(workspace).all.calls > 0
    again, store = watched(workspace)
    assert plain(bill(again)) == plain(added_up(workspace))
    assert not [key for key in store.read if "/journal/" in key]
    shard = workspace.registry.shards()[0].id
    for made, change in (
        (shard, lambda journal: [journal.add(reply(1)), journal.add(reply(2)), journal.flush()]),
        (keys.TAXONOMY_SHARD, lambda journal: [journal.add(reply(3)), journal.flush()]),
        (shard, lambda journal: journal.forget(["unit"], "f")),
    ):
        change(Journal(workspace.store, made))
        again, store = watched(workspace)
        assert plain(bill(again)) == plain(added_up(workspace))
        assert {key.split("/")[1] for key in store.read if "/journal/" in key} == {made}
    new = bill(workspace).by_model["new"]
    assert (new.calls, new.prompt_tokens, new.completion_tokens, new.cost, new.list_cost) == (3, 15, 6, 21, 24)


def test_a_bill_stands_whatever_becomes_of_the_journals_and_its_tallies(workspace: Workspace) -> None:
    shard = workspace.registry.shards()[0].id
    log = Log(workspace.store, keys.journal(shard))
    log.append(log.read()[0].body)  # a part that was written again counts once
    expected = plain(bill(workspace))
    assert expected == plain(added_up(workspace))
    log.compact()
    assert plain(bill(workspace)) == expected
    workspace.store.delete(keys.tally(shard))
    assert plain(bill(workspace)) == expected


def test_a_release_that_has_nothing_to_do_reads_no_rows(workspace: Workspace) -> None:
    made = publish.publish(watched(workspace, cap=1)[0])
    assert made.made and made.funnel.rejects
    again, store = watched(workspace, cap=1)
    results = RunResults(again)
    store.read.clear()
    second = publish.publish(again, results=results)
    assert (second.release, second.made, second.funnel) == (made.release, False, made.funnel)
    shards = [s for shard in workspace.registry.shards() for s in workspace.stage_outputs.committed(shard.id).values()]
    tables = {ref.key for stage_output in shards for ref in workspace.stage_outputs.refs(stage_output).values()}
    assert not tables.intersection(store.read)


@pytest.mark.parametrize("change", [{"cap": 2}, {"cap": 1, "copy_images_up_to": 0}])
def test_other_rules_are_another_release(workspace: Workspace, change: dict[str, int]) -> None:
    first = publish.publish(watched(workspace, cap=1)[0])
    second = publish.publish(watched(workspace, **change)[0])
    assert second.made and second.release.content != first.release.content
    assert second.release.inputs != first.release.inputs


def test_a_release_of_before_that_tells_no_inputs_is_compared_by_its_content(workspace: Workspace) -> None:
    def older(entries: list[LogEntry]) -> list[LogEntry]:
        return [
            LogEntry(e.number, {name: v for name, v in e.body.items() if name not in {"inputs", "rejects"}})
            for e in entries
        ]

    Log(workspace.store, keys.RELEASES_LOG).compact(older)
    (latest,) = publish.published(workspace)
    assert latest.inputs == ""
    receipt = publish.publish(workspace)
    assert not receipt.made and receipt.release == latest
    assert receipt.funnel == replace(latest, rejects=receipt.funnel.rejects).funnel


def test_a_release_is_fetched_as_it_was_written(workspace: Workspace, tmp_path: Path) -> None:
    made = publish.publish(watched(workspace, cap=1)[0]).release
    folder = publish.fetch(workspace, made, tmp_path / "copy")
    prefix = keys.release(made.version)
    there = {listed.key.removeprefix(prefix) for listed in workspace.store.list(prefix)}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == there
    assert all((folder / path).read_bytes() == workspace.store.get(prefix + path) for path in there)
