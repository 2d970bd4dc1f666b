"""How a request reaches a model, and what came of it: the one place that knows HTTP and the official client.

The client is openai's over its aiohttp transport, which takes half the processor time a call of its default; the reply
is read as plain JSON, since building its types would take as long again. Keys are read from the environment (or what
stands for it) when a client is made, and are kept nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.in_process import InProcessModels
from taskgalaxy_ops.models.limits import retry_after
from taskgalaxy_ops.settings import Model

if TYPE_CHECKING:
    import openai  # takes as long as all the rest: loaded where something is really asked

Body = Mapping[str, Any]
Came = Literal["served", "busy", "slow", "failed", "declined", "fatal"]

_FATAL = {401, 402, 403, 404, 405}  # key, credit, permission, model, URL: no other request would fare better
_SPENT = ("insufficient_quota", "billing_hard_limit", "credit balance")  # a 429 or 400 that waiting does not mend
_SLOW = {408, 503, 504, 529}  # overloaded, or too slow for somebody on the way
_MAYBE_SERVED = {408, 504}  # somebody on the way gave up waiting: the model may have gone on, and bill it
_NEVER_LEFT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}  # httpx: nobody was there to serve it
_FILTER = ("content_filter", "content_policy", "safety")
_FORM = ("response_format", "json_schema", "json_object", "structured output", "guided", "grammar")
_UNREAD = ("invalid_image_url", "download", "fetch", "retriev")  # a 400 of who could not read an image by its URL
_SIGNED = re.compile(r"\?\S*X-Amz-Signature\S*", re.IGNORECASE)  # who has it can read the image
_CONNECT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a request.

    served: ``data`` is the reply. busy: too many at once, ``wait`` seconds are asked for. slow: a time-out, or an
    overloaded server. failed: no reply, or none that can be read. declined: for good, a verdict on this request. fatal:
    for good, on all of this model's.
    """

    came: Came
    data: Body
    why: str = ""
    wait: float = 0.0
    headers: Mapping[str, str] | None = None
    left: bool = True  # False: it never reached anybody
    billed: bool = False  # no usage is told, and it may have been served: it counts at its highest
    filtered: bool = False  # declined over what the request is about
    form: bool = False  # declined over how the reply was to be structured


class Sender:
    """Sends requests, over one connection pool a model. For one event loop. ``keys``: by their variables."""

    def __init__(self, keys: Mapping[str, str] = os.environ) -> None:
        self._keys = keys
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        self._in_process = InProcessModels()

    async def aclose(self) -> None:
        """Close all connections, and free what models in process hold."""
        for client in self._clients.values():
            await client.close()
        await self._in_process.close()

    async def ready(self, model: Model) -> None:
        """See to it that the model can be sent something. Raises ModelError: no key, weights that cannot be loaded."""
        if model.weights is not None:
            await self._in_process.of(model).ready()
        else:
            self.client(model)

    def client(self, model: Model) -> openai.AsyncOpenAI:
        """The model's client. Raises ModelError where its key is missing."""
        import httpx2
        import openai

        name = f"{model.name} {model.base_url}"  # a batch may still lie where its model was before
        if name not in self._clients:
            key = self._keys.get(model.api_key_env, "")
            if not key and not model.simulated:
                raise ModelError(
                    f"model {model.name!r}: the environment variable {model.api_key_env} holds no key. "
                    "Set it, or name another by `api_key_env`."
                )
            # A pool's own bound would be a second one beside limits.py: none.
            pool = httpx2.Limits(max_connections=2 * model.concurrency, keepalive_expiry=60)
            self._clients[name] = openai.AsyncOpenAI(
                base_url=model.base_url,
                api_key=key or "none",
                max_retries=0,
                http_client=openai.DefaultAioHttpClient(limits=pool),
            )
        return self._clients[name]

    async def send(self, model: Model, arguments: Body, seconds: float) -> Sent:
        """Send the body of a chat-completions request, and wait at most ``seconds`` for the reply."""
        import aiohttp
        import openai

        try:
            async with asyncio.timeout(seconds + _CONNECT_SECONDS):
                if model.weights is not None:
                    return read(await self._in_process.of(model).complete(arguments), None)
                return await self._post(model, arguments, seconds)
        except openai.APIStatusError as error:
            by_url = model.images == "url"
            return refused(error.status_code, error.code, error.message, error.response.headers, by_url=by_url)
        except (openai.APIConnectionError, aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            # A body that is no JSON, too: it may have been served.
            return _lost(error, seconds)

    async def _post(self, model: Model, arguments: Body, seconds: float) -> Sent:
        import httpx2

        # Not chat.completions.create, which looks through all arguments for types: a quarter of its time.
        response = await self.client(model).post(
            "/chat/completions",
            cast_to=httpx2.Response,
            body=arguments,
            options={"timeout": httpx2.Timeout(seconds, connect=_CONNECT_SECONDS, pool=None)},
        )
        return read(json.loads(response.content), response.headers)


def read(data: Any, headers: Mapping[str, str] | None) -> Sent:
    """A reply of status 200. Raises ValueError for what is none."""
    if not isinstance(data, dict):
        raise ValueError(f"the body is a {type(data).__name__}, no object")
    if data.get("error") and not data.get("choices"):  # some gateways pass an error on with a 200
        raise ValueError(f"an error in place of a reply: {_unsigned(str(data['error']))[:200]}")
    return Sent("served", data, headers=headers)


def _lost(error: BaseException, seconds: float) -> Sent:
    """A request that came to nothing: too slow or broken, and whether it may have reached somebody.

    aiohttp's own word counts, where it has one: its transport calls any connection that was lost a time-out of
    connecting, also one that was lost when all had been sent.
    """
    import aiohttp
    import httpx2

    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    slow = any(isinstance(each, TimeoutError) for each in causes)
    if own := [each for each in causes if isinstance(each, aiohttp.ClientError)]:
        left = not isinstance(own[0], aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    else:
        left = not any(type(each).__name__ in _NEVER_LEFT for each in causes)
        slow = slow or any(isinstance(each, httpx2.TimeoutException) for each in causes)
    why = f"no reply in {seconds:g} s" if slow else f"{type(error).__name__}: {error}"
    return Sent("slow" if slow else "failed", {}, why, left=left, billed=left)


def refused(status: int, code: Any, told: Any, headers: Mapping[str, str], *, by_url: bool = False) -> Sent:
    """A reply of another status, with its error's code and message; ``by_url``: the image was to be fetched."""
    said, message = f"{code} {told}".lower(), _unsigned(str(told))[:200]
    data = {"error": {"status": status, "message": message}}
    why, wait = f"{status}, {message}", retry_after(headers)
    if status in _FATAL or any(word in said for word in _SPENT):
        return Sent("fatal", data, why)
    if status == 429:
        return Sent("busy", data, why, wait, headers)
    if status in _SLOW:
        return Sent("slow", data, why, wait, billed=status in _MAYBE_SERVED)
    if status >= 500 or status == 409:
        return Sent("failed", data, why, wait)
    if by_url and any(word in said for word in _UNREAD):  # says nothing about the image
        return Sent("failed", data, why, wait)
    filtered = any(word in said for word in _FILTER)
    return Sent("declined", data, why, filtered=filtered, form=not filtered and any(word in said for word in _FORM))


def _unsigned(text: str) -> str:
    return _SIGNED.sub("?…", text)
