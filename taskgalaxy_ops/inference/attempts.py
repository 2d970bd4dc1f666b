"""Attempts: one request is sent until it is served or refused, or its model is given up.

A request that a model fails at is tried again: ``retries`` times while the model serves others, and as long as its
patience while it serves nobody. A parameter that the model does not take is left out, and the request sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from taskgalaxy_ops.errors import ModelError, TaskGalaxyError
from taskgalaxy_ops.inference.cancellation import completed
from taskgalaxy_ops.inference.model_evidence import Evidence
from taskgalaxy_ops.inference.model_health import ModelHealth
from taskgalaxy_ops.inference.request_forms import Identity, RequestForms, group, identity
from taskgalaxy_ops.inference.spending import Drawn, ShardBudget
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.http import Body, Outcome, Sender, wire
from taskgalaxy_ops.models.rate_limit import Limit, backoff
from taskgalaxy_ops.models.refusals import IMAGE_URL, IMAGES
from taskgalaxy_ops.models.reply import ModelReply, RetryPlan
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.models.request_form import RequestForm, optional
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.usage import Usage

_FIRST = 1  # a place before all requests that are sent again
_PROOFS = 2  # failures while others were served, before a request is what the model fails at
_SETTLED = {"served", "content", "declined", "long"}  # kinds after which a request is not sent again as it is


@dataclass(frozen=True, slots=True)
class CallContext:
    """What the calls about one image shard need: its journal, budget and images, and a check that they may be sent."""

    journal: Journal
    shard_budget: ShardBudget
    image_url: Callable[[str], str]  # image id -> URL of the image, rendered for the model
    check: Callable[[], None]  # raises LeaseLostError or BudgetError if nothing more may be sent


class GaveUpError(Exception):
    """A request got no reply in all its tries, and other requests fail, too. Its units stay pending."""


Probe = Callable[[RequestTemplate, CallContext], Awaitable[None]]


class Attempts:
    """Sends single requests, within the limits of each model. For one event loop.

    ``probe``: asks the model a plain question, to see whether it is there. ``note``: is told of models that are waited
    for. ``patient``: wait for a model that serves nothing as long as its patience; else for a minute without any reply,
    of whatever model, since the caller looks again later.
    """

    def __init__(
        self,
        sender: Sender,
        shares: Shares | None,
        usage: Usage,
        probe: Probe,
        note: Callable[[str], None],
        patient: bool = True,
    ) -> None:
        self.sender = sender
        self.usage = usage
        self.forms = RequestForms(shares)
        self._shares = shares
        self._probe = probe
        self._note = note
        self._patient = patient
        self.health = ModelHealth(shares.store if shares else None)
        self._replied = 0.0  # when any model served a request last, on the monotonic clock
        self._limits: dict[Identity, Limit] = {}
        self._evidence: dict[Identity, Evidence] = {}
        self._too_many: dict[Identity, str] = {}  # models that take fewer images than a group has: what they said
        self._numbers = count(_FIRST + 1)
        self._overrun: dict[str, tuple[float, float]] = {}  # by model: factors by which its calls exceeded estimates

    def limit(self, model: Model) -> Limit:
        """The rate limit of a model. Models with one URL, name and key share one limit, whatever their roles."""
        if identity(model) not in self._limits:
            self._limits[identity(model)] = Limit(
                model.concurrency,
                requests_a_minute=model.requests_a_minute,
                tokens_a_minute=model.tokens_a_minute,
                patience=model.patience_seconds,
                stays=lambda away: self._patient or min(away, time.monotonic() - self._replied) < _LEAVE_SECONDS,
                waiting=_Waiting(model, self._note, self.health),
            )
        return self._limits[identity(model)]

    def evidence(self, model: Model) -> Evidence:
        """What was seen of a model in this process."""
        return self._evidence.setdefault(identity(model), Evidence())

    def takes_fewer(self, model: Model, why: str) -> GaveUpError:
        """The error for a model that takes fewer images than a group has; it is asked about none from now on."""
        return GaveUpError(self._too_many.setdefault(identity(model), _too_many_images(model, why)))

    async def ready(self, model: Model) -> None:
        """Prepare a model for requests, and recall the form that other workers found. Raises ModelError."""
        await self.sender.ready(model)
        await self.forms.recall(model)
        await self.health.recall(model)

    async def request(
        self,
        template: RequestTemplate,
        units: Sequence[RequestItem],
        context: CallContext,
        plan: RetryPlan,
        *,
        canary: bool = False,
    ) -> ModelReply:
        """Send a request until it is served or refused; the reply's ``kind`` says which.

        canary: the first failure is returned as ``failing``. Raises GaveUpError, Unavailable, ModelError (every request
        is refused), BudgetError and LeaseLostError.
        """
        model, limit, number = template.model, self.limit(template.model), next(self._numbers)
        if units[0].further and identity(model) in self._too_many:
            raise GaveUpError(self._too_many[identity(model)])
        await self._join(model, limit)
        sending = await self._prepared(template, units, context, plan)
        started = time.monotonic()
        attempts = tries = proven = lost = 0
        served = limit.served  # requests served when the last attempt ended
        while True:
            attempts += 1
            # A canary goes first, since requests wait for what it tells.
            await limit.enter(_FIRST if canary else number if attempts > 1 else 0)
            proven += attempts > 1 and limit.served > served  # others were served since it failed last
            try:
                if self.forms.of(model) != sending.form:  # another request found out what the model takes
                    sending = await self._prepared(template, units, context, plan)
                most = self.estimated(model, sending.estimated)
                drawn, seen, sent = await self._send(sending, context, most)
                tries = 1 if sent.kind == "busy" and limit.served > served else tries + 1
                served = limit.served
                wait = max(backoff(tries), sent.wait)
                form = self.forms.simplify(model, sent.parameter, sending.form) if sent.kind == "form" else None
                amount = self._learn(sending, sent, most, wait)
                try:
                    await completed(context.shard_budget.back(drawn, *amount, sent=sent.left))
                except asyncio.CancelledError:  # a reply that was paid for first goes to the journal
                    if form or sent.kind not in _SETTLED:
                        raise
                if sent.kind == "fatal":
                    limit.give_up(blame(model, sent.why))
                    raise ModelError(limit.why)
            finally:
                limit.back()
            if form:
                sending = await self._prepared(template, units, context, plan)
                continue
            if sent.parameter == IMAGES and units[0].further:
                raise self.takes_fewer(model, sent.why)
            kind: str = "declined" if sent.kind == "form" else sent.kind  # there is nothing to leave out
            if kind not in _SETTLED:
                lost += amount.cost
                kind = await self._verdict(sending, context, sent, _Tries(tries, proven), canary)
            if kind in _SETTLED or kind == "failing":
                with contextlib.suppress(asyncio.CancelledError):  # it was paid for: first to the journal
                    await asyncio.sleep(0)  # who was let in sends first: the model need not wait until this is read
                reply = _reply_of(sending, units, sent, drawn, seen)
                seconds, cost = time.monotonic() - started, 0 if kind == "failing" else amount.cost
                note = _note(lost, sending.form)
                return replace(reply, kind=kind, cost=cost, attempts=attempts, seconds=seconds, note=note)
            if not (limit.closed or limit.why):
                await asyncio.sleep(wait)

    async def _verdict(
        self, sending: _Sending, context: CallContext, sent: Outcome, tries: _Tries, canary: bool
    ) -> str:
        """What a failed attempt means: ``failing`` (a healthy model fails at this request), or to be tried again."""
        model = sending.template.model
        retries = 0 if model.weights is not None else model.retries  # in process, a failure repeats itself
        if canary and sent.kind != "busy":
            return "failing"
        if sent.kind == "busy" or tries.all <= retries:
            return sent.kind
        gave_up = GaveUpError(f"{model.name} at {model.base_url} gave no reply in {tries.all} tries ({sent.why})")
        if sent.parameter == IMAGE_URL:  # the URL is at fault, and no verdict on the image
            raise gave_up
        if tries.proven < _PROOFS:  # it may be the model that fails, or failed until now: it is waited for
            await self._probe(sending.template, context)
            return sent.kind
        if self.evidence(model).flapping(sending.about):
            raise gave_up
        self.limit(model).reached()  # the failure was the request's: the next one is not a model's that went away
        return "failing"

    async def _prepared(
        self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext, plan: RetryPlan
    ) -> _Sending:
        model, form = template.model, self.forms.of(template.model)
        context.check()  # before an image is rendered in vain
        arguments, body = await asyncio.to_thread(_made, template, units, context, plan, form)
        price = pricing.priced(model, money=context.shard_budget.counts_money)
        room = plan.room(model.max_tokens)
        # A reply with more room may take longer in proportion.
        seconds = model.timeout_seconds * max(1.0, room / model.max_tokens)
        estimated = pricing.at_most(arguments, model, room, price)
        about = units[0].image or units[0].key
        return _Sending(
            template=template,
            form=form,
            body=body,
            price=price,
            estimated=estimated,
            seconds=seconds,
            about=about,
        )

    async def _join(self, model: Model, limit: Limit) -> None:
        """Share the model's limit with the other workers that ask it. Raises ModelError."""
        await self.ready(model)
        if self._shares and model.weights is None:  # weights in this process serve nobody else
            await self._shares.join(group(identity(model)), lambda share: limit.share(*share))

    async def _send(self, sending: _Sending, context: CallContext, most: pricing.Amount) -> tuple[Drawn, int, Outcome]:
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
            return drawn, seen, await self.sender.send(sending.template.model, sending.body, sending.seconds)
        except BaseException:
            await completed(context.shard_budget.back(drawn, *most))
            raise

    def _learn(self, sending: _Sending, sent: Outcome, most: pricing.Amount, wait: float) -> pricing.Amount:
        """Tell the model's limit and estimates what came of an attempt; returns what it took from the budget.

        wait: seconds until the next attempt.
        """
        model = sending.template.model
        limit, where = self.limit(model), f"{model.name} at {model.base_url} gave no reply ({sent.why})"
        match sent.kind:
            case "served":
                amount = pricing.charged(pricing.usage_of(sent.data), sending.price, most)
                self.record_actual(model, sending.estimated, amount)
                self._replied = time.monotonic()
                self.health.serves(model)
                if limit.closed:  # it was away: what failed meanwhile says nothing of requests
                    self.evidence(model).attempts.clear()
                limit.worked(amount.tokens, sent.headers)
                self.evidence(model).attempts.append((sending.about, True))
                return amount
            case "busy":
                limit.refused(where, wait, sent.wait)
            case "slow" | "failed":
                limit.failed(where, slow=sent.kind == "slow", asked=sent.wait)
                self.evidence(model).attempts.append((sending.about, False))
            case "content" | "declined" | "long":
                self._replied = time.monotonic()
                limit.reached()
        return most if sent.billed else pricing.Amount(0, 0)

    def estimated(self, model: Model, held: pricing.Amount) -> pricing.Amount:
        """The most that a request can use, from its estimate ``held`` and from how earlier calls exceeded theirs."""
        return held.times(self._overrun.get(model.name, (1, 1)))

    def record_actual(self, model: Model, held: pricing.Amount, amount: pricing.Amount) -> None:
        """Learn from a call's actual ``amount``: if it exceeds the estimate ``held``, later calls hold more.

        Models count an image's tokens in ways of their own.
        """
        self._overrun[model.name] = held.factors(amount, self._overrun.get(model.name, (1, 1)))


