"""The one door to chat models: any OpenAI-compatible URL, asked asynchronously with bounded concurrency.

Retries by kind: 429 (Retry-After honoured), 5xx, time-outs and lost connections with jittered back-off; a malformed
reply is asked again with what was wrong, and only for the units that lack an answer; a refusal or a 400 is an answer
with a reason, once it is known which unit it concerns. Every reply that was paid for goes to the journal, raw.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from taskgalaxy_ops.errors import ModelError, TaskGalaxyError
from taskgalaxy_ops.models import pricing
from taskgalaxy_ops.models.purse import Purse
from taskgalaxy_ops.models.questions import Question, Unit, clean
from taskgalaxy_ops.records import Reason
from taskgalaxy_ops.settings import Model
from taskgalaxy_ops.storage.journal import Answer, Journal, Reply

if TYPE_CHECKING:
    import openai  # takes as long as all the rest: loaded where something is really asked

_BACKOFF_SECONDS = 0.5  # doubled each try
_BACKOFF_LONGEST = 30.0
_RETRY_AFTER_LONGEST = 300.0  # a longer one is the provider's way to say: not today
_FATAL = {401, 402, 403, 404, 405}  # key, credit, permission, model, URL: no other request would fare better
_NEVER_LEFT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}  # httpx: nobody was there to serve it
_FAILURES_TO_OPEN = 3  # requests in a row that gave up, after which a model is left alone for this run


@dataclass(slots=True)
class Usage:
    """What a run's calls came to, for the progress line and the summary."""

    calls: int = 0  # replies received
    requests: int = 0  # HTTP requests sent, retries included
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0  # nano-dollars
    list_cost: int = 0  # nano-dollars
    unavailable: dict[str, str] = field(default_factory=dict)  # model: why it is left alone
    gave_up: dict[str, str] = field(default_factory=dict)  # model: why a request got no reply, the last one's


@dataclass(frozen=True, slots=True)
class Desk:
    """What a home gives to its calls: its journal, its share of the budget, its images, and its right to send."""

    journal: Journal
    purse: Purse
    image_url: Callable[[str], str]  # image id -> data URL, scaled for the model
    check: Callable[[], None]  # raises LeaseLostError past the lease's deadline


class _GaveUpError(Exception):
    """A request that got no reply: its units stay pending."""


