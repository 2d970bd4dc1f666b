"""A run that is cancelled: what was paid for is in the journal, and no lease is left behind."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from fakes import MemoryStore

from taskgalaxy_ops.generation.stages.vote import vote_template
from taskgalaxy_ops.inference.cancellation import completed
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models.http import Sender
from taskgalaxy_ops.models.reply import ModelReply
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import Model, parse_settings
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.leases import Lease, held
from taskgalaxy_ops.workspace import Workspace

_MODEL = {"name": "j", "model": "j", "base_url": "http://127.0.0.1:1", "simulated": True}
SETTINGS = parse_settings(
    {"teacher": {**_MODEL, "name": "t"}, "judges": [_MODEL], "vote": {"quorum": 1}, "run": {"block_calls": 1}}
)
TEMPLATE = vote_template("Vote.", SETTINGS.judges[0], True)
UNIT = TEMPLATE.unit(None, {"task_type": "a~b", "question": "?", "answer": "!"})
SERVED = {
    "choices": [{"index": 0, "message": {"content": json.dumps({"votes": [{"index": 1, "vote": 1, "reason": ""}]})}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}


class _Served(Gateway):
    """A gateway whose request was served when the cancellation comes: it keeps the reply, and ends a little later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def ask(self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        self.asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            reply = ModelReply(
                data=SERVED,
                units=list(units),
                template=template,
                block="b",
                ceiling=0,
                cost=0,
                attempts=1,
                seen=0,
                seconds=0.1,
                note={},
            )
            self.keep(context, reply, {units[0].key: Answer({"vote": 1})})
            raise


def _session(workspace: Workspace, gateway: Gateway, run_budget: RunBudget) -> InferenceSession:
    return InferenceSession(workspace.store, workspace.settings.run, gateway, run_budget, AskedShard(id="h"))


async def _asked(session: InferenceSession) -> None:
    async with session:
        await session.ask(lambda answers: [(TEMPLATE, [UNIT])] if UNIT.key not in answers else [])


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_reply_that_outlives_the_cancellation_is_written() -> None:
    workspace = Workspace(SETTINGS, MemoryStore())

    async def run() -> None:
        gateway = _Served()
        task = asyncio.create_task(_asked(_session(workspace, gateway, RunBudget(workspace.ledger()))))
        await gateway.asked.wait()
        await _cancelled(task)

    asyncio.run(run())
    assert Journal(workspace.store, "h").answers == {UNIT.key: Answer({"vote": 1})}
    assert not held(workspace.store, "h")


def test_a_reply_whose_budget_waits_its_turn_is_written_when_the_run_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = Workspace(SETTINGS, MemoryStore())

    async def run() -> None:
        budget, gateway, served = RunBudget(workspace.ledger()), Gateway(), asyncio.Event()

        async def post(model: Model, raw: bytes, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
            await budget.turn.acquire()  # another image shard has its turn with the ledger
            served.set()
            return 200, {}, json.dumps(SERVED).encode()

        monkeypatch.setattr(Sender, "post", lambda _, model, raw, seconds: post(model, raw, seconds))
        task = asyncio.create_task(_asked(_session(workspace, gateway, budget)))
        await served.wait()
        for _ in range(20):  # until the reply was read, and what it came to waits to be settled
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.1)
        budget.turn.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gateway.aclose()

    asyncio.run(run())
    journal = Journal(workspace.store, "h")
    assert journal.answers.keys() == {UNIT.key}
    assert workspace.ledger().spent().calls == 1


def _leases() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lease-")}


async def _cancel_while_taking(store: MemoryStore, free: Callable[[], None]) -> float:
    """Cancel a session whose lease is being taken; ``free`` lets the thread go on. Seconds until it has ended."""
    taking, workspace = threading.Event(), Workspace(SETTINGS, store)
    store.before = lambda operation, key: taking.set() if operation == "put" and "/lease/" in key else None
    gateway = _Served()
    task = asyncio.create_task(_asked(_session(workspace, gateway, RunBudget(workspace.ledger()))))
    await asyncio.to_thread(taking.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_later(0.2, free)
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


def test_a_lease_that_is_taken_while_the_run_is_cancelled_is_released() -> None:
    store, go, before = MemoryStore(), threading.Event(), _leases()

    def slow(operation: str, key: str) -> None:
        if operation == "put" and "/lease/" in key:
            go.wait(10)

    store.after = slow
    asyncio.run(_cancel_while_taking(store, go.set))
    assert _leases() <= before
    assert not held(store, "h")


def test_a_run_that_is_cancelled_waits_for_no_other_workers_lease() -> None:
    store, looked = MemoryStore(), threading.Event()
    workspace = Workspace(SETTINGS, store)

    async def run() -> float:
        gateway = _Served()
        store.before = lambda operation, key: looked.set() if operation == "age" and "/lease/" in key else None
        task = asyncio.create_task(_asked(_session(workspace, gateway, RunBudget(workspace.ledger()))))
        await asyncio.to_thread(looked.wait, 10)
        began = time.monotonic()
        await _cancelled(task)
        return time.monotonic() - began

    with Lease(store, "h"):
        before = _leases()
        assert asyncio.run(run()) < 5
    assert _leases() <= before


def test_work_that_must_be_completed_ends_before_the_cancellation_is_passed_on() -> None:
    ended: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.1)
        ended.append("work")
        return "done"

    async def run(times: int, made: Callable[[], Coroutine[Any, Any, str]]) -> str:
        task = asyncio.create_task(completed(made()))
        for _ in range(times):
            await asyncio.sleep(0.02)
            task.cancel()
        return await task

    assert asyncio.run(run(0, work)) == "done"
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run(3, work))
    assert ended == ["work", "work"]
