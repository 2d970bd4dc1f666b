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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from taskgalaxy_ops.errors import BudgetError, ModelError, OriginError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.inference.attempts import CallContext, arguments_of, blame
from taskgalaxy_ops.inference.batch_lines import BatchLine, data_of, model_to_json, units_of
from taskgalaxy_ops.inference.batch_wait import PendingBatch
from taskgalaxy_ops.inference.gateway import NO_ANSWER, Gateway
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.batch_api import BatchStatus, GoneError, NoReplyError, line
from taskgalaxy_ops.models.http import Outcome
from taskgalaxy_ops.models.refusals import IMAGE_URL
from taskgalaxy_ops.models.reply import ModelReply, RetryPlan, interpret
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.models.request_form import RequestForm
from taskgalaxy_ops.records import Answer
from taskgalaxy_ops.settings import BatchSettings, Model
from taskgalaxy_ops.storage.ledger_totals import NOTHING, Spent

_Wanted = Mapping[str, tuple[RequestTemplate, RequestItem]]  # request items by key, with the template that asks them
_CROWDED_SECONDS = 60.0  # until a batch that a full queue refused is submitted again
_LOST_AFTER = 2 * 86_400.0  # seconds after which a batch that its provider does not have any more counts as ended


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
        self.unread: OriginError | None = None  # the first image whose original cannot be read
        self.crowded: list[PendingBatch] = []  # what the provider's queue had no room for

    # Collecting

    async def collect(self, templates: Mapping[str, RequestTemplate], units: _Wanted) -> None:
        """Collect the ended batches of these stages.

        templates: one a stage, for what is not needed any more; ``units``: what is needed now. A model that refuses, or
        does not reply, is noted in the gateway's usage. Raises LeaseLostError and StoreError.
        """
        for nonce, intent in list(self._journal.batches.open.items()):
            if (template := templates.get(intent["stage"])) is None:
                continue
            model = Model.model_validate(intent["model"])
            try:
                self._context.check()
                status = await self._status(nonce, intent, model)
                if status is not None and not status.ended:
                    self._gateway.batch_room.entered(model.name, nonce)
                if status is not None and status.ended:
                    results = await self._gateway.batches.results(model, status)
                    await self._close(nonce, intent, replace(template.along(""), model=model), units, status, results)
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
        units: _Wanted,
        standing: BatchStatus,
        results: Mapping[str, Outcome],
    ) -> None:
        """Record the results of an ended batch: its replies first, then what its blocks cost, then its end."""
        model, price = template.model, pricing.priced(template.model, money=False)
        self._gateway.batch_room.left(model.name, nonce, served=standing.status != "failed")
        missing = self._missing(standing, intent, model)
        kinds = Counter(results.get(name, missing).kind for name in intent["requests"])
        served = kinds["served"] > 0
        healthy = served and 2 * (kinds["slow"] + kinds["failed"]) <= kinds.total()
        settled: dict[str, Spent] = dict.fromkeys(intent["blocks"], NOTHING)
        again: dict[str, Any] = {}
        count = 0
        for name, told in intent["requests"].items():
            sent, most = results.get(name, missing), pricing.Amount(*told["held"])
            amount = most if sent.billed else pricing.Amount(0, 0)
            if sent.kind == "served":
                amount = pricing.charged(pricing.usage_of(sent.data), price, most, batch=True)
                self._gateway.attempts.record_actual(model, pricing.Amount(*told["reckoned"]), amount)
            settled[told["block"]] += Spent(amount.cost, int(sent.left), amount.tokens)
            wanted = [(unit, *units.get(unit.key, (template, unit))) for unit in units_of(told)]
            asking = wanted[0][1] if wanted else template  # its items share it; what was asked along, the intent says
            count += len(wanted)
            before = RetryPlan(**told["next"])
            received = ModelReply(
                data=sent.data,
                units=[replace(unit, follow_up=one.follow_up) for one, _, unit in wanted],
                template=replace(asking.along(told.get("along", {}).get("name", "")), model=model),
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
            form = RequestForm(mode=told["mode"], dropped=tuple(told.get("left_out", ())))
            later = await self._read(received, sent, before, form, served=served, healthy=healthy)
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

    def _missing(self, standing: BatchStatus, intent: Mapping[str, Any], model: Model) -> Outcome:
        """The outcome of the requests that an ended batch has no result of."""
        if standing.crowded:
            requests = intent["requests"].values()
            if not self._gateway.batch_room.refused(model.name, len(requests)):
                self._wait_for_room(model, sum(len(told["units"]) for told in requests), standing.why)
            return Outcome(kind="busy", data={}, why="the queue had no room", left=False)
        if standing.status == "failed":
            self._gateway.disable(model, f"model {model.name!r}: batch {standing.id} was refused: {standing.why}")
        unheard = standing.status == "completed"  # a completed batch may have served requests that its files lack
        return Outcome(kind="failed", data={}, why="no result", left=unheard, billed=unheard)

    async def _read(
        self,
        received: ModelReply,
        sent: Outcome,
        before: RetryPlan,
        form: RequestForm,
        *,
        served: bool,
        healthy: bool,
    ) -> dict[str, RetryPlan]:
        """Add a request's reply to the journal; returns how to ask next for each of its units without an answer.

        ``form``: in which the request was asked. ``served``: the batch has served a request; ``healthy``: most of them.
        """
        gateway, model, units, kind = self._gateway, received.template.model, received.units, sent.kind
        again = {unit.key: replace(before, lost=received.attempts, run=received.run) for unit in units}
        if kind == "form":
            if (simpler := gateway.attempts.forms.simplify(model, sent.parameter, form)) is not None:
                return {unit.key: replace(before, mode=simpler.mode_for(model)) for unit in units}
            if gateway.shown_too_many(model, sent, units):
                return again
            kind = "declined"
        if kind == "fatal":
            gateway.disable(model, blame(model, sent.why))
            return again
        if kind in {"busy", "slow", "failed"}:
            if kind == "busy" and not sent.left:  # its batch had no room in the provider's queue
                return dict.fromkeys((unit.key for unit in units), before)
            if kind == "busy" or received.attempts <= model.retries:
                return again
            # What never reached the model, such as the rest of a batch that expired, is not its unit's fault.
            if not (healthy and sent.left) or sent.parameter == IMAGE_URL:
                if received.run == self._context.shard_budget.run:
                    why = f"{model.name} at {model.base_url} served no batch of it ({sent.why})"
                    gateway.usage.gave_up[model.name] = why
                return again
        failed = kind in {"slow", "failed"}
        reply = replace(received, kind="failing" if failed else kind, allowed=sent.room, data=data_of(sent))
        if not units and kind != "served":
            return {}
        if not units or self._journal.is_erased(*units[0].images):
            data = {"erased": True, "usage": sent.data.get("usage"), "simulated": sent.data.get("simulated", False)}
            self._keep(replace(received, units=(), data=data), {})
            return {}
        return await self._interpreted(reply, before, again, served)

    async def _interpreted(
        self, reply: ModelReply, before: RetryPlan, again: dict[str, RetryPlan], served: bool
    ) -> dict[str, RetryPlan]:
        """Keep a reply and what it answers; ``again``: how to ask next if the model turns out to be the problem."""
        model, units = reply.template.model, reply.units
        interpreted = interpret(reply, before)
        terminal, good, moderated = interpreted.terminal, interpreted.good, reply.moderated
        if reply.kind == "served" and not moderated:
            self._gateway.attempts.evidence(model).replied(len(good), reply.text or reply.refusal)
        self._keep(reply, good)
        context = replace(self._context, image_url=lambda image: self._image_url(image, reply.template))
        try:
            if not (moderated or (served and reply.kind == "declined")):
                if terminal:
                    await self._gateway.credible(reply, context, len(terminal))
                elif reply.kind == "declined":
                    await self._gateway.believed_refusal(reply, context)
        except NO_ANSWER as error:  # a canary, too, may find that the model was given up meanwhile
            self._gateway.no_answer(model, error)
            return {unit.key: again[unit.key] for unit in units if unit.key not in good}
        if terminal:
            gone = [unit for unit in units if unit.key in terminal]
            self._keep(replace(reply, units=gone, name=f"{reply.name}-rest"), terminal, again=True)
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
        await self._gateway.attempts.ready(model)
        price = pricing.priced(model, money=self._context.shard_budget.counts_money)
        lines: list[BatchLine] = []
        size = 0
        for template, units, after in self._parted(requests):
            self._context.check()  # before an image is rendered in vain
            try:
                entry = await asyncio.to_thread(self._line, template, units, after, price)
            except OriginError as error:  # the image's units stay pending; the others are asked
                self.unread = self.unread or error
                continue
            if lines and (
                len(lines) >= min(self._settings.max_requests, self._gateway.batch_room.most(model.name))
                or size + len(entry.raw) > self._settings.max_bytes
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
                size = after.size or len(part)
                for at in range(0, len(part), size):
                    yield template, part[at : at + size], after

    def _line(self, template: RequestTemplate, units: Sequence[RequestItem], after: RetryPlan, price: Any) -> BatchLine:
        model, form = template.model, self._gateway.attempts.forms.of(template.model)
        room = after.room(model.max_tokens)
        context = replace(self._context, image_url=lambda image: self._image_url(image, template))
        body = arguments_of(template, units, context, after, form)
        estimated, name = pricing.at_most(body, model, room, price, batch=True), uuid.uuid4().hex
        most = self._gateway.attempts.estimated(model, estimated)
        return BatchLine(
            name=name,
            raw=line(name, body),
            template=template,
            units=units,
            next=after,
            form=form,
            mode=after.mode or form.mode_for(model),
            estimated=estimated,
            most=most,
        )

    async def _make(self, model: Model, lines: Sequence[BatchLine]) -> None:
        """Submit one batch of as many of these requests as fit into the budget. Raises BudgetError for the others."""
        room = self._gateway.batch_room
        if any(waits.model.name == model.name for waits in self.crowded):
            return  # all of it is submitted again later
        if model.name in self._gateway.usage.unavailable:
            return
        if len(lines) > room.most(model.name):  # which a batch before this one found out
            await self._halved(model, lines)
            return
        nonce, batches = uuid.uuid4().hex, self._gateway.batches
        funded, error = await self._fund(nonce, lines)
        if funded:
            blocks = list(dict.fromkeys(funded.values()))
            chosen = [request for request in lines if request.name in funded]
            units = sum(len(request.units) for request in chosen)
            try:
                file = await batches.upload(model, nonce, b"".join(request.raw for request in chosen))
                self._context.check()
            except BaseException as lost:
                await self._settle(dict.fromkeys(blocks, NOTHING))  # the batch was neither recorded nor created
                if isinstance(lost, NoReplyError) and lost.crowded:  # too many uploads at once
                    self._wait_for_room(model, units, str(lost), lost.wait)
                    return
                raise
            await self._record(
                "batch",
                nonce,
                stage=chosen[0].template.stage,
                model=model_to_json(model),
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
                if not lost.crowded:
                    raise
                await batches.clear(model, (file,))
                if room.refused(model.name, len(chosen)):
                    await self._halved(model, lines)
                else:
                    self._wait_for_room(model, units, str(lost), lost.wait)
                return
            except ModelError:
                await self._void(nonce)
                raise
            self._gateway.usage.requests += len(chosen)
            room.entered(model.name, nonce)
            await self._record("batch_made", nonce, id=id)
        if error:
            raise error

    async def _halved(self, model: Model, lines: Sequence[BatchLine]) -> None:
        """Submit these requests in batches half as large."""
        size = (len(lines) + 1) // 2
        for part in (lines[:size], lines[size:]):
            await self._make(model, part)

    async def _fund(self, nonce: str, lines: Sequence[BatchLine]) -> tuple[dict[str, str], BudgetError | None]:
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

    def _wait_for_room(self, model: Model, units: int, why: str, wait: float = 0.0) -> None:
        """The provider's queue has no room: these units are asked again later, in ``wait`` seconds if it said so.

        A model for which there was no room for more than a day is disabled.
        """
        if self._gateway.batch_room.hopeless(model.name):
            self._gateway.disable(
                model,
                f"{why.rstrip('.')}. For more than a day its queue had no room for a single request: have the limit "
                "raised, or set mode: chat.",
            )
            return
        retry_at = time.time() + max(wait or _CROWDED_SECONDS, self._settings.poll_seconds)
        self.crowded.append(
            PendingBatch(nonce=uuid.uuid4().hex, id=None, model=model, units=units, at=time.time(), retry_at=retry_at)
        )

    async def _record(self, kind: str, nonce: str, **fields: Any) -> None:
        await asyncio.to_thread(self._journal.record, {"kind": kind, "batch": nonce, **fields})

    async def _settle(self, blocks: Mapping[str, Spent]) -> None:
        async with self._run_budget.turn:
            await asyncio.to_thread(self._run_budget.ledger.settle_batch, blocks)
