"""Edits: a forget is whole or not there, wherever it was killed, and counts for the stages that it concerns alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from fakes import KilledError, MemoryStore
from tiny import tiny_settings, tiny_workspace

from taskgalaxy_ops.operations.forget import forget
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.edits import Edits
from taskgalaxy_ops.storage.journal import Journal

YES = Answer({"fits": True})


def _reply(
    name: str, stage: str, answers: dict[str, Answer], *, seen: int = 0, usage: Mapping[str, int] | None = None
) -> Reply:
    """A reply of the model ``m`` with these answers, at a cost of one nano-dollar."""
    return Reply(
        reply=name,
        stage=stage,
        model="m",
        units=tuple(answers),
        answers=answers,
        raw={"id": "x"},
        usage=usage or {},
        cost=1,
        list_cost=1,
        ceiling=1,
        block="b",
        attempts=1,
        seen=seen,
        at=0.0,
        seconds=0.0,
    )


def _journal(store: MemoryStore, answers: dict[str, Answer], seen: int = 0) -> Journal:
    journal = Journal(store, "h")
    journal.add(_reply(f"r{journal.seen}", "filter", answers, seen=seen))
    journal.flush()
    return journal


def test_a_forget_counts_for_its_stages_alone() -> None:
    store = MemoryStore()
    _journal(store, {"u": YES, "v": YES, "w": YES})
    Edits(store).forget("h", {"filter": ["u"], "write": []})
    assert Edits(store).counts() == {("h", "filter"): 1}
    assert Journal(store, "h").answers == {"v": YES, "w": YES}
    Edits(store).forget("h", {"filter": ["v"], "vote": ["w"]})
    Edits(store).replaced("h", ["vote", "vote"])
    assert Edits(store).counts() == {("h", "filter"): 2, ("h", "vote"): 2}
    Edits(store).forget("h", {"filter": []})
    Edits(store).replaced("h", [])
    assert Edits(store).counts() == {("h", "filter"): 2, ("h", "vote"): 2}


def test_what_a_forget_shows_counts_no_token_twice() -> None:
    workspace = tiny_workspace(tiny_settings("x"), MemoryStore())
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 60, "reasoning_tokens": 15}
    journal = Journal(workspace.store, keys.TAXONOMY_SHARD)
    journal.add(_reply("r", "expand", {"u": YES}, usage=usage))
    journal.flush()
    assert forget(workspace, model="m").tokens == 120


@pytest.mark.parametrize("n", range(12))
@pytest.mark.parametrize("served", [True, False])
def test_a_forget_that_was_killed_is_whole_or_not_there(n: int, served: bool) -> None:
    store = MemoryStore()
    _journal(store, {"u": YES, "v": YES})
    count = 0

    def kill(operation: str, key: str) -> None:
        nonlocal count
        count += 1
        if count > n:
            raise KilledError

    if served:
        store.after = kill
    else:
        store.before = kill
    with contextlib.suppress(KilledError):
        Edits(store).forget("h", {"filter": ["u"]})
    store.before = store.after = lambda operation, key: None
    objects = dict(store.objects)
    read = Edits(store).counts(), Journal(store, "h", Edits(store).begun().get("h")).answers  # as one who only looks
    assert store.objects == objects
    counts = Edits(store).finish()  # what a run reads before it looks for shards
    journal = Journal(store, "h")
    assert (counts, journal.answers) in [({}, {"u": YES, "v": YES}), ({("h", "filter"): 1}, {"v": YES})]
    assert (counts, journal.answers) == read
    assert Edits(store).begun() == {}
    _journal(store, {"u": YES}, seen=journal.seen)
    assert Edits(store).counts() == counts
    assert Journal(store, "h").answers == {"u": YES, "v": YES}, "asked again once, and it stands"
