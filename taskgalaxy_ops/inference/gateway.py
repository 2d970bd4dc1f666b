"""The gateway sends all requests to chat models: to any OpenAI-compatible URL, or to a model in this process.

How a request is tried again depends on what happened. After a 429 the gateway waits as Retry-After says; the try does
not count while other requests are served. After 5xx, time-outs and lost connections it waits with jittered back-off. A
malformed reply is asked for again, with what was wrong, and only for the units that lack an answer. A refusal or a 400
becomes an answer with a reason, once it is known which unit it concerns. Every reply that was paid for goes to the
journal, raw. models/rate_limit.py decides how many requests are in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from taskgalaxy_ops.errors import ModelError, TaskGalaxyError
from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.inference.cancellation import completed
from taskgalaxy_ops.inference.spending import Drawn, ShardBudget
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.batch_api import Batches
from taskgalaxy_ops.models.http import Body, Outcome, Sender, wire
from taskgalaxy_ops.models.rate_limit import Limit, Unavailable, backoff
from taskgalaxy_ops.models.reply import FIRST, ModelReply, RetryPlan, interpret
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.settings import Model, Price
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.usage import Usage

_GIVEN_UP_TO_OPEN = 3  # requests in a row without a reply, after which a model is disabled for this run
_MODES = (
    "json_schema",
    "json_object",
    "text",
)  # forms of structured output; each is for models that do not know the one before


@dataclass(frozen=True, slots=True)
class CallContext:
    """What the calls about one image shard need: its journal, budget and images, and a check that they may be sent."""

    journal: Journal
    shard_budget: ShardBudget
    image_url: Callable[[str], str]  # image id -> URL of the image, rendered for the model
    check: Callable[[], None]  # raises LeaseLostError or BudgetError if nothing more may be sent


class _GaveUpError(Exception):
    """A request got no reply in all its tries. Its units stay pending."""


class Gateway:
    """Sends requests to models. There is one gateway for each process and event loop.

    ``shares``: shares its limits with other workers, and is closed with it; None: the limits are not shared. ``keys``:
    the API keys, by environment variable.
    """

    def __init__(self, shares: Shares | None = None, keys: Mapping[str, str] = os.environ) -> None:
        self.sender = Sender(keys)
        self._shares = shares
        self.usage = Usage()
        self._limits: dict[tuple[str, ...], Limit] = {}
        self._places: dict[str, asyncio.Semaphore] = {}  # bounds the requests in memory, by model
        self._numbers = count(1)
        self._given_up: dict[str, int] = {}  # requests in a row that got no reply, by model
        self._overrun: dict[
            str, tuple[float, float]
        ] = {}  # by model: factors by which its calls exceeded their estimate
        self._modes: dict[tuple[str, ...], str] = {}  # form of structured output, if it is not the settings'
        self._recalling: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self.batches = Batches(self.sender)

    async def aclose(self) -> None:
        """Close all connections, free the memory of models in this process, and stop sharing limits."""
        await self.sender.aclose()
        await asyncio.gather(*self._telling)
        if self._shares:
            await self._shares.aclose()

    def limit(self, model: Model) -> Limit:
        """The rate limit of a model. Models with one URL, name and key share one limit, whatever their roles."""
        if _one(model) not in self._limits:
            self._limits[_one(model)] = Limit(
                model.concurrency,
                requests_a_minute=model.requests_a_minute,
                tokens_a_minute=model.tokens_a_minute,
                patience=model.retries,
            )
        return self._limits[_one(model)]

    async def ask(self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        """Ask for items of one image in one request; answers go to the journal. Items without a reply stay pending.

        A model that refuses every request, or does not reply to several requests in a row, is disabled for this run;
        ``usage.unavailable`` says why. Raises BudgetError and LeaseLostError.
        """
        model = template.model
        if model.name not in self._places:
            # While some requests are in flight, as many more are prepared, or wait to be sent again.
            self._places[model.name] = asyncio.Semaphore(2 * model.concurrency)
        async with self._places[model.name]:
            if model.name in self.usage.unavailable:
                return
            try:
                await self._converse(template, list(units), context)
                self._given_up[model.name] = 0
            except (ModelError, Unavailable) as error:
                self.disable(model, str(error))
            except _GaveUpError as error:
                self.usage.gave_up[model.name] = str(error)
                self._given_up[model.name] = self._given_up.get(model.name, 0) + 1
                if self._given_up[model.name] >= _GIVEN_UP_TO_OPEN:
                    self.disable(model, str(error))

    async def ready(self, model: Model) -> None:
        """Prepare a model for requests, and recall the form that other workers found. Raises ModelError."""
        await self.sender.ready(model)
        if self._shares and model.weights is None:
            identity = _one(model)
            if identity not in self._recalling:
                self._recalling[identity] = asyncio.create_task(self._recall(identity, self._shares))
            await asyncio.shield(self._recalling[identity])

    async def _recall(self, identity: tuple[str, ...], shares: Shares) -> None:
        if (form := await shares.form(_group(identity))) in _MODES:
            self._modes.setdefault(identity, form)

    def disable(self, model: Model, why: str) -> None:
        """Send this model nothing more in this run."""
        self.usage.unavailable.setdefault(model.name, why)
        self.limit(model).give_up(why)

    async def _converse(
        self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext, after: RetryPlan = FIRST
    ) -> None:
        while units:
            reply = await self._request(template, units, context, after)
            interpreted = interpret(reply, after)
            self.keep(context, reply, interpreted.answers)
            if interpreted.gone:
                self.keep(context, reply, interpreted.gone, again=True)
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError
            units, after = interpreted.rest, interpreted.after
            if after.alone and len(units) > 1:
                for unit in units:
                    await self._converse(template, [unit], context, after)
                return

    async def _request(
        self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext, after: RetryPlan
    ) -> ModelReply:
        """Send the request until a reply or a refusal comes back. Raises _GaveUpError, Unavailable and ModelError."""
        model, limit, number = template.model, self.limit(template.model), next(self._numbers)
        await self._join(model, limit)
        price = pricing.priced(model, money=context.shard_budget.counts_money)
        context.check()  # before an image is rendered in vain
        room = after.room(model.max_tokens)
        arguments, body = await asyncio.to_thread(_made, template, units, context, after.fault, room, self.mode(model))
        estimated = pricing.at_most(arguments, model, room, price)
        # A reply with more room may take longer in proportion.
        seconds = model.timeout_seconds * max(1.0, room / model.max_tokens)
        started = time.monotonic()
        attempts = tries = lost = 0
        served = limit.served  # requests served when the last attempt ended
        while True:
            attempts += 1
            await limit.enter(number if attempts > 1 else 0)
            try:
                most = self.estimated(model, estimated)
                drawn, seen, sent = await self._send(model, body, seconds, context, most)
                tries = 1 if sent.came == "busy" and limit.served > served else tries + 1
                served = limit.served
                wait = max(backoff(tries), sent.wait)
                downgraded = self._downgraded(model, arguments) if sent.form else None
                fatal = sent.came == "fatal" or (self.rejects_our_format(model, sent) and not downgraded)
                amount = self._learn(model, sent, price, estimated, most, wait)
                try:
                    await completed(context.shard_budget.back(drawn, *amount, sent=sent.left))
                except asyncio.CancelledError:  # a reply that was paid for first goes to the journal: see _converse
                    if fatal or downgraded or sent.came not in {"served", "declined"}:
                        raise
                if fatal:
                    self.disable(model, blame(model, sent))
                    raise ModelError(blame(model, sent))
            finally:
                limit.back()
            if downgraded:
                arguments, body = downgraded, wire(model, downgraded)
                continue
            if sent.came in {"served", "declined"}:
                with contextlib.suppress(asyncio.CancelledError):  # it was paid for: first to the journal
                    await asyncio.sleep(0)  # who was let in sends first: the model need not wait until this one is read
                return ModelReply(
                    data=sent.data,
                    units=units,
                    template=template,
                    block=drawn.block,
                    ceiling=most.cost,
                    cost=amount.cost,
                    attempts=attempts,
                    seen=seen,
                    seconds=time.monotonic() - started,
                    note={"lost": lost} if lost else {},
                )
            lost += amount.cost
            if tries > model.retries:
                raise _GaveUpError(f"{model.name} at {model.base_url} gave no reply in {tries} tries ({sent.why})")
            if not limit.closed:
                await asyncio.sleep(wait)

    async def _join(self, model: Model, limit: Limit) -> None:
        """Share the model's limit with the other workers that ask it. Raises ModelError."""
        await self.ready(model)
        if self._shares and model.weights is None:  # weights in this process serve nobody else
            await self._shares.join(_group(_one(model)), lambda share: limit.share(*share))

    async def _send(
        self, model: Model, body: bytes | Body, seconds: float, context: CallContext, most: pricing.Amount
    ) -> tuple[Drawn, int, Outcome]:
        """One attempt: what it drew from the budget, the last journal entry read before it, and its outcome."""
        context.check()
        drawn = await context.shard_budget.draw(*most)
        try:
            context.check()  # the draw may have waited
        except TaskGalaxyError:
            await completed(context.shard_budget.back(drawn, 0, sent=False))
            raise
        self.usage.requests += 1
        seen = context.journal.seen
        try:
            return drawn, seen, await self.sender.send(model, body, seconds)
        except BaseException:
            await completed(context.shard_budget.back(drawn, *most))
            raise

    def _learn(
        self, model: Model, sent: Outcome, price: Price, estimated: pricing.Amount, most: pricing.Amount, wait: float
    ) -> pricing.Amount:
        """Tell the model's limit and estimates what came of an attempt; returns what it took from the budget.

        wait: seconds until the next attempt.
        """
        limit = self.limit(model)
        match sent.came:
            case "served":
                amount = pricing.charged(pricing.usage_of(sent.data), price, most)
                self.record_actual(model, estimated, amount)
                limit.worked(amount.tokens, sent.headers)
                return amount
            case "busy":
                limit.refused(wait)
            case "slow" | "failed":
                limit.failed(f"{model.name} at {model.base_url} gave no reply ({sent.why})", slow=sent.came == "slow")
        return most if sent.billed else pricing.Amount(0, 0)

    def rejects_our_format(self, model: Model, sent: Outcome, served: bool = False) -> bool:
        """True if the model has never accepted a request of this form, so that the form is at fault and not this image.

        served: the model has served another request of the same batch.
        """
        return sent.came == "declined" and not (served or sent.filtered or self.limit(model).served)

    def mode(self, model: Model) -> str:
        """The form of structured output that a model accepts, as far as is known."""
        return max(self._modes.get(_one(model), model.structured), model.structured, key=_MODES.index)

    def _downgraded(self, model: Model, arguments: Body) -> Body | None:
        """The request in the next simpler form of structured output; None if it is in the simplest form already."""
        if "response_format" not in arguments:
            return None
        mode = self.downgrade(model, arguments["response_format"]["type"])
        bare = {name: value for name, value in arguments.items() if name != "response_format"}
        return bare if mode == "text" else {**bare, "response_format": {"type": mode}}

    def downgrade(self, model: Model, mode: str) -> str:
        """Use a simpler form than ``mode`` for this model from now on; returns that form."""
        before = self.mode(model)  # perhaps simpler already, since replies arrive in any order
        self._modes[_one(model)] = downgrade = max(_MODES[_MODES.index(mode) + 1], before, key=_MODES.index)
        if self._shares and downgrade != before:
            self._telling.add(asyncio.create_task(self._shares.tell_form(_group(_one(model)), downgrade)))
        return downgrade

    def estimated(self, model: Model, held: pricing.Amount) -> pricing.Amount:
        """The most that a request can use, from its estimate ``held`` and from how earlier calls exceeded theirs."""
        return held.times(self._overrun.get(model.name, (1, 1)))

    def record_actual(self, model: Model, held: pricing.Amount, amount: pricing.Amount) -> None:
        """Learn from a call's actual ``amount``: if it exceeds the estimate ``held``, later calls hold more.

        Models count an image's tokens in ways of their own.
        """
        self._overrun[model.name] = held.factors(amount, self._overrun.get(model.name, (1, 1)))

    def keep(
        self, context: CallContext, received: ModelReply, answers: Mapping[str, Answer], *, again: bool = False
    ) -> None:
        """Add a reply and its answers to the journal.

        ``again``: the journal has the reply already, and this entry only adds terminal answers.
        """
        model = received.template.model
        usage = {} if again else pricing.usage_of(received.data)
        list_cost = pricing.cost(
            usage, model.list_price or pricing.price_of(model) or pricing.FREE, batch=bool(received.batch)
        )
        if not again:
            self.usage.calls += 1
            self.usage.prompt_tokens += usage.get("prompt_tokens", 0)
            self.usage.completion_tokens += usage.get("completion_tokens", 0)
            self.usage.cost += received.cost
            self.usage.list_cost += list_cost
        context.journal.add(
            Reply(
                reply=received.name or uuid.uuid4().hex,
                stage=received.template.stage,
                model=model.name,
                units=tuple(unit.key for unit in received.units),
                answers=answers,
                raw={} if again else received.data,
                usage=usage,
                cost=0 if again else received.cost,
                list_cost=list_cost,
                ceiling=0 if again else received.ceiling,
                block=received.block,
                attempts=received.attempts,
                seen=received.seen,
                at=round(time.time(), 3),
                seconds=round(received.seconds, 3),
                image=received.units[0].image if received.units else None,
                simulated=model.simulated or bool(received.data.get("simulated")),
                run=received.run or context.shard_budget.run,
                types=tuple(unit.item["task_type"] for unit in received.units if "task_type" in unit.item),
                note={} if again else _note(received),
            )
        )


