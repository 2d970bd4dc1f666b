"""What a harvest reads, and what it need not read: bills by home, releases that have nothing to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from golden.golden_store import golden_galaxy

from taskgalaxy_ops.generation.bill import Bill, bill
from taskgalaxy_ops.generation.results import Harvest
from taskgalaxy_ops.records import Reply
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import ReleaseSettings
from taskgalaxy_ops.storage import Store, keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log, LogEntry
from taskgalaxy_ops.usage import Tally
from taskgalaxy_ops.workspace import Galaxy


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
def galaxy(tmp_path: Path) -> Galaxy:
    return golden_galaxy(tmp_path / "store")


def watched(galaxy: Galaxy, **release: object) -> tuple[Galaxy, Watched]:
    store = Watched(galaxy.store)
    settings = galaxy.settings.model_copy(update={"release": ReleaseSettings(**release)})  # type: ignore[arg-type]
    return Galaxy(settings, store), store  # type: ignore[arg-type]


def plain(found: Bill) -> object:
    """As JSON: seconds, which are added up in any order, to three digits."""
    parts = {"all": {"": found.all}, "by_stage": found.by_stage, "by_model": found.by_model}
    told = {part: {name: tally.plain() for name, tally in by.items()} for part, by in parts.items()}
    return told, found.simulated


def added_up(galaxy: Galaxy) -> Bill:
    """A bill by its definition."""
    found = Bill()
    for home in [keys.TAXONOMY_HOME, *(home.home for home in galaxy.registry.homes())]:
        for reply in Journal(galaxy.store, home).replies():
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
    return Reply(f"r{number}", "expand", "new", (), {}, {"id": number}, usage, 7, 8, 9, "b", 1, 0, 1.0, 0.5)


def test_a_bill_is_the_sum_of_all_replies_and_reads_what_was_appended(galaxy: Galaxy) -> None:
    assert plain(bill(galaxy)) == plain(added_up(galaxy)) and bill(galaxy).all.calls > 0
    again, store = watched(galaxy)
    assert plain(bill(again)) == plain(added_up(galaxy))
    assert not [key for key in store.read if "/journal/" in key]
    home = galaxy.registry.homes()[0].home
    for made, change in (
        (home, lambda journal: [journal.add(reply(1)), journal.add(reply(2)), journal.flush()]),
        (keys.TAXONOMY_HOME, lambda journal: [journal.add(reply(3)), journal.flush()]),
        (home, lambda journal: journal.forget(["unit"], "f")),
    ):
        change(Journal(galaxy.store, made))
        again, store = watched(galaxy)
        assert plain(bill(again)) == plain(added_up(galaxy))
        assert {key.split("/")[1] for key in store.read if "/journal/" in key} == {made}
    new = bill(galaxy).by_model["new"]
    assert (new.calls, new.prompt_tokens, new.completion_tokens, new.cost, new.list_cost) == (3, 15, 6, 21, 24)


def test_a_bill_stands_whatever_becomes_of_the_journals_and_its_tallies(galaxy: Galaxy) -> None:
    home = galaxy.registry.homes()[0].home
    log = Log(galaxy.store, keys.journal(home))
    log.append(log.read()[0].body)  # a part that was written again counts once
    expected = plain(bill(galaxy))
    assert expected == plain(added_up(galaxy))
    log.compact()
    assert plain(bill(galaxy)) == expected
    galaxy.store.delete(keys.tally(home))
    assert plain(bill(galaxy)) == expected


def test_a_release_that_has_nothing_to_do_reads_no_rows(galaxy: Galaxy) -> None:
    made = publish.publish(watched(galaxy, cap=1)[0])
    assert made.made and made.funnel.rejects
    again, store = watched(galaxy, cap=1)
    harvest = Harvest(again)
    store.read.clear()
    second = publish.publish(again, harvest=harvest)
    assert (second.release, second.made, second.funnel) == (made.release, False, made.funnel)
    shards = [s for home in galaxy.registry.homes() for s in galaxy.shards.committed(home.home).values()]
    tables = {ref.key for shard in shards for ref in galaxy.shards.refs(shard).values()}
    assert not tables.intersection(store.read)


@pytest.mark.parametrize("change", [{"cap": 2}, {"cap": 1, "copy_images_up_to": 0}])
def test_other_rules_are_another_release(galaxy: Galaxy, change: dict[str, int]) -> None:
    first = publish.publish(watched(galaxy, cap=1)[0])
    second = publish.publish(watched(galaxy, **change)[0])
    assert second.made and second.release.content != first.release.content
    assert second.release.inputs != first.release.inputs


def test_a_release_of_before_that_tells_no_inputs_is_compared_by_its_content(galaxy: Galaxy) -> None:
    def older(entries: list[LogEntry]) -> list[LogEntry]:
        return [
            LogEntry(e.number, {name: v for name, v in e.body.items() if name not in {"inputs", "rejects"}})
            for e in entries
        ]

    Log(galaxy.store, keys.RELEASES_LOG).compact(older)
    (latest,) = publish.published(galaxy)
    assert latest.inputs == ""
    receipt = publish.publish(galaxy)
    assert not receipt.made and receipt.release == latest
    assert receipt.funnel == replace(latest, rejects=receipt.funnel.rejects).funnel


def test_a_release_is_fetched_as_it_was_written(galaxy: Galaxy, tmp_path: Path) -> None:
    made = publish.publish(watched(galaxy, cap=1)[0]).release
    folder = publish.fetch(galaxy, made, tmp_path / "copy")
    prefix = keys.release(made.version)
    there = {listed.key.removeprefix(prefix) for listed in galaxy.store.list(prefix)}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == there
    assert all((folder / path).read_bytes() == galaxy.store.get(prefix + path) for path in there)
