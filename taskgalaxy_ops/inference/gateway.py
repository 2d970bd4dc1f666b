"""The gateway sends all requests to chat models: to any OpenAI-compatible URL, or to a model in this process.

What follows from a reply is decided by evidence (model_evidence.py): a request that a model refuses or fails at is the
item's fault only if the model answers others, or a canary (canary.py). After a 429 the gateway waits as the server
says; a model that serves nothing is waited for as long as its patience. A malformed reply is asked for again, with what
was wrong, and only for the units that lack an answer. Every reply that was paid for goes to the journal, raw.
models/rate_limit.py decides how many requests are in flight.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.inference.attempts import Attempts, CallContext, GaveUpError
from taskgalaxy_ops.inference.batch_room import BatchRoom
from taskgalaxy_ops.inference.canary import canary_unit
from taskgalaxy_ops.inference.request_forms import identity
from taskgalaxy_ops.inference.worker_shares import Shares
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.batch_api import Batches
from taskgalaxy_ops.models.http import Outcome, Sender
from taskgalaxy_ops.models.rate_limit import Unavailable
from taskgalaxy_ops.models.refusals import IMAGES
from taskgalaxy_ops.models.reply import FIRST, Interpretation, ModelReply, RetryPlan, interpret
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.usage import Tally, Usage

__all__ = ["CallContext", "Gateway"]

NO_ANSWER = (ModelError, Unavailable, GaveUpError)  # what asking a model raises where it gives none
_CANARY_TRIES = 2  # a healthy model's reply may be malformed once
_TALLIED = ("raw", "answers", "usage", "cost", "list_cost", "seconds", "simulated")  # fields of a reply


class Gateway:
    """Sends requests to models. There is one gateway for each process and event loop.

    ``shares``: shares its limits with other workers, and is closed with it; None: the limits are not shared. ``note``:
    is told of models that are waited for. ``keys``: the API keys, by environment variable. ``patient``: see
    ``Attempts``.
    """

    def __init__(
        self,
        shares: Shares | None = None,
        note: Callable[[str], None] = lambda text: None,
        *,
        usage: Usage | None = None,
        keys: Mapping[str, str] = os.environ,
        patient: bool = True,
    ) -> None:
        self.usage = usage or Usage()
        self.sender = Sender(keys)
        self.attempts = Attempts(self.sender, shares, self.usage, self._probe, note, patient)
        self.batches = Batches(self.sender)
        self._shares = shares
        self.batch_room = BatchRoom()
        self._places: dict[str, asyncio.Semaphore] = {}  # bounds the requests in memory, by model
        self._shorter: dict[tuple[str, ...], _Shorter] = {}  # by model and request: what fits it
        self._canaries: dict[tuple[str, ...], asyncio.Lock] = {}

    async def aclose(self) -> None:
        """Close all connections, free the memory of models in this process, and stop sharing limits."""
        await self.sender.aclose()
        await self.attempts.forms.aclose()
        await self.attempts.health.aclose()
        if self._shares:
            await self._shares.aclose()

    async def ask(self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        """Ask for items of one image in one request; answers go to the journal. Items without a reply stay pending.

        A model that refuses every request, serves nothing for as long as its patience, or gives mostly unusable
        replies, is disabled for this run; ``usage.unavailable`` says why. Raises BudgetError and LeaseLostError.
        """
        model = template.model
        if model.name not in self._places:
            # While some requests are in flight, as many more are prepared, or wait to be sent again.
            self._places[model.name] = asyncio.Semaphore(2 * model.concurrency)
        async with self._places[model.name]:
            if model.name in self.usage.unavailable:
                return
            try:
                await self._converse(template, list(units), context, self._fitting(template).plan)
            except NO_ANSWER as error:
                self.no_answer(model, error)

    def no_answer(self, model: Model, error: Exception) -> None:
        """Note why a model gave no answer; where it is not only this request's, send it nothing more in this run."""
        if isinstance(error, GaveUpError):
            self.usage.gave_up[model.name] = str(error)
        else:
            self.disable(model, str(error))

    def shown_too_many(self, model: Model, sent: Outcome, units: Sequence[RequestItem]) -> bool:
        """Whether a request of a batch was refused for the number of its images; noted as of a chat request's."""
        if sent.parameter != IMAGES or not any(unit.further for unit in units):
            return False
        self.no_answer(model, self.attempts.takes_fewer(model, sent.why))
        return True

    def disable(self, model: Model, why: str) -> None:
        """Send this model nothing more in this run."""
        limit = self.attempts.limit(model)
        self.usage.unavailable.setdefault(model.name, why)
        if limit.away:
            self.usage.away.setdefault(model.name, time.time() - limit.away)
        limit.give_up(why)

    async def _converse(
        self, template: RequestTemplate, units: Sequence[RequestItem], context: CallContext, plan: RetryPlan
    ) -> None:
        size = 1 if plan.alone else plan.size or len(units)
        if len(units) > size:
            for at in range(0, len(units), size):
                await self._converse(template, units[at : at + size], context, plan)
            return
        reply = await self.attempts.request(template, units, context, plan)
        interpreted = await self._settled(reply, interpret(reply, plan), context)
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError
        self._fitting(template).learn(reply, plan, interpreted.after)
        if interpreted.rest:
            await self._converse(template, interpreted.rest, context, interpreted.after)

    async def _settled(self, reply: ModelReply, interpreted: Interpretation, context: CallContext) -> Interpretation:
        """Keep a reply and what it answers; terminal answers only once it is clear that they are not the model's fault.

        The reply is kept first, since it was paid for. Raises ModelError if the model is the problem.
        """
        terminal, good, moderated = interpreted.terminal, interpreted.good, reply.moderated
        if reply.kind in {"served", "declined"} and not moderated:
            evidence = self.attempts.evidence(reply.template.model)
            evidence.replied(len(good), reply.text or reply.refusal)
            evidence.takes_groups |= bool(good) and reply.units[0].further != ()
        self.keep(context, reply, good if reply.kind == "served" else {})
        if terminal and (moderated or await self.credible(reply, context, len(terminal))):
            gone = [unit for unit in reply.units if unit.key in terminal]
            self.keep(context, replace(reply, units=gone), terminal, again=True)
        elif reply.kind == "declined" and not terminal:  # several units: is it the form, or one of them?
            await self.believed_refusal(reply, context)
        return interpreted

    async def credible(self, reply: ModelReply, context: CallContext, units: int) -> bool:
        """Whether units that end without an answer end so by their own fault. Raises ModelError if by the model's."""
        model = reply.template.model
        evidence = self.attempts.evidence(model)
        if reply.kind == "failing":
            return True  # a canary passed just now
        if reply.kind == "declined":
            return await self.believed_refusal(reply, context)
        if evidence.may_lose(units) and (evidence.mostly_good or await self._answers_plainly(reply.template, context)):
            evidence.lost += units
            return True
        raise _too_short(model, reply) if reply.kind == "long" else self._unusable(model)

    def _unusable(self, model: Model) -> ModelError:
        evidence = self.attempts.evidence(model)
        return ModelError(
            f"model {model.name!r} at {model.base_url}: {evidence.unusable()}. Its units stay pending. Check that it "
            f"is the right model, that it sees images, its max_tokens ({model.max_tokens}) and structured "
            f"({model.structured})."
        )

    async def believed_refusal(self, reply: ModelReply, context: CallContext) -> bool:
        """Whether a refusal is the item's: the model took the form of others, or of a canary. Raises ModelError."""
        model, evidence = reply.template.model, self.attempts.evidence(reply.template.model)
        if evidence.mostly_bad:
            raise self._unusable(model)
        async with self._lock(model):
            if evidence.mostly_good or evidence.takes_form:
                return await self._takes_groups(reply, context)
            alone = replace(reply.template, groups=None)
            canary = await self._canary(alone, context)
            if canary is not None and canary.kind == "failing":  # which may pass, and says nothing about the form
                canary = await self._canary(alone, context)
            if canary is None or canary.kind == "served":
                evidence.takes_form = True
                return await self._takes_groups(reply, context)
        does = "fails at" if canary.kind == "failing" else "refuses"
        raise ModelError(
            f"model {model.name!r} at {model.base_url} {does} a plain picture, too: {_why(canary)}. Check that it "
            f"takes images, model ({model.model!r}), structured ({model.structured}) and the other settings of the "
            "request; `taskgalaxy doctor` shows what it takes."
        )

    async def _takes_groups(self, reply: ModelReply, context: CallContext) -> bool:
        """True; raises GaveUpError where a model that takes a picture refuses two: then a group is not at fault."""
        evidence = self.attempts.evidence(reply.template.model)
        if not evidence.takes_groups and any(unit.further for unit in reply.units):
            canary = await self._canary(replace(reply.template, groups={}), context)
            if canary is not None and canary.kind == "declined":
                raise self.attempts.takes_fewer(reply.template.model, _why(canary))
            evidence.takes_groups = canary is None or canary.kind == "served"
        return True

    async def _probe(self, template: RequestTemplate, context: CallContext) -> None:
        """Ask a canary, so that its being served, or not, tells whether the model is there."""
        async with self._lock(template.model):
            await self._canary(template, context)

    async def _answers_plainly(self, template: RequestTemplate, context: CallContext) -> bool:
        """Whether the model answers a plain request in form; False once many of its replies were unusable."""
        evidence = self.attempts.evidence(template.model)
        async with self._lock(template.model):
            for _ in range(0 if evidence.answers_plainly else _CANARY_TRIES):
                canary = await self._canary(template, context)
                if canary is None or (canary.kind == "served" and template.parse(canary.units, canary.text)[0]):
                    evidence.answers_plainly = True
                    break
        return evidence.answers_plainly and not evidence.mostly_bad

    def _lock(self, model: Model) -> asyncio.Lock:
        """Held while a canary is under way, so that one tells all requests."""
        return self._canaries.setdefault(identity(model), asyncio.Lock())

    async def _canary(self, template: RequestTemplate, context: CallContext) -> ModelReply | None:
        """Ask about the plain picture, in the form of a run; None if the template has no such question."""
        if (unit := canary_unit(template)) is None:
            return None
        plan: RetryPlan | None = self._fitting(template).plan
        while plan is not None:
            reply = await self.attempts.request(template, [unit], context, plan, canary=True)
            self.keep(context, replace(reply, units=(), note={**reply.note, "canary": True}), {})
            # Of a model of short context, too, it is the form that is asked about.
            plan = plan.shorter(1, template.model.max_tokens, reply.allowed) if reply.kind == "long" else None
        return reply

    def _fitting(self, template: RequestTemplate) -> _Shorter:
        key = (*identity(template.model), template.stage, str(template.head.get("variant", "")))
        return self._shorter.setdefault(key, _Shorter())

    def keep(
        self, context: CallContext, received: ModelReply, answers: Mapping[str, Answer], *, again: bool = False
    ) -> None:
        """Add a reply and its answers to the journal, those to a follow-up in an entry of its stage.

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
        reply = Reply(
            reply=received.name or uuid.uuid4().hex,
            stage=received.template.stage,
            model=model.name,
            units=tuple(unit.key for unit in received.units),
            answers={unit.key: answers[unit.key] for unit in received.units if unit.key in answers},
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
            further_images=received.units[0].further if received.units else (),
            simulated=model.simulated or bool(received.data.get("simulated")),
            run=received.run or context.shard_budget.run,
            types=tuple(unit.item["task_type"] for unit in received.units if "task_type" in unit.item),
            note={} if again else _note(received),
        )
        for entry in (reply, *_asked_along(reply, received, answers)):
            self.usage.by_model.setdefault(model.name, Tally()).add({name: getattr(entry, name) for name in _TALLIED})
            context.journal.add(entry)


def _note(received: ModelReply) -> Mapping[str, Any]:
    """What a reply's record says beside. By the question form, where it has a version, and the kind of request, where
    its stage has several, the reply is read again."""
    template = received.template
    form, along, request = template.form, template.follow_up, template.head.get("request")
    told = {**({"form": form["name"]} if form else {}), **({"along": along.name} if along else {})}
    told |= {} if along or request in {None, template.stage} else {"request": request}
    return {**received.note, **told} if told else received.note


def _asked_along(reply: Reply, received: ModelReply, answers: Mapping[str, Answer]) -> Iterator[Reply]:
    """The entry of what a reply answers of a follow-up, in the follow-up's stage: no call, and ``asked_along`` with it.

    Its units are those that were called for, also where the reply has no answer to them; ``numbers`` says which of the
    request's items they are, so that the reply can be read again.
    """
    follow_up = received.template.follow_up
    if follow_up is None or not (units := follow_up.of(received.units, answers)):
        return
    form = follow_up.template.form
    numbers = [number for number, unit in enumerate(received.units, 1) if unit in units]
    yield replace(
        reply,
        reply=f"{reply.reply}-{follow_up.template.stage}",
        stage=follow_up.template.stage,
        units=tuple(unit.follow_up for unit in units),
        answers={unit.follow_up: answers[unit.follow_up] for unit in units if unit.follow_up in answers},
        raw={},
        usage={},
        cost=0,
        list_cost=0,
        ceiling=0,
        block="",
        types=tuple(unit.item["task_type"] for unit in units),
        note={"asked_along": reply.reply, "numbers": numbers, **({"form": form["name"]} if form else {})},
    )


class _Shorter:
    """What was learnt in this run of the requests that fit a model: how many units, and how much room."""

    def __init__(self) -> None:
        self.plan = FIRST
        self._fitted = 0  # requests that fitted as they were

    def learn(self, reply: ModelReply, asked: RetryPlan, after: RetryPlan) -> None:
        """Ask for less from now on if more requests were too long than fitted: one odd item is no reason."""
        if reply.kind == "served" and (asked.size, asked.tokens) == (self.plan.size, self.plan.tokens):
            self._fitted += 1
        elif reply.kind == "long":
            self._fitted -= 1
            if self._fitted < 0:
                size = min(filter(None, (self.plan.size, after.size)), default=0)
                tokens = min(filter(None, (self.plan.tokens, after.tokens)), default=0)
                self.plan, self._fitted = replace(FIRST, size=size, tokens=tokens), 0


def _too_short(model: Model, reply: ModelReply) -> ModelError:
    """Of a model whose context holds too few of the requests, or not even a plain one."""
    return ModelError(
        f"model {model.name!r} at {model.base_url}: too many requests of one unit do not fit its context "
        f"({_why(reply)}). Their units stay pending. Serve it with a longer context (vLLM: --max-model-len), or lower "
        f"max_tokens ({model.max_tokens}) or image_side ({model.image_side})."
    )


def _why(reply: ModelReply) -> str:
    return str((reply.data.get("error") or {}).get("message") or reply.kind).rstrip(".")