def _note(received: ModelReply) -> Mapping[str, Any]:
    """What a reply's record says beside; by the question form, where a package brings it, the reply is read again."""
    form = received.template.form
    return {**received.note, "form": form["name"]} if form else received.note


def _one(model: Model) -> tuple[str, ...]:
    """What a provider knows a model by: models that agree in it share one rate limit."""
    return model.base_url, model.model, model.api_key_env


@cache
def _group(identity: tuple[str, ...]) -> str:
    """The hash of a model's identity (32 hex digits): the group under which workers share its limit."""
    return fingerprint("limit", list(identity))[:32]


def blame(model: Model, sent: Outcome) -> str:
    """A message that says why a model is disabled after a refusal, and what to check."""
    where = f"model {model.name!r} at {model.base_url}: {sent.why}. "
    if sent.came == "fatal":
        return where + f"Check base_url, model ({model.model!r}), the key in {model.api_key_env} and its credit."
    return where + f"Check what it takes: structured ({model.structured!r}), temperature, room_field."


def _made(
    template: RequestTemplate, units: Sequence[RequestItem], context: CallContext, fault: str, room: int, mode: str
) -> tuple[Body, bytes | Body]:
    """A request's arguments, and its encoded body."""
    arguments = arguments_of(template, units, context, fault, room, mode)
    return arguments, wire(template.model, arguments)


