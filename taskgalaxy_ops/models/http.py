"""How a request reaches a model, and what came of it: the one place that knows HTTP.

The official client says how a provider is reached: URL, key, headers; files and batches go through it. A chat request,
of which there are millions, is posted over aiohttp with that client's headers, for a third of the processor time that
its own machinery takes (``python -m benchmarks.gateway sending``). Keys are read from the environment, or what stands
for it, when a client is made, and are kept nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.local.server import InProcessModels
from taskgalaxy_ops.models.rate_limit import retry_after
from taskgalaxy_ops.settings import Model

if TYPE_CHECKING:
    import aiohttp  # these two take as long as all the rest: loaded where something is really asked
    import openai

Body = Mapping[str, Any]
_Place = tuple[str, str]
Came = Literal["served", "busy", "slow", "failed", "declined", "fatal"]

_FATAL = {401, 402, 403, 404, 405}  # key, credit, permission, model, URL: no other request would fare better
_SPENT = ("insufficient_quota", "billing_hard_limit", "credit balance")  # a 429 or 400 that waiting does not mend
_SLOW = {408, 503, 504, 529}  # overloaded, or too slow for somebody on the way
_MAYBE_SERVED = {408, 504}  # somebody on the way gave up waiting: the model may have gone on, and bill it
_FILTER = ("content_filter", "content_policy", "safety")
_FORM = ("response_format", "json_schema", "json_object", "structured output", "guided", "grammar")
_UNREAD = ("invalid_image_url", "download", "fetch", "retriev")  # a 400 of who could not read an image by its URL
_SIGNED = re.compile(r"\?\S*X-Amz-Signature\S*", re.IGNORECASE)  # who has it can read the image
_CONNECT_SECONDS = 15.0
_IDLE_SECONDS = 60.0  # that a connection is kept for another request


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
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
        self._clients: dict[_Place, openai.AsyncOpenAI] = {}
        self._sessions: dict[_Place, aiohttp.ClientSession] = {}
        self._in_process = InProcessModels()

    async def aclose(self) -> None:
        """Close all connections, and free what models in process hold."""
        for session in self._sessions.values():
            await session.close()
        for client in self._clients.values():
            await client.close()
        await self._in_process.close()

    async def ready(self, model: Model) -> None:
        """See to it that the model can be sent something. Raises ModelError: no key, weights that cannot be loaded."""
        if model.weights is not None:
            await self._in_process.of(model).ready()
        else:
            self._session(model)

    def client(self, model: Model) -> openai.AsyncOpenAI:
        """The model's client. Raises ModelError where its key is missing."""
        import openai

        if _place(model) not in self._clients:
            key = self._keys.get(model.api_key_env, "").strip()
            if not key and not model.simulated:
                raise ModelError(
                    f"model {model.name!r}: the environment variable {model.api_key_env} holds no key. "
                    "Set it, or name another by `api_key_env`."
                )
            if not key.isprintable() or urlsplit(model.base_url).username is not None:
                raise ModelError(
                    f"model {model.name!r}: the key in {model.api_key_env} holds a control character, or base_url a "
                    "user. The key alone says who asks: set it in one line, and base_url without a user."
                )
            self._clients[_place(model)] = openai.AsyncOpenAI(
                base_url=model.base_url,
                api_key=key or "none",
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(verify=_certificates()),
            )
        return self._clients[_place(model)]

    def _session(self, model: Model) -> aiohttp.ClientSession:
        """Connections to where the model's client would send requests, as it would send them. Raises ModelError."""
        import aiohttp

        if _place(model) not in self._sessions:
            proxy, client = _proxy(model), self.client(model)
            headers = {**client.default_headers, **client.auth_headers, "Content-Type": "application/json"}
            # The pool's own bound would be a second one beside limits.py: none. Certificates as the client's.
            pool = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=_certificates())
            self._sessions[_place(model)] = aiohttp.ClientSession(
                connector=pool,
                headers={name: value for name, value in headers.items() if isinstance(value, str)},
                **proxy,
            )
        return self._sessions[_place(model)]

    async def send(self, model: Model, body: bytes | Body, seconds: float) -> Outcome:
        """Send the body of a chat-completions request (``wire``), and wait at most ``seconds`` for the reply."""
        import aiohttp

        try:
            async with asyncio.timeout(seconds + _CONNECT_SECONDS):
                if not isinstance(body, bytes):
                    return read(await self._in_process.of(model).complete(body), None)
                status, headers, raw = await self.post(model, body, seconds)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            return _lost(error, seconds)
        try:
            data = json.loads(raw)
            if status < 300:
                return read(data, headers)
        except (ValueError, RecursionError) as error:  # it may have been served
            if status < 300:
                return _lost(error, seconds)
            data = raw[:1000].decode("utf-8", "replace")
        return refused(status, data, headers, by_url=model.images == "url")

    async def post(self, model: Model, raw: bytes, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
        """The reply's status, headers and body."""
        import aiohttp

        url, timeout = _place(model)[1], aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=seconds)
        async with self._session(model).post(f"{url}/chat/completions", data=raw, timeout=timeout) as reply:
            return reply.status, reply.headers, await reply.read()


