"""Asks models about one image shard by batches: submits requests, collects ended batches, and plans the next requests.

Before a batch is created at the provider, the image shard's journal gets an entry with its nonce and the budget blocks
that it holds, so that the shard's next worker can find it. A worker holds the shard's lease while it submits or
collects, and nobody holds it while a batch is awaited. The entry for a batch's end says how to ask next for each unit
without an answer, as a chat session would.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskgalaxy_ops.errors import BudgetError, ModelError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.inference.gateway import CallContext, Gateway, arguments_of, blame
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.batch_api import BatchStatus, GoneError, NoReplyError, line
from taskgalaxy_ops.models.http import Outcome
from taskgalaxy_ops.models.reply import ModelReply, RetryPlan, interpret
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import BatchSettings, Model
from taskgalaxy_ops.storage.ledger_totals import NOTHING, Spent

# The settings of a model that collecting its batch needs. The journal keeps them, since the settings may change.
_OF_MODEL = {
    *("name", "base_url", "model", "api_key_env", "list_price", "simulated"),
    *("retries", "repairs", "concurrency", "images"),
}
_LOST_AFTER = 2 * 86_400.0  # seconds after which a batch that its provider does not have any more counts as ended


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A request that is about to be submitted in a batch."""

    name: str  # its id in the batch
    raw: bytes  # its line in the batch's file
    template: RequestTemplate
    units: Sequence[RequestItem]
    next: RetryPlan
    mode: str
    estimated: pricing.Amount  # the most that it can use, by the model's rules
    most: pricing.Amount  # the same, raised if this model exceeded its estimates before

    @property
    def held(self) -> Spent:
        """What it holds of the budget."""
        return Spent(self.most.cost, 1, self.most.tokens)

    def to_json(self, block: str) -> dict[str, Any]:
        """The request as the journal's intent holds it; ``block``: the budget block that it holds."""
        return {
            "units": [unit.key for unit in self.units],
            "types": [unit.item["task_type"] for unit in self.units if "task_type" in unit.item],
            "image": self.units[0].image,
            "block": block,
            "reckoned": list(self.estimated),
            "held": list(self.most),
            "next": self.next.to_json(),
            "mode": self.mode,
        }


