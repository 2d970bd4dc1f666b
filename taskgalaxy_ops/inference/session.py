"""An inference session asks models about one image shard, in rounds, until every unit has an answer or is given up.

Expand, filter, write and vote all use it. The session takes the shard's lease, draws on the budget and reads and writes
the shard's journal. It takes the lease only if there is something to ask. A unit is the key of a request item.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from taskgalaxy_ops.errors import BudgetError, LeaseLostError, NotFoundError, OriginError, TaskGalaxyError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference import batch_session, batch_wait
from taskgalaxy_ops.inference.canary import CANARY_IMAGE, canary_picture
from taskgalaxy_ops.inference.cancellation import completed
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.spending import RunBudget, ShardBudget
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.rendering import data_url, rendered_for
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import Model, RunSettings
from taskgalaxy_ops.storage import Store, keys, link
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.leases import Lease
from taskgalaxy_ops.storage.ledger import JournaledCalls

Answers = Mapping[str, Answer]
Needed = Callable[[Answers], list[tuple[RequestTemplate, list[RequestItem]]]]

_IMAGES_KEPT = 64  # rendered images in memory; an image's requests are sent one after another
_BATCH_HOURS = 24  # the longest that a provider takes for a batch
_MOST_LINK_HOURS = 168  # the longest that S3 signs a URL for
_TICK_SECONDS = 0.2  # between two looks whether the journal must be flushed


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedShard:
    """The image shard that a session asks about.

    read_image: gives an image's file; None: it is the store's copy. begun: edits of the image shard that are not
    done, for a session that asks nothing (``Edits.begun``).
    """

    id: str
    read_image: Callable[[str], bytes] | None = None
    begun: Mapping[str, Sequence[str]] | None = None


class InferenceSession:
    """Asks models about one image shard. On leaving its ``async with`` block it settles the budget and frees the lease.

    ``answered``: called with the stage and the number of units after each request.
    """

    def __init__(
        self,
        store: Store,
        settings: RunSettings,
        gateway: Gateway | None,
        run_budget: RunBudget,
        shard: AskedShard,
        answered: Callable[[str, int], None] = lambda stage, units: None,
    ) -> None:
        self._begun = shard.begun
        self._read_image = shard.read_image or (lambda image: store.get(keys.blob(image)))
        self._store = store
        self._settings = settings
        self._gateway = gateway
        self._run_budget = run_budget
        self._shard = shard.id
        self._answered = answered
        self._journal: Journal | None = None
        self._lease: Lease | None = None
        self._shard_budget: ShardBudget | None = None
        self._batches: batch_session.ShardBatches | None = None
        self._stages: set[str] = set()  # stages whose batches were looked at
        self._ended: TaskGalaxyError | None = None  # why nothing more may be sent
        self._unread: OriginError | None = None  # the first image whose original cannot be read
        self._images: dict[tuple[str, int, int, int, str], Future[str]] = {}
        self._rendering = threading.Lock()

    @property
    def stopped(self) -> str:
        """Why the session stopped sending early, or left an image out; "" if it did not."""
        return str(self._ended or self._unread or "")

    @property
    def asked(self) -> bool:
        """Whether there was anything to send, so that the lease was taken."""
        return self._lease is not None

    @property
    def held(self) -> bool:
        """Whether the session stopped because another worker holds the image shard, or took it."""
        return isinstance(self._ended, LeaseLostError)

    @property
    def spent(self) -> bool:
        """Whether the session stopped because a cap of the budget was reached."""
        return isinstance(self._ended, BudgetError)

    @property
    def answers(self) -> Answers:
        """The answers in the image shard's journal, by unit."""
        if self._journal is None:
            self._journal = Journal(self._store, self._shard, self._begun)
        return self._journal.answers

    @property
    def replies(self) -> Iterable[Mapping[str, Any]] | None:
        """The outline of every reply in the image shard's journal; None if the journal was not read."""
        return None if self._journal is None else self._journal.outlines()

    @property
    def waiting(self) -> list[batch_wait.PendingBatch]:
        """The image shard's batches of the asked stages that have not ended. A later run collects them."""
        if self._journal is None:
            return []
        batches = self._journal.batches
        asked_for = {nonce: intent for nonce, intent in batches.open.items() if intent["stage"] in self._stages}
        crowded = self._batches.crowded if self._batches else []
        return [*batch_wait.awaited(asked_for, batches.ids), *crowded]

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
        """Ask for the items that ``needed`` returns, in rounds until it returns no new ones.

        ``needed`` maps the answers so far to the templates and items that still need one. Returns how many units lacked
        an answer at first. A unit without a reply stays pending, and the next run asks for it; so does a unit whose
        batch has not ended. Without a gateway nothing is asked. Raises TaskGalaxyError (an image is gone, the store
        fails) after the replies to requests in flight were kept.
        """
        answers = await asyncio.to_thread(lambda: self.answers)
        lacking = needed(answers)
        first = len({unit.key for _, units in lacking for unit in units})
        # A worker that was killed after reading a batch's replies left its budget block open, with nothing to ask.
        open_stages = {intent["stage"] for intent in self._opened().batches.open.values()}
        if not (first or open_stages.intersection(template.stage for template, _ in lacking)):
            return first
        if self._gateway is None or self._ended:
            return first
        try:
            batches = await self._prepare(self._gateway)
            self._stages.update(template.stage for template, _ in lacking)
            if self._opened().batches.open:
                wanted = needed(answers)
                await batches.collect(
                    {template.stage: template for template, _ in wanted},
                    {unit.key: (template, unit) for template, units in wanted for unit in units},
                )
            asked: set[str] = set()
            while requests := self._requests(needed(answers), asked):
                asked.update(unit.key for _, part in requests for unit in part)
                if chats := [request for request in requests if request[0].model.mode == "chat"]:
                    await self._send(chats, self._gateway)
                await batches.submit([request for request in requests if request[0].model.mode == "batch"])
                self._unread = self._unread or batches.unread
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
            by_image: dict[Any, list[RequestItem]] = {}
            for unit in {unit.key: unit for unit in units if unit.key not in taken}.values():
                # A template without a list of items asks one unit a request.
                by_image.setdefault((template.items and unit.images) or unit.key, []).append(unit)
            requests += [
                (template, part[at : at + size]) for part in by_image.values() for at in range(0, len(part), size)
            ]
        # An image's requests to several models go one after another, so that it is read and rendered once.
        return sorted(requests, key=lambda request: request[1][0].image or "")

    async def _prepare(self, gateway: Gateway) -> batch_session.ShardBatches:
        if self._batches is not None:
            return self._batches
        run, journal = self._settings, self._opened()
        await self._take_lease()
        await asyncio.to_thread(journal.refresh)  # the lease's former holder may have added answers
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
        shown: dict[str, JournaledCalls] = {}
        for reply in journal.outlines():
            if pricing.is_told(reply["usage"]):  # a call without complete usage counts as not shown
                calls = shown.get(reply["block"], JournaledCalls())
                shown[reply["block"]] = JournaledCalls(
                    calls.cost + reply["cost"],
                    calls.ceiling + reply["ceiling"],
                    calls.calls + 1,
                    calls.tokens + pricing.tokens(reply["usage"]),
                )
        self._run_budget.ledger.settle_orphans(self._shard, shown, journal.batches.of)

    def _check(self) -> None:
        """Raises the error that ends this session: a lost lease, or a budget that another call found spent."""
        if self._ended is not None:
            raise self._ended
        if self._lease:
            self._lease.check()

    async def _send(self, requests: Sequence[tuple[RequestTemplate, list[RequestItem]]], gateway: Gateway) -> None:
        journal, shard_budget = self._opened(), self._shard_budget
        if shard_budget is None:
            raise AssertionError("sending without a shard budget")

        async def one(template: RequestTemplate, units: list[RequestItem]) -> None:
            context = CallContext(journal, shard_budget, lambda image: self._image_url(image, template), self._check)
            try:
                await gateway.ask(template, units, context)
                self._answered(template.stage, len(units))
            except OriginError as error:  # the image's units stay pending; the others are asked
                self._unread = self._unread or error
            except TaskGalaxyError as error:
                self._ended = (
                    self._ended or error
                )  # requests in flight are paid for, so they are awaited; no more are sent

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

    def _image_url(self, image: str, template: RequestTemplate) -> str:
        model = template.model
        key = (image, model.image_side, model.image_quality, model.image_min_side, model.images)
        future: Future[str] = Future()
        with self._rendering:
            shared = self._images.setdefault(key, future)
            if len(self._images) > _IMAGES_KEPT:
                del self._images[next(iter(self._images))]  # the oldest one
        if shared is future:
            try:
                future.set_result(
                    self._stored(image, template) if model.images == "url" else self._inline(image, model)
                )
            except BaseException as error:
                self._images.pop(key, None)
                future.set_exception(error)
                raise
        if model.images == "data":
            return shared.result()
        # A URL is signed for each request, since an earlier one may have expired.
        hours = model.image_url_hours + (_BATCH_HOURS if model.mode == "batch" else 0)
        seconds = 3600 * min(hours, _MOST_LINK_HOURS)
        return link(self._store, shared.result(), seconds=seconds, content_type="image/jpeg")

    def _inline(self, image: str, model: Model) -> str:
        """The image as a data URL."""
        return data_url(rendered_for(self._file(image), model))

    def _file(self, image: str) -> bytes:
        return canary_picture() if image == CANARY_IMAGE else self._read_image(image)

    def _stored(self, image: str, template: RequestTemplate) -> str:
        """The store key of the image's rendering for the model. Renders the image if the store has none."""
        key = keys.rendering(image, fingerprint("rendering", template.rendering(image))[:32])
        try:
            self._store.age(key)
        except NotFoundError:
            self._store.put_if_absent(key, rendered_for(self._file(image), template.model))
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