def _proxy(model: Model) -> dict[str, Any]:
    """The proxy that the environment names for a model, as a session takes it. Raises ModelError if it is of no use."""
    import aiohttp
    from yarl import URL

    # Looked up once: a session of aiohttp does it for each request, which takes longer than all the rest.
    parts, proxies = urlsplit(model.base_url), urllib.request.getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or urllib.request.proxy_bypass(parts.netloc):
        return {}
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http":
        raise ModelError(
            f"model {model.name!r}: its proxy, by the environment, is of {proxy.scheme}. Name one of http://host:port "
            "in HTTPS_PROXY, or except the model's host in NO_PROXY."
        )
    auth = aiohttp.BasicAuth(proxy.user, proxy.password or "") if proxy.user else None
    return {"proxy": proxy.with_user(None), "proxy_auth": auth}


@cache
def _certificates() -> ssl.SSLContext:
    """Whom the official client trusts, read once: it takes as long as fifty calls."""
    import httpx2

    return httpx2.create_ssl_context()


def _place(model: Model) -> _Place:
    """A model where it is: a batch may still lie where it was before."""
    return model.name, model.base_url.rstrip("/")


def wire(model: Model, arguments: Body) -> bytes | Body:
    """A request's body, as it is sent however often: bytes, but for a model in process."""
    return arguments if model.weights is not None else json.dumps(arguments).encode()


def read(data: Any, headers: Mapping[str, str] | None) -> Outcome:
    """A reply of status 200. Raises ValueError for what is none."""
    if not isinstance(data, dict):
        raise ValueError(f"the body is a {type(data).__name__}, no object")
    if data.get("error") and not data.get("choices"):  # some gateways pass an error on with a 200
        raise ValueError(f"an error in place of a reply: {unsigned(str(data['error']))[:200]}")
    return Outcome(came="served", data=data, headers=headers)


def _lost(error: BaseException, seconds: float) -> Outcome:
    """A request that came to nothing: too slow or broken, and whether it may have reached somebody."""
    import aiohttp

    never = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
    left, slow = not isinstance(error, never), isinstance(error, TimeoutError)
    why = f"no reply in {seconds:g} s" if slow else f"{type(error).__name__}: {error}"
    return Outcome(came="slow" if slow else "failed", data={}, why=why, left=left, billed=left)


def refused(status: int, data: Any, headers: Mapping[str, str], *, by_url: bool = False) -> Outcome:
    """A reply of another status, with its body; ``by_url``: the image was to be fetched."""
    error = data.get("error") or data if isinstance(data, dict) else data
    told = error.get("message") or error.get("detail") if isinstance(error, dict) else None
    named = [error.get(each) for each in ("code", "type", "param")] if isinstance(error, dict) else []
    said, message = f"{named} {_message(told or error)}".lower(), unsigned(str(told or error))[:200]
    data = {"error": {"status": status, "message": message}}
    why, wait = f"{status}, {message}", retry_after(headers)
    if status in _FATAL or any(word in said for word in _SPENT):
        return Outcome(came="fatal", data=data, why=why)
    if status == 429:
        return Outcome(came="busy", data=data, why=why, wait=wait, headers=headers)
    if status in _SLOW:
        return Outcome(came="slow", data=data, why=why, wait=wait, billed=status in _MAYBE_SERVED)
    if status >= 500 or status == 409:
        return Outcome(came="failed", data=data, why=why, wait=wait)
    if by_url and any(word in said for word in _UNREAD):  # says nothing about the image
        return Outcome(came="failed", data=data, why=why, wait=wait)
    filtered = any(word in said for word in _FILTER)
    return Outcome(
        came="declined",
        data=data,
        why=why,
        filtered=filtered,
        form=not filtered and any(word in said for word in _FORM),
    )


def _message(told: Any) -> str:
    """What an error says, without the request that some servers repeat in it (FastAPI's list of details)."""
    if isinstance(told, list):
        return " ".join(
            str({name: each.get(name) for name in ("msg", "loc")}) for each in told if isinstance(each, dict)
        )
    return str(told)


def unsigned(text: str) -> str:
    """A text without what signs a URL in it."""
    return _SIGNED.sub("?…", text)