class Gateway:
    """Asks models. One a process and event loop."""

    def __init__(self) -> None:
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._failures: dict[str, int] = {}
        self._served: set[str] = set()  # models that have replied in this run
        self._dearer: dict[str, tuple[float, float]] = {}  # how many times what was reckoned a model's calls came to
        self.usage = Usage()

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    def _client(self, model: Model) -> openai.AsyncOpenAI:
        import openai

        if model.name not in self._clients:
            key = os.environ.get(model.api_key_env, "")
            if not key and not model.simulated:
                raise ModelError(
                    f"model {model.name!r}: the environment variable {model.api_key_env} holds no key. "
                    "Set it, or name another by `api_key_env`."
                )
            self._clients[model.name] = openai.AsyncOpenAI(
                base_url=model.base_url, api_key=key or "none", max_retries=0, timeout=model.timeout_seconds
            )
        return self._clients[model.name]

    async def ask(self, question: Question, units: Sequence[Unit], desk: Desk) -> None:
        """Ask units of one image in one request; answers go to the journal. What gets no reply stays pending.

        A model that refuses us for good, or gives no reply to several requests in a row, is left alone for this run;
        ``usage.unavailable`` says why. Raises BudgetError and LeaseLostError.
        """
        model = question.model
        if model.name not in self._slots:
            self._slots[model.name] = asyncio.Semaphore(model.concurrency)
        async with self._slots[model.name]:
            if model.name in self.usage.unavailable:
                return
            try:
                await self._converse(question, list(units), desk)
                self._failures[model.name] = 0
            except ModelError as error:
                self.usage.unavailable[model.name] = str(error)
            except _GaveUpError as error:
                self.usage.gave_up[model.name] = str(error)
                self._failures[model.name] = self._failures.get(model.name, 0) + 1
                if self._failures[model.name] >= _FAILURES_TO_OPEN:
                    self.usage.unavailable[model.name] = str(error)

    async def _converse(self, question: Question, units: list[Unit], desk: Desk) -> None:
        fault, detail = "", ""
        room = question.model.max_tokens
        for _ in range(question.model.repairs + 1):
            body, reply = await self._request(question, units, desk, fault, room)
            if reply.refusal:
                if len(units) > 1:  # which of them was it? ask each by itself
                    self._keep(desk, reply, {})
                    for unit in units:
                        await self._converse(question, [unit], desk)
                    return
                self._keep(desk, reply, {units[0].key: Answer(terminal=Reason.REFUSED, detail=reply.refusal)})
                return
            answers, fault = question.parse(units, body)
            units = [unit for unit in units if unit.key not in answers]
            self._keep(desk, reply, answers)
            if not units:
                return
            detail = fault
            if reply.cut:
                room *= 2
                fault = ""  # it was not wrong, it was too long
        gone = {unit.key: Answer(terminal=Reason.MALFORMED, detail=detail[:300]) for unit in units}
        self._keep(desk, reply, gone, again=True)

    async def _request(
        self, question: Question, units: Sequence[Unit], desk: Desk, fault: str, room: int
    ) -> tuple[str, _Received]:
        import openai

        model = question.model
        client = self._client(model)
        price = pricing.priced(model, money=desk.purse.counts_money)
        desk.check()  # before an image is rendered for nothing
        arguments = await asyncio.to_thread(_arguments, question, units, desk, fault, room)
        reckoned = pricing.at_most(arguments, model, room, price)
        most = reckoned.times(self._dearer.get(model.name, (1, 1)))
        started = time.monotonic()
        why = ""
        for attempt in range(1, model.retries + 2):
            desk.check()
            drawn = await desk.purse.draw(*most)
            try:
                desk.check()  # the draw may have waited
            except TaskGalaxyError:
                await desk.purse.back(drawn, 0, sent=False)
                raise
            self.usage.requests += 1
            seen = desk.journal.seen
            try:
                # Not chat.completions.create, which looks through all arguments for types: a quarter of its time.
                data = json.loads(await client.post("/chat/completions", cast_to=bytes, body=arguments))
                if not isinstance(data, dict):
                    raise ValueError(f"the body is a {type(data).__name__}, no object")
                if data.get("error") and not data.get("choices"):  # some gateways pass an error on with a 200
                    raise ValueError(f"an error in place of a reply: {str(data['error'])[:200]}")
            except openai.APIStatusError as error:
                wait = _retry_wait(error, attempt)
                await desk.purse.back(drawn, 0)
                if error.status_code in _FATAL:
                    raise ModelError(
                        f"model {model.name!r} at {model.base_url}: {error.status_code}, {_message(error)}. "
                        f"Check base_url, model ({model.model!r}), the key in {model.api_key_env} and its credit."
                    ) from error
                if wait is None and model.name not in self._served and not _filtered(error):
                    # It has never replied: more likely our request is not to its taste than every image is.
                    raise ModelError(
                        f"model {model.name!r} at {model.base_url}: {error.status_code}, {_message(error)}. "
                        f"Check what it takes: structured ({model.structured!r}), temperature, room_field."
                    ) from error
                if wait is None:  # 400 and the like: an answer with a reason
                    return "", _Received(
                        {"error": {"status": error.status_code, "message": _message(error)}},
                        units,
                        question,
                        drawn.block,
                        most.cost,
                        0,
                        attempt,
                        seen,
                        time.monotonic() - started,
                    )
                why = f"{error.status_code}, {_message(error)}"
            except (openai.APIConnectionError, ValueError, RecursionError) as error:
                # Time-outs too, and a body that is no JSON: it may have been served, and billed. Without a word of
                # usage it counts at its highest.
                left = type(error.__cause__).__name__ not in _NEVER_LEFT
                await desk.purse.back(drawn, *(most if left else (0, 0)), sent=left)
                wait, why = _backoff(attempt), f"{type(error).__name__}: {error}"
            except BaseException:
                await desk.purse.back(drawn, *most)
                raise
            else:
                self._served.add(model.name)
                amount = pricing.charged(pricing.usage_of(data), price, most)
                # Each model counts an image's tokens in its own way: of one that took more, more is held from now on.
                self._dearer[model.name] = reckoned.factors(amount, self._dearer.get(model.name, (1, 1)))
                await desk.purse.back(drawn, *amount)
                received = _Received(
                    data,
                    units,
                    question,
                    drawn.block,
                    most.cost,
                    amount.cost,
                    attempt,
                    seen,
                    time.monotonic() - started,
                )
                return received.text, received
            if attempt <= model.retries:
                await asyncio.sleep(wait)
        raise _GaveUpError(f"{model.name} at {model.base_url} gave no reply in {model.retries + 1} tries ({why})")

    def _keep(self, desk: Desk, received: _Received, answers: Mapping[str, Answer], *, again: bool = False) -> None:
        """To the journal; ``again``: the reply is there already, this entry only adds terminal answers."""
        model = received.question.model
        usage = {} if again else pricing.usage_of(received.data)
        list_cost = pricing.cost(usage, model.list_price or pricing.price_of(model) or pricing.FREE)
        if not again:
            self.usage.calls += 1
            self.usage.prompt_tokens += usage.get("prompt_tokens", 0)
            self.usage.completion_tokens += usage.get("completion_tokens", 0)
            self.usage.cost += received.cost
            self.usage.list_cost += list_cost
        desk.journal.add(
            Reply(
                reply=uuid.uuid4().hex,
                stage=received.question.stage,
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
                image=received.units[0].image,
                simulated=model.simulated or bool(received.data.get("simulated")),
                run=desk.purse.run,
                types=tuple(unit.item["task_type"] for unit in received.units if "task_type" in unit.item),
            )
        )