class ShardBatches:
    """The batches of one image shard, for one stage after another."""

    def __init__(
        self,
        settings: BatchSettings,
        gateway: Gateway,
        run_budget: RunBudget,
        shard: str,
        context: CallContext,
        image_url: Callable[[str, RequestTemplate], str],
        answered: Callable[[str, int], None],
    ) -> None:
        """``context``: the calls' context, without images; ``image_url``: an image's URL, as a template shows it."""
        self._settings = settings
        self._gateway = gateway
        self._run_budget = run_budget
        self._shard = shard
        self._context = context
        self._journal = context.journal
        self._image_url = image_url
        self._answered = answered

    # Collecting

    async def collect(self, templates: Mapping[str, RequestTemplate], units: Mapping[str, RequestItem]) -> None:
        """Collect the ended batches of these stages.

        templates: by stage; they read the replies. units: the request items that are needed now, by key. A model that
        refuses, or does not reply, is noted in the gateway's usage. Raises LeaseLostError and StoreError.
        """
        for nonce, intent in list(self._journal.batches.open.items()):
            if (template := templates.get(intent["stage"])) is None:
                continue
            model = Model.model_validate(intent["model"])
            try:
                self._context.check()
                status = await self._status(nonce, intent, model)
                if status is not None and status.ended:
                    results = await self._gateway.batches.results(model, status)
                    await self._close(nonce, intent, replace(template, model=model), units, status, results)
            except ModelError as error:
                self._gateway.disable(model, str(error))
            except NoReplyError as error:
                self._gateway.usage.gave_up[model.name] = str(error)

    async def _status(self, nonce: str, intent: Mapping[str, Any], model: Model) -> BatchStatus | None:
        """The state of a batch; None if it was not found yet, or is given up as never created."""
        batches, age = self._gateway.batches, time.time() - intent["at"]
        if id := self._journal.batches.ids.get(nonce):
            try:
                return await batches.look(model, id)
            except GoneError:
                if age < _LOST_AFTER:
                    raise
                return BatchStatus(id, "completed", (), "", 0.0)
        status = await batches.find(model, nonce, intent["at"])
        if status is not None:
            await self._record("batch_made", nonce, id=status.id)
        elif age >= self._settings.lookup_seconds:
            await self._void(nonce)
        return status

    async def _close(
        self,
        nonce: str,
        intent: Mapping[str, Any],
        template: RequestTemplate,
        units: Mapping[str, RequestItem],
        standing: BatchStatus,
        results: Mapping[str, Outcome],
    ) -> None:
        """Record the results of an ended batch: its replies first, then what its blocks cost, then its end."""
        model, price = template.model, pricing.priced(template.model, money=False)
        unheard = standing.status == "completed"  # a completed batch may have served requests that its files lack
        missing = Outcome(came="failed", data={}, why="no result", left=unheard, billed=unheard)
        if standing.status == "failed":
            self._gateway.disable(model, f"model {model.name!r}: batch {standing.id} was refused: {standing.why}")
        served = any(sent.came == "served" for sent in results.values())
        settled: dict[str, Spent] = dict.fromkeys(intent["blocks"], NOTHING)
        again: dict[str, Any] = {}
        count = 0
        for name, told in intent["requests"].items():
            sent, most = results.get(name, missing), pricing.Amount(*told["held"])
            amount = most if sent.billed else pricing.Amount(0, 0)
            if sent.came == "served":
                amount = pricing.charged(pricing.usage_of(sent.data), price, most, batch=True)
                self._gateway.record_actual(model, pricing.Amount(*told["reckoned"]), amount)
            settled[told["block"]] += Spent(amount.cost, int(sent.left), amount.tokens)
            asked = [units.get(unit.key, unit) for unit in _units(told)]
            count += len(asked)
            before = RetryPlan(**told["next"])
            received = ModelReply(
                data=sent.data,
                units=asked,
                template=template,
                block=told["block"],
                ceiling=most.cost,
                cost=amount.cost,
                attempts=before.lost + 1 if before.run == intent["run"] else 1,
                seen=intent["seen"],
                seconds=standing.seconds,
                note={"batch": nonce},
                batch=nonce,
                run=intent["run"],
                name=sha256_hex(f"{nonce} {name}".encode())[:32],
            )
            later = self._read(received, sent, before, told["mode"], served)
            # A unit that was forgotten meanwhile is asked for as if for the first time.
            fresh = {unit: after for unit, after in later.items() if self._journal.forgotten(unit) <= intent["seen"]}
            again |= {unit: after.to_json() for unit, after in fresh.items()}
        await asyncio.to_thread(self._journal.flush)
        self._context.check()
        amounts = {block: list(amount.to_json()) for block, amount in settled.items()}
        # Settle before recording the end: afterwards nobody may ask about this image shard again.
        await self._settle(settled)
        await self._record("batch_ended", nonce, status=standing.status, blocks=amounts, again=again)
        await self._gateway.batches.clear(model, (intent["file"], *standing.files))
        self._answered(intent["stage"], count)

    def _read(
        self, received: ModelReply, sent: Outcome, before: RetryPlan, mode: str, served: bool
    ) -> dict[str, RetryPlan]:
        """Add a request's reply to the journal; returns how to ask next for each of its units without an answer.

        ``served``: the batch has served a request. ``mode``: the form of structured output that was asked for.
        """
        gateway, model, units = self._gateway, received.template.model, received.units
        if sent.came == "declined" and not units:
            return {}
        if sent.came == "declined" and sent.form and mode != "text":
            downgrade = gateway.downgrade(model, mode)
            return {unit.key: replace(before, mode=downgrade) for unit in units}
        format_rejected = gateway.rejects_our_format(model, sent, served)
        if sent.came not in {"served", "declined"} or format_rejected:
            if sent.came == "fatal" or format_rejected:
                gateway.disable(model, blame(model, sent))
            lost, run = received.attempts, received.run
            if run == self._context.shard_budget.run and lost > model.retries:
                gateway.usage.gave_up[model.name] = (
                    f"{model.name} at {model.base_url} served no batch of it ({sent.why})"
                )
            return {unit.key: replace(before, lost=lost, run=run) for unit in units}
        if not units or self._journal.is_erased(units[0].image):
            data = {"erased": True, "usage": sent.data.get("usage"), "simulated": sent.data.get("simulated", False)}
            self._keep(replace(received, units=(), data=data), {})
            return {}
        interpreted = interpret(received, before)
        self._keep(received, interpreted.answers)
        if interpreted.gone:
            gone = [unit for unit in units if unit.key in interpreted.gone]
            self._keep(replace(received, units=gone, name=f"{received.name}-rest"), interpreted.gone, again=True)
        return {unit.key: interpreted.after for unit in interpreted.rest}

    def _keep(self, received: ModelReply, answers: Mapping[str, Answer], *, again: bool = False) -> None:
        if not self._journal.holds(received.name):  # a worker that was killed here may have kept it
            self._gateway.keep(self._context, received, answers, again=again)

    # Submitting

    async def submit(self, requests: Sequence[tuple[RequestTemplate, Sequence[RequestItem]]]) -> None:
        """Submit requests, in as many batches as the limits require.

        Raises BudgetError after the requests that fit into the budget were submitted.
        """
        by_model: dict[str, list[tuple[RequestTemplate, Sequence[RequestItem]]]] = {}
        for template, units in requests:
            by_model.setdefault(template.model.name, []).append((template, units))
        for of_model in by_model.values():
            try:
                await self._submit(of_model)
            except ModelError as error:
                self._gateway.disable(of_model[0][0].model, str(error))
            except NoReplyError as error:
                self._gateway.usage.gave_up[of_model[0][0].model.name] = str(error)

    async def _submit(self, requests: Sequence[tuple[RequestTemplate, Sequence[RequestItem]]]) -> None:
        model = requests[0][0].model
        if model.name in self._gateway.usage.unavailable:
            return
        await self._gateway.ready(model)
        price = pricing.priced(model, money=self._context.shard_budget.counts_money)
        lines: list[_Line] = []
        size = 0
        for template, units, after in self._parted(requests):
            self._context.check()  # before an image is rendered in vain
            entry = await asyncio.to_thread(self._line, template, units, after, price)
            if lines and (
                len(lines) >= self._settings.max_requests or size + len(entry.raw) > self._settings.max_bytes
            ):
                await self._make(model, lines)
                lines, size = [], 0
            lines.append(entry)
            size += len(entry.raw)
        if lines:
            await self._make(model, lines)

    def _parted(
        self, requests: Sequence[tuple[RequestTemplate, Sequence[RequestItem]]]
    ) -> Iterator[tuple[RequestTemplate, Sequence[RequestItem], RetryPlan]]:
        """The requests, split so that the units of one request are asked in the same way."""
        for template, units in requests:
            parts: dict[tuple[RetryPlan, str], list[RequestItem]] = {}
            for unit in units:
                after = RetryPlan(**self._journal.batches.again.get(unit.key, {}))
                if after.run == self._context.shard_budget.run and after.lost > template.model.retries:
                    continue  # the next run tries again
                parts.setdefault((after, unit.key if after.alone else ""), []).append(unit)
            for (after, _), part in parts.items():
                yield template, part, after

    def _line(self, template: RequestTemplate, units: Sequence[RequestItem], after: RetryPlan, price: Any) -> _Line:
        model, mode = template.model, after.mode or self._gateway.mode(template.model)
        room = after.room(model.max_tokens)
        context = replace(self._context, image_url=lambda image: self._image_url(image, template))
        body = arguments_of(template, units, context, after.fault, room, mode)
        estimated, name = pricing.at_most(body, model, room, price, batch=True), uuid.uuid4().hex
        most = self._gateway.estimated(model, estimated)
        return _Line(
            name=name,
            raw=line(name, body),
            template=template,
            units=units,
            next=after,
            mode=mode,
            estimated=estimated,
            most=most,
        )

    async def _make(self, model: Model, lines: Sequence[_Line]) -> None:
        """Submit one batch of as many of these requests as fit into the budget. Raises BudgetError for the others."""
        nonce, batches = uuid.uuid4().hex, self._gateway.batches
        funded, error = await self._fund(nonce, lines)
        if funded:
            blocks = list(dict.fromkeys(funded.values()))
            chosen = [request for request in lines if request.name in funded]
            try:
                file = await batches.upload(model, nonce, b"".join(request.raw for request in chosen))
                self._context.check()
            except BaseException:
                await self._settle(dict.fromkeys(blocks, NOTHING))  # the batch was neither recorded nor created
                raise
            await self._record(
                "batch",
                nonce,
                stage=chosen[0].template.stage,
                model=_model_to_json(model),
                file=file,
                requests={request.name: request.to_json(funded[request.name]) for request in chosen},
                blocks=blocks,
                seen=self._journal.seen,
                at=round(time.time(), 3),
                run=self._context.shard_budget.run,
            )
            try:
                self._context.check()
                id = await batches.make(model, nonce, file)
            except NoReplyError as lost:
                if not lost.heard:
                    await self._void(nonce)
                raise
            except ModelError:
                await self._void(nonce)
                raise
            self._gateway.usage.requests += len(chosen)
            await self._record("batch_made", nonce, id=id)
        if error:
            raise error

    async def _fund(self, nonce: str, lines: Sequence[_Line]) -> tuple[dict[str, str], BudgetError | None]:
        """Take budget blocks for these requests.

        Returns the block of each request that fits, by the request's name, and the error if others do not fit.
        """
        funded: dict[str, str] = {}
        waiting = list(lines)
        async with self._run_budget.turn:
            while waiting:
                ceiling, tokens = (max(request.most[part] for request in waiting) for part in (0, 1))
                try:
                    block = await self._run_budget.take(self._shard, len(waiting), ceiling, tokens, nonce)
                except BudgetError as error:
                    return funded, error
                if block is None:
                    continue
                left = Spent(block.ceiling, block.calls, block.tokens)
                while waiting and min((rest := left - waiting[0].held).to_json()) >= 0:
                    left = rest
                    funded[waiting.pop(0).name] = block.block
        return funded, None

    async def _void(self, nonce: str) -> None:
        """Record that a batch was never created, and settle its blocks."""
        blocks = self._journal.batches.open[nonce]["blocks"]
        await self._record("batch_ended", nonce, status="void", blocks={block: [0, 0, 0] for block in blocks}, again={})
        await self._settle(dict.fromkeys(blocks, NOTHING))

    async def _record(self, kind: str, nonce: str, **fields: Any) -> None:
        await asyncio.to_thread(self._journal.record, {"kind": kind, "batch": nonce, **fields})

    async def _settle(self, blocks: Mapping[str, Spent]) -> None:
        async with self._run_budget.turn:
            await asyncio.to_thread(self._run_budget.ledger.settle_batch, blocks)


def _units(request: Mapping[str, Any]) -> list[RequestItem]:
    """A request's items, as far as the journal's intent holds them."""
    items = [{"task_type": type_} for type_ in request["types"]] or [{} for _ in request["units"]]
    return [RequestItem(key, request["image"], item) for key, item in zip(request["units"], items, strict=True)]


def _model_to_json(model: Model) -> dict[str, Any]:
    price = pricing.price_of(model) or pricing.FREE
    return {**model.model_dump(mode="json", include=_OF_MODEL), "price": price.model_dump(mode="json")}