@dataclass(frozen=True, slots=True)
class _Tries:
    """How often a request was tried; ``proven``: how often after its model had served another, or a canary."""

    all: int
    proven: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sending:
    """A request that is ready to be sent, in one form."""

    template: RequestTemplate
    form: RequestForm
    body: bytes | Body
    price: Any
    estimated: pricing.Amount
    seconds: float  # to wait for the reply
    about: str  # the image, or the unit where there is none


class _Waiting:
    """Tells of a model that is waited for: when it goes away, each half minute, and when it is back."""

    def __init__(self, model: Model, note: Callable[[str], None], health: ModelHealth) -> None:
        self._model = model
        self._note = note
        self._health = health
        self._since = self._told = 0.0  # Unix times; 0: it is not waited for, nothing was told

    def __call__(self, why: str, seconds: float) -> None:
        now = time.time()
        if not why:
            if self._told:
                self._note(f"{self._model.name} is back after {now - self._since:.0f} s")
            self._since = self._told = 0.0
            return
        self._since = self._since or now
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            until = self._since + self._model.patience_seconds
            self._note(
                f"{why}: waiting since {_clock(self._since)}, next try in {seconds:.0f} s, given up at {_clock(until)}"
            )
            self._health.away(self._model, why, self._since)


_TELL_SECONDS = 30.0
_LEAVE_SECONDS = 60.0  # how long whoever looks again later waits for a model while no model replies


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _reply_of(sending: _Sending, units: Sequence[RequestItem], sent: Outcome, drawn: Drawn, seen: int) -> ModelReply:
    """The reply of an attempt, without what its request took in all."""
    return ModelReply(
        data=sent.data or {"error": {"message": sent.why}},
        units=units,
        template=sending.template,
        block=drawn.block,
        ceiling=drawn.ceiling,
        cost=0,
        attempts=1,
        seen=seen,
        seconds=0.0,
        note={},
        allowed=sent.room,
    )