@dataclass(frozen=True, slots=True)
class _Received:
    data: Mapping[str, Any]
    units: Sequence[Unit]
    question: Question
    block: str
    ceiling: int
    cost: int
    attempts: int
    seen: int
    seconds: float

    @property
    def _choice(self) -> Mapping[str, Any]:
        return _choice(self.data)

    @property
    def text(self) -> str:
        return reply_text(self.data)

    @property
    def cut(self) -> bool:
        return self._choice.get("finish_reason") == "length"

    @property
    def refusal(self) -> str:
        """Why this is no answer for good; "" if it is one."""
        if self.data.get("error"):
            return clean(f"{self.data['error']}")[:300]
        message = self._choice.get("message")
        refusal = message.get("refusal") if isinstance(message, dict) else None
        if refusal:
            return clean(str(refusal))[:300] or "refused"
        return "content filter" if self._choice.get("finish_reason") == "content_filter" else ""


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def reply_text(data: Mapping[str, Any]) -> str:
    """The text of a chat completion's first choice; "" where there is none."""
    message = _choice(data).get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _arguments(question: Question, units: Sequence[Unit], desk: Desk, fault: str, room: int) -> dict[str, Any]:
    model = question.model
    content: list[dict[str, Any]] = [{"type": "text", "text": question.text(units)}]
    if (image := units[0].image) is not None:
        content.append({"type": "image_url", "image_url": {"url": desk.image_url(image)}})
    messages = []
    if fault:
        # Before the request, which stays last: the former reply was not usable for these units.
        messages.append({"role": "system", "content": f"Your former reply could not be used: {fault[:500]}"})
    messages.append({"role": "user", "content": content})  # type: ignore[dict-item]
    arguments: dict[str, Any] = {
        "model": model.model,
        "messages": messages,
        model.room_field: room,
    }
    if model.temperature is not None:
        arguments["temperature"] = model.temperature
    if model.structured == "json_schema":
        schema = {"name": question.stage, "strict": True, "schema": question.json_schema()}
        arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif model.structured == "json_object":
        arguments["response_format"] = {"type": "json_object"}
    return arguments


def _backoff(attempt: int) -> float:
    return min(_BACKOFF_LONGEST, _BACKOFF_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def _filtered(error: openai.APIStatusError) -> bool:
    """Whether a 400 is the provider's verdict on the content, not on the form of the request."""
    return any(
        word in f"{error.code} {_message(error)}".lower() for word in ("content_filter", "content_policy", "safety")
    )


def _retry_wait(error: openai.APIStatusError, attempt: int) -> float | None:
    """Seconds to wait before the next try; None if another try is of no use."""
    if error.status_code not in {408, 409, 429} and error.status_code < 500:
        return None
    asked = _retry_after(error.response.headers.get("retry-after", ""))
    return max(_backoff(attempt), min(asked, _RETRY_AFTER_LONGEST))


def _retry_after(header: str) -> float:
    """Seconds that Retry-After asks for, which is a number or a date (RFC 9110, 10.2.3); 0 where it says nothing."""
    try:
        return float(header)
    except ValueError:
        try:
            return parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0


def _message(error: openai.APIStatusError) -> str:
    return str(error.message)[:200]
