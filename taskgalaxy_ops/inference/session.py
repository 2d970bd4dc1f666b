"""Asking for one image shard: its lease, its budget, its journal; rounds of requests until no unit lacks an answer.

What expand, filter, write and vote have in common. The lease is taken only when something must be asked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from taskgalaxy_ops.errors import BudgetError, LeaseLostError, NotFoundError, TaskGalaxyError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference import batch_session, batch_wait
from taskgalaxy_ops.inference.cancellation import completed
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.rendering import render, rendered
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate, rendering
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import Model, RunSettings
from taskgalaxy_ops.storage import Store, keys, link
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import Shown

Answers = Mapping[str, Answer]
Needed = Callable[[Answers], list[tuple[RequestTemplate, list[RequestItem]]]]

_IMAGES_KEPT = 64  # rendered images in memory: requests of one image come one after another
_BATCH_HOURS = 24  # that a provider may take for a batch
_MOST_LINK_HOURS = 168  # S3 signs no URL for longer
_TICK_SECONDS = 0.2  # how often a part that is due is looked for


class InferenceSession:
    """Asks for one image shard. An asynchronous context: on leaving, the budget is settled and the lease released."""

    def __init__(
        self,
        store: Store,
        settings: RunSettings,
        gateway: Gateway | None,
        run_budget: RunBudget,
        shard: str,
        answered: Callable[[str, int], None] = lambda stage, units: None,
        begun: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``begun``: edits of the image shard that are not done, for a session that asks nothing (``Edits.begun``)."""
        self._begun = begun
        self._store = store
        self._settings = settings
        self._gateway = gateway
        self._run_budget = run_budget
        self._shard = shard
        self._answered = answered
        self._journal: Journal | None = None
        self._lease: Lease | None = None
        self._shard_budget: ShardBudget | None = None
        self._batches: batch_session.ShardBatches | None = None
        self._stages: set[str] = set()  # whose batches were looked at
        self._ended: TaskGalaxyError | None = None
        self._images: dict[tuple[str, int, int, str], Future[str]] = {}
        self._rendering = threading.Lock()

    @property
    def stopped(self) -> str:
        """Why asking ended early; "" if it did not."""
        return str(self._ended or "")

    @property
    def asked(self) -> bool:
        """Whether anything was to be sent."""
        return self._lease is not None

    @property
    def held(self) -> bool:
        """Whether asking ended because another worker holds the image shard, or took it."""
        return isinstance(self._ended, LeaseLostError)

    @property
    def spent(self) -> bool:
        """Whether asking ended because a cap of the budget was reached."""
        return isinstance(self._ended, BudgetError)

    @property
    def answers(self) -> Answers:
        """Every unit's answer in the image shard's journal."""
        if self._journal is None:
            self._journal = Journal(self._store, self._shard, self._begun)
        return self._journal.answers

    @property
    def replies(self) -> Iterable[Mapping[str, Any]] | None:
        """What every reply in the image shard's journal came to; None if it was not read."""
        return None if self._journal is None else self._journal.outlines()

    @property
    def waiting(self) -> list[batch_wait.PendingBatch]:
        """The image shard's batches that have not ended, of the stages that were asked.

        Asking again would collect these.
        """
        if self._journal is None:
            return []
        batches = self._journal.batches
        mine = {nonce: intent for nonce, intent in batches.open.items() if intent["stage"] in self._stages}
        return batch_wait.awaited(mine, batches.ids)

    async def __aenter__(self) -> InferenceSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._shard_budget:
                await self._shard_budget.close()
        finally:
            if self._lease:
                await completed(asyncio.to_thread(self._lease.__exit__, None, None, None))

    async def ask(self, needed: Needed) -> int:
        """Ask what ``needed`` says, in rounds until nothing new is; gives how many units lacked an answer at first.

        A unit that gets no reply stays pending: the next run asks for it; so does one that goes by batch, until that is
        collected. Without a gateway nothing is asked.
        Raises TaskGalaxyError (an image is gone, the store fails) once what is in flight is kept.
        """
        answers = await asyncio.to_thread(lambda: self.answers)
        lacking = needed(answers)
        first = len({unit.key for _, units in lacking for unit in units})
        # Who died between a batch's replies and its end has left nothing to ask, and a block of the budget.
        left = {intent["stage"] for intent in self._opened().batches.open.values()}
        if not (first or left.intersection(template.stage for template, _ in lacking)):
            return first
        if self._gateway is None or self._ended:
            return first
        try:
            batches = await self._prepare(self._gateway)
            self._stages.update(template.stage for template, _ in lacking)
            if self._opened().batches.open:
                found = needed(answers)
                await batches.collect(
                    {template.stage: template for template, _ in found},
                    {unit.key: unit for _, units in found for unit in units},
                )
            asked: set[str] = set()
            while requests := self._requests(needed(answers), asked):
                asked.update(unit.key for _, part in requests for unit in part)
                if chats := [request for request in requests if request[0].model.mode == "chat"]:
                    await self._send(chats, self._gateway)
                await batches.submit([request for request in requests if request[0].model.mode == "batch"])
        except (BudgetError, LeaseLostError) as error:
            self._ended = error
        return first

    def _requests(
        self, needed: Iterable[tuple[RequestTemplate, list[RequestItem]]], asked: set[str]
    ) -> list[tuple[RequestTemplate, list[RequestItem]]]:
        size = self._settings.units_a_request
        taken = asked | self._opened().batches.under_way
        requests: list[tuple[RequestTemplate, list[RequestItem]]] = []
        for template, units in needed:
            by_image: dict[str, list[RequestItem]] = {}
            for unit in {unit.key: unit for unit in units if unit.key not in taken}.values():
                # A question without a list of items is one unit a request.
                by_image.setdefault(unit.image or unit.key, []).append(unit)
            requests += [
                (template, part[at : at + size]) for part in by_image.values() for at in range(0, len(part), size)
            ]
        # An image's requests to several models one after another: it is read and rendered once for them.
        return sorted(requests, key=lambda request: request[1][0].image or "")

    async def _prepare(self, gateway: Gateway) -> batch_session.ShardBatches:
        if self._batches is not None:
            return self._batches
        run, journal = self._settings, self._opened()
        await self._take_lease()
        await asyncio.to_thread(journal.refresh)  # the former holder may have answered meanwhile
        async with self._run_budget.turn:
            await asyncio.to_thread(self._settle_orphans, journal)
        self._shard_budget = ShardBudget(self._run_budget, self._shard, run.block_calls)
        context = CallContext(journal, self._shard_budget, str, self._check)
        self._batches = batch_session.ShardBatches(
            run.batch, gateway, self._run_budget, self._shard, context, self._image_url, self._answered
        )
        return self._batches

    async def _take_lease(self) -> None:
        """Take the lease in a thread. Where this is cancelled meanwhile, a lease that was taken is there to release."""
        seconds, given_up = self._settings.lease_seconds, threading.Event()

        async def take() -> None:
            self._lease = await asyncio.to_thread(
                Lease, self._store, self._shard, seconds=seconds, wait=seconds + 10, given_up=given_up.is_set
            )

        taking = asyncio.ensure_future(take())
        try:
            await asyncio.shield(taking)
        except asyncio.CancelledError:
            given_up.set()  # where another worker holds the lease, the thread waits for it no longer
            await completed(_settled(taking))
            raise

    def _opened(self) -> Journal:
        if self._journal is None:
            raise AssertionError("the journal is opened before anything is asked")
        return self._journal

    def _settle_orphans(self, journal: Journal) -> None:
        shown: dict[str, Shown] = {}
        for reply in journal.outlines():
            if pricing.is_told(reply["usage"]):  # else it counts as what is not shown
                one = shown.get(reply["block"], Shown())
                shown[reply["block"]] = Shown(
                    one.cost + reply["cost"],
                    one.ceiling + reply["ceiling"],
                    one.calls + 1,
                    one.tokens + pricing.tokens(reply["usage"]),
                )
        self._run_budget.ledger.settle_orphans(self._shard, shown, journal.batches.of)

    def _check(self) -> None:
        """Raises what ends this image shard's sending: a lost lease, or a budget that another call found spent."""
        if self._ended is not None:
            raise self._ended
        if self._lease:
            self._lease.check()

    async def _send(self, requests: Sequence[tuple[RequestTemplate, list[RequestItem]]], gateway: Gateway) -> None:
        journal, shard_budget = self._opened(), self._shard_budget
        if shard_budget is None:
            raise AssertionError("sending without a shard budget")

        async def one(template: RequestTemplate, units: list[RequestItem]) -> None:
            context = CallContext(
                journal, shard_budget, lambda image: self._image_url(image, template.model), self._check
            )
            try:
                await gateway.ask(template, units, context)
                self._answered(template.stage, len(units))
            except TaskGalaxyError as error:
                self._ended = self._ended or error  # what is in flight is paid for and awaited; nothing more is sent

        waiting = {asyncio.create_task(one(template, units)) for template, units in requests}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=_TICK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
                if journal.due():
                    await asyncio.to_thread(journal.flush)
                for task in done:
                    task.result()
        finally:
            for task in waiting:
                task.cancel()
            # A task whose request was served keeps its reply before it ends, so that all end before the last flush.
            await completed(_end_and_flush(waiting, journal))
        if self._ended is not None:
            raise self._ended

    def _image_url(self, image: str, model: Model) -> str:
        at = (image, model.image_side, model.image_quality, model.images)
        mine: Future[str] = Future()
        with self._rendering:
            found = self._images.setdefault(at, mine)
            if len(self._images) > _IMAGES_KEPT:
                del self._images[next(iter(self._images))]  # the oldest
        if found is mine:
            try:
                mine.set_result(self._stored(image, model) if model.images == "url" else self._inline(image, model))
            except BaseException as error:
                self._images.pop(at, None)
                mine.set_exception(error)
                raise
        if model.images == "data":
            return found.result()
        # Signed for each request: what was signed for an earlier one may have run out.
        hours = model.image_url_hours + (_BATCH_HOURS if model.mode == "batch" else 0)
        seconds = 3600 * min(hours, _MOST_LINK_HOURS)
        return link(self._store, found.result(), seconds=seconds, content_type="image/jpeg")

    def _inline(self, image: str, model: Model) -> str:
        """The image as a data URL."""
        return render(self._store.get(keys.blob(image)), model.image_side, model.image_quality)

    def _stored(self, image: str, model: Model) -> str:
        """The key of the image as the model is sent it; it is rendered if that was never done."""
        key = keys.rendering(image, fingerprint("rendering", rendering(model))[:32])
        try:
            self._store.age(key)
        except NotFoundError:
            raw = self._store.get(keys.blob(image))
            self._store.replace(key, rendered(raw, model.image_side, model.image_quality))
        return key


async def _settled(task: asyncio.Future[None]) -> None:
    """Wait until a task has ended, however it did."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # looked at: nobody waits for it any more


async def _end_and_flush(tasks: Iterable[asyncio.Task[None]], journal: Journal) -> None:
    """Wait until cancelled tasks have ended, then write what they kept."""
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(journal.flush)