def _note(lost: int, form: RequestForm) -> Mapping[str, Any]:
    """What a reply's record says beside: the cost of failed attempts, and parameters that the model did not take."""
    note: dict[str, Any] = {"lost": lost} if lost else {}
    return {**note, "left_out": list(form.dropped)} if form.dropped else note


def _too_many_images(model: Model, why: str) -> str:
    """A message that says that a model takes fewer images in a request than were shown, and what to do."""
    return (
        f"{model.name} at {model.base_url} takes fewer images in a request than a group has ({why.rstrip('.')}). What "
        "is asked about several images stays pending: have the server take four (vLLM: --limit-mm-per-prompt), take "
        "another model, or leave several_images out of write.variants."
    )


def blame(model: Model, why: str) -> str:
    """A message that says why a model is sent nothing more, and what to check."""
    where = f"model {model.name!r} at {model.base_url}: {why.rstrip('.')}. "
    return where + f"Check base_url, model ({model.model!r}), the key in {model.api_key_env} and its credit."


def _made(
    template: RequestTemplate,
    units: Sequence[RequestItem],
    context: CallContext,
    plan: RetryPlan,
    form: RequestForm,
) -> tuple[Body, bytes | Body]:
    """A request's arguments, and its encoded body."""
    arguments = arguments_of(template, units, context, plan, form)
    return arguments, wire(template.model, arguments)


def arguments_of(
    template: RequestTemplate,
    units: Sequence[RequestItem],
    context: CallContext,
    plan: RetryPlan,
    form: RequestForm,
) -> dict[str, Any]:
    """The body of a chat-completions request to units, asked according to ``plan`` in a form that the model takes."""
    model, mode = template.model, plan.mode or form.mode_for(template.model)
    content: list[dict[str, Any]] = [{"type": "text", "text": template.text(units)}]
    for image in units[0].images if template.about_images else ():
        content.append({"type": "image_url", "image_url": {"url": context.image_url(image)}})
    if plan.fault:
        # In the same turn: many templates of chats take no system message, and no two turns of the user in a row.
        content.append({"type": "text", "text": _repair(plan.fault)})
    arguments: dict[str, Any] = {
        **(model.extra_body or {}),
        "model": model.model,
        "messages": [{"role": "user", "content": content}],
        form.room_field or model.room_field: plan.room(model.max_tokens),
    }
    arguments |= {name: value for name, value in optional(model).items() if name not in form.dropped}
    if mode in {"bounded", "json_schema"}:
        schema = template.json_schema(units, bounded=mode == "bounded")
        schema = {"name": template.stage, "strict": True, "schema": schema}
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
