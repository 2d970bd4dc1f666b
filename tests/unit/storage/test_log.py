"""The log: numbers without gaps, one order for all, nothing lost and nothing twice, whatever is interleaved."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from fakes import MemoryStore, Schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgalaxy_ops.errors import DamageError, StoreError
from taskgalaxy_ops.storage import Store
from taskgalaxy_ops.storage import log as log_module
from taskgalaxy_ops.storage.log import Log, LogEntry


def _bodies(log: Log) -> list[object]:
    return [entry.body["n"] for entry in log.read()]


def test_entries_come_back_in_order_with_their_numbers(folder_store: Store) -> None:
    log = Log(folder_store, "l")
    assert log.read() == []
    assert log.last == 0
    for n in range(25):
        assert log.append({"n": n}) == LogEntry(n + 1, {"n": n})
    assert Log(folder_store, "l").read() == [LogEntry(n + 1, {"n": n}) for n in range(25)]
    assert log.known() == log.read()


def test_a_reader_reads_only_what_is_new() -> None:
    store = MemoryStore()
    writer, reader = Log(store, "l"), Log(store, "l")
    for n in range(5):
        writer.append({"n": n})
    reader.read()
    writer.append({"n": 5})
    fetched = []
    store.before = lambda operation, key: fetched.append(key) if operation == "get" else None
    assert _bodies(reader) == [0, 1, 2, 3, 4, 5]
    assert fetched == ["l/e/0000000006"]


def test_large_entries_are_compressed_and_any_text_comes_back(folder_store: Store) -> None:
    text = "é🪐\x00\ud800" * 3000
    Log(folder_store, "l").append({"text": text})
    (listed,) = folder_store.list("l/e/")
    assert listed.size < 5000
    assert Log(folder_store, "l").read()[0].body["text"] == text


def test_the_loser_of_a_number_decides_again() -> None:
    store = MemoryStore()
    mine, theirs = Log(store, "l"), Log(store, "l")
    seen = []

    def decide(entries: list[LogEntry]) -> dict[str, int]:
        seen.append(len(entries))
        if len(seen) == 1:
            theirs.append({"n": 0})
        return {"n": len(entries)}

    assert mine.append_if(decide) == LogEntry(2, {"n": 1})
    assert seen == [0, 1]


def test_declining_appends_nothing(folder_store: Store) -> None:
    log = Log(folder_store, "l")
    assert log.append_if(lambda entries: None) is None
    assert list(folder_store.list("l/")) == []


def test_a_compaction_keeps_what_it_is_told_to(folder_store: Store) -> None:
    log, other = Log(folder_store, "l"), Log(folder_store, "l")
    for n in range(6):
        log.append({"n": n})
    other.read()
    log.compact(lambda entries: [entry for entry in entries if entry.body["n"] % 2])
    assert [listed.key for listed in folder_store.list("l/")] == ["l/b/0000000006"]
    for reader in (log, other, Log(folder_store, "l")):
        assert [(entry.number, entry.body["n"]) for entry in reader.read()] == [(2, 1), (4, 3), (6, 5)]
        assert reader.last == 6
    assert log.append({"n": 6}).number == 7
    other.compact()
    assert _bodies(Log(folder_store, "l")) == [1, 3, 5, 6]
    assert [listed.key for listed in folder_store.list("l/")] == ["l/b/0000000007"]


def test_compacting_nothing_writes_nothing(folder_store: Store) -> None:
    log = Log(folder_store, "l")
    log.compact()
    assert list(folder_store.list("l/")) == []
    log.append({"n": 0})
    log.compact()
    log.compact()
    assert len(list(folder_store.list("l/"))) == 1


def test_an_entry_that_a_compaction_took_along_is_not_appended_again() -> None:
    store = MemoryStore()
    mine, theirs = Log(store, "l"), Log(store, "l")

    def compact_at_once(operation: str, key: str) -> None:
        if operation == "put" and "/e/" in key:
            store.after = lambda operation, key: None
            theirs.compact()

    store.after = compact_at_once
    mine.append({"n": 0})
    assert _bodies(mine) == _bodies(Log(store, "l")) == [0]


def test_an_entry_that_went_through_two_compactions_is_not_appended_again() -> None:
    store = MemoryStore()
    mine, theirs = Log(store, "l"), Log(store, "l")

    def compact_twice(operation: str, key: str) -> None:
        if operation == "put" and "/e/" in key:
            store.after = lambda operation, key: None
            theirs.compact()
            theirs.append({"n": 1})
            theirs.compact()

    store.after = compact_twice
    assert mine.append({"n": 0}).number == 1
    assert _bodies(mine) == _bodies(Log(store, "l")) == [0, 1]


def test_several_appends_cost_a_write_each_and_one_look() -> None:
    store = MemoryStore()
    log = Log(store, "l")
    log.append({"n": 0})
    asked = []
    store.before = lambda operation, key: asked.append(operation)
    entries = log.append_all({"n": n} for n in range(1, 4))
    assert asked == ["put", "put", "put", "list"]
    assert entries == log.known()[1:] == Log(store, "l").read()[1:]


def test_appending_nothing_asks_nothing() -> None:
    store = MemoryStore()
    asked = []
    store.before = lambda operation, key: asked.append(operation)
    assert Log(store, "l").append_all([]) == []
    assert asked == []


@pytest.mark.parametrize("after", [1, 2, 3])
def test_of_several_appends_those_that_a_compaction_overtook_are_appended_again(after: int) -> None:
    store = MemoryStore()
    mine, theirs = Log(store, "l"), Log(store, "l")
    written = 0

    def overtake(operation: str, key: str) -> None:
        nonlocal written
        if operation == "put" and "/e/" in key:
            written += 1
            if written == after:
                store.after = lambda operation, key: None
                theirs.append({"n": 10})
                theirs.append({"n": 11})
                theirs.compact()

    store.after = overtake
    entries = mine.append_all({"n": n} for n in range(3))
    assert sorted(entry.body["n"] for entry in entries) == [0, 1, 2]
    found = Log(store, "l").read()
    assert sorted(entry.body["n"] for entry in found) == [0, 1, 2, 10, 11]
    assert {entry.number: entry.body for entry in entries}.items() <= {e.number: e.body for e in found}.items()


def test_who_loses_one_number_after_another_gives_way_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    mine, theirs = Log(store, "l"), Log(store, "l")
    waited: list[float] = []
    monkeypatch.setattr(log_module.time, "sleep", waited.append)
    monkeypatch.setattr(log_module.random, "uniform", lambda least, most: most)
    left = 8

    def overtake(operation: str, key: str) -> None:
        nonlocal left
        if operation == "put" and left and not busy:
            left -= 1
            busy.append(True)
            theirs.append({"n": 0})
            busy.clear()

    busy: list[bool] = []
    store.before = overtake
    assert mine.append({"n": 1}).number == 9
    assert waited == sorted(waited)
    assert len(waited) == 6  # the first losses cost nothing: somebody was there by chance
    assert waited[-1] > 10 * waited[0]


def test_a_late_writer_under_a_replaced_number_appends_again() -> None:
    store = MemoryStore()
    mine, theirs = Log(store, "l"), Log(store, "l")
    mine.append({"n": 0})

    def overtake(operation: str, key: str) -> None:
        if operation == "put":
            store.before = lambda operation, key: None
            theirs.append({"n": 1})
            theirs.append({"n": 2})
            theirs.compact()

    store.before = overtake
    assert mine.append({"n": 3}).number == 4
    assert _bodies(mine) == _bodies(theirs) == _bodies(Log(store, "l")) == [0, 1, 2, 3]
    mine.sweep()
    assert sorted(store.objects) == ["l/b/0000000003", "l/e/0000000004"]


def test_a_log_that_always_changes_is_given_up_with_a_message() -> None:
    store = MemoryStore()
    log = Log(store, "l")
    log.append({"n": 0})
    store.objects["l/e/0000000009"] = store.objects["l/e/0000000001"]  # a gap that never closes
    with pytest.raises(StoreError, match="log l: it was compacted again and again"):
        log.read()


@pytest.mark.parametrize("spoil", [lambda raw: raw[: len(raw) // 2], lambda raw: b"[]", lambda raw: b"\xff\x00"])
@pytest.mark.parametrize("size", [10, 10_000])
def test_a_damaged_entry_is_named(spoil: Callable[[bytes], bytes], size: int) -> None:
    store = MemoryStore()
    Log(store, "l").append({"text": "".join(random.Random(0).choices("abcdef", k=size))})
    store.objects["l/e/0000000001"] = spoil(store.objects["l/e/0000000001"])
    with pytest.raises(DamageError, match="taskgalaxy verify"):
        Log(store, "l").read()


def test_a_flipped_bit_in_a_compressed_entry_is_named() -> None:
    raw_store = MemoryStore()
    Log(raw_store, "l").append({"text": "".join(random.Random(0).choices("abcdef", k=10_000))})
    raw = raw_store.objects["l/e/0000000001"]
    for position in range(2, len(raw), 97):
        if 4 <= position < 10:
            continue  # date, flags and system: no part of the content
        raw_store.objects["l/e/0000000001"] = raw[:position] + bytes([raw[position] ^ 0x10]) + raw[position + 1 :]
        with pytest.raises(DamageError):
            Log(raw_store, "l").read()


@settings(max_examples=200)
@given(
    order=st.randoms(use_true_random=False),
    plan=st.lists(st.lists(st.sampled_from("aabbrc"), min_size=1, max_size=6), min_size=2, max_size=4),
)
def test_every_append_stands_exactly_once_in_one_order(order: random.Random, plan: list[list[str]]) -> None:
    """Actors append one or three, read and compact, interleaved at every operation on the store."""
    store = MemoryStore()
    schedule = Schedule(store, order.randrange)
    returned: dict[tuple[int, ...], int] = {}
    readings: list[list[tuple[int, str]]] = []

    def reading(log: Log) -> list[tuple[int, str]]:
        return [(entry.number, json.dumps(entry.body)) for entry in log.read()]

    def actor(number: int, steps: list[str]) -> Callable[[], None]:
        def work() -> None:
            log = Log(store, "l")
            for step, what in enumerate(steps):
                if what == "a":
                    returned[number, step] = log.append({"n": [number, step]}).number
                elif what == "b":
                    several = log.append_all({"n": [number, step, n]} for n in range(3))
                    returned.update((tuple(entry.body["n"]), entry.number) for entry in several)
                elif what == "r":
                    readings.append(reading(log))
                else:
                    log.compact()

        return work

    schedule.run([actor(number, steps) for number, steps in enumerate(plan)])
    final = reading(Log(store, "l"))
    assert sorted(body for _, body in final) == sorted(json.dumps({"n": list(key)}) for key in returned)
    assert {tuple(json.loads(body)["n"]): number for number, body in final} == returned
    assert [number for number, _ in final] == sorted(returned.values())
    for seen in readings:  # what anyone ever saw is a beginning of what stands
        assert seen == final[: len(seen)]


@settings(max_examples=200)
@given(order=st.randoms(use_true_random=False), steps=st.integers(1, 60))
def test_a_writer_killed_anywhere_leaves_a_whole_log(order: random.Random, steps: int) -> None:
    store = MemoryStore()
    schedule = Schedule(store, order.randrange)
    acknowledged = []
    left = steps

    def kill(actor: int) -> bool:
        nonlocal left
        left -= actor == 0
        return left == 0

    def dies() -> None:
        log = Log(store, "l")
        for n in range(4):
            acknowledged.append(log.append({"n": n}).body["n"])
            log.compact()

    def lives() -> None:
        log = Log(store, "l")
        for n in range(10, 13):
            acknowledged.append(log.append({"n": n}).body["n"])

    schedule.run([dies, lives], kill)
    found = _bodies(Log(store, "l"))
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found)) <= len(acknowledged) + 1
    Log(store, "l").append({"n": 99})
    assert _bodies(Log(store, "l")) == [*found, 99]