def arguments_of(
    template: RequestTemplate, units: Sequence[RequestItem], context: CallContext, fault: str, room: int, mode: str
) -> dict[str, Any]:
    """The body of a chat-completions request.

    ``fault``: what was wrong with the former reply, "" if nothing; ``room``: the most tokens of the reply; ``mode``:
    the form of structured output.
    """
    model = template.model
    content: list[dict[str, Any]] = [{"type": "text", "text": template.text(units)}]
    if (image := units[0].image) is not None:
        content.append({"type": "image_url", "image_url": {"url": context.image_url(image)}})
    if fault:
        # In the same turn: many templates of chats take no system message, and no two turns of the user in a row.
        content.append({"type": "text", "text": _repair(fault)})
    arguments: dict[str, Any] = {
        "model": model.model,
        "messages": [{"role": "user", "content": content}],
        model.room_field: room,
    }
    if model.temperature is not None:
        arguments["temperature"] = model.temperature
    if mode == "json_schema":
        schema = {"name": template.stage, "strict": True, "schema": template.json_schema()}
        arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif mode == "json_object":
        arguments["response_format"] = {"type": "json_object"}
    return arguments


def _repair(fault: str) -> str:
    """What a model is told of a former reply; ``fault``: what was wrong with it."""
    return (
        f"Your former reply to this could not be used, or not all of it: {fault[:500]} (numbers as they were then). "
        "Reply to all of the above, in the form that it names."
    )
