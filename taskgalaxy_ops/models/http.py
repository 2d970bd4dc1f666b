"""Sends requests to models and classifies the replies. This is the only module that knows HTTP.

The official client knows how to reach a provider (URL, key, headers) and transfers files and batches. Chat requests, of
which there are millions, are posted over aiohttp with that client's headers, which takes a third of the processor time
of the client's own machinery (``python -m benchmarks.gateway sending``). Keys are read from the environment, or from
the mapping that replaces it, when a client is made, and are stored nowhere else.
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
    import aiohttp  # both load slowly, so they are imported only where a request is sent
    import openai

Body = Mapping[str, Any]
_Place = tuple[str, str]
Came = Literal["served", "busy", "slow", "failed", "declined", "fatal"]

_FATAL = {401, 402, 403, 404, 405}  # wrong key, credit, permission, model or URL: every other request would fail, too
_SPENT = ("insufficient_quota", "billing_hard_limit", "credit balance")  # a 429 or 400 that waiting does not fix
_SLOW = {408, 503, 504, 529}  # the model is overloaded, or a proxy on the way timed out
_MAYBE_SERVED = {408, 504}  # a proxy stopped waiting, but the model may have gone on, and bill it
_FILTER = ("content_filter", "content_policy", "safety")
_FORM = ("response_format", "json_schema", "json_object", "structured output", "guided", "grammar")
_UNREAD = (
    "invalid_image_url",
    "download",
    "fetch",
    "retriev",
)  # in a 400 of a provider that could not read the image by its URL
_SIGNED = re.compile(r"\?\S*X-Amz-Signature\S*", re.IGNORECASE)  # a signed URL lets anybody read the image
_CONNECT_SECONDS = 15.0
_IDLE_SECONDS = 60.0  # an unused connection is kept so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a request.

    served: ``data`` is the reply. busy: too many requests at once; the server asks to wait ``wait`` seconds. slow: a
    time-out, or an overloaded server. failed: no reply, or none that can be read. declined: refused for good, because
    of this request. fatal: refused for good, as every request to this model would be.
    """

    came: Came
    data: Body
    why: str = ""
    wait: float = 0.0
    headers: Mapping[str, str] | None = None
    left: bool = True  # False: the request never reached a server
    billed: bool = False  # it may have been served, but tells no usage: it counts with the most that it could cost
    filtered: bool = False  # declined by a content filter
    form: bool = False  # declined because of the form of structured output


class Sender:
    """Sends requests, over one connection pool a model. For one event loop.

    ``keys``: the API keys, by environment variable.
    """

    def __init__(self, keys: Mapping[str, str] = os.environ) -> None:
        self._keys = keys
        self._clients: dict[_Place, openai.AsyncOpenAI] = {}
        self._sessions: dict[_Place, aiohttp.ClientSession] = {}
        self._in_process = InProcessModels()

    async def aclose(self) -> None:
        """Close all connections, and free the memory of models in this process."""
        for session in self._sessions.values():
            await session.close()
        for client in self._clients.values():
            await client.close()
        await self._in_process.close()

    async def ready(self, model: Model) -> None:
        """Prepare the model for requests. Raises ModelError if its key is missing or its weights cannot be loaded."""
        if model.weights is not None:
            await self._in_process.of(model).ready()
        else:
            self._session(model)

    def client(self, model: Model) -> openai.AsyncOpenAI:
        """The official client for the model. Raises ModelError if its key is missing or unusable."""
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
        """The connections to the model, with the URL, headers and certificates of its client. Raises ModelError."""
        import aiohttp

        if _place(model) not in self._sessions:
            proxy, client = _proxy(model), self.client(model)
            headers = {**client.default_headers, **client.auth_headers, "Content-Type": "application/json"}
            # No limit on the pool: rate_limit.py limits the requests in flight.
            pool = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=_certificates())
            self._sessions[_place(model)] = aiohttp.ClientSession(
                connector=pool,
                headers={name: value for name, value in headers.items() if isinstance(value, str)},
                **proxy,
            )
        return self._sessions[_place(model)]

    async def send(self, model: Model, body: bytes | Body, seconds: float) -> Outcome:
        """Send the body of a chat-completions request (from ``wire``); wait at most ``seconds`` for the reply.

        Failures are outcomes. Raises ModelError for weights in this process that cannot be loaded or cannot answer.
        """
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
        except (ValueError, RecursionError) as error:  # not JSON: the model may have served it, and bill it
            if status < 300:
                return _lost(error, seconds)
            data = raw[:1000].decode("utf-8", "replace")
        return refused(status, data, headers, by_url=model.images == "url")

    async def post(self, model: Model, raw: bytes, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
        """Post a request's body; returns the reply's status, headers and body. Raises aiohttp's errors."""
        import aiohttp

        url, timeout = _place(model)[1], aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=seconds)
        async with self._session(model).post(f"{url}/chat/completions", data=raw, timeout=timeout) as reply:
            return reply.status, reply.headers, await reply.read()


def _proxy(model: Model) -> dict[str, Any]:
    """The proxy that the environment names for a model, as arguments of a session. Raises ModelError if unusable."""
    import aiohttp
    from yarl import URL

    # Looked up once: aiohttp would look it up for each request, which takes longer than all the rest.
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
    """The certificates that the official client trusts. Read once, since it takes as long as fifty calls."""
    import httpx2

    return httpx2.create_ssl_context()


def _place(model: Model) -> _Place:
    """The key of a model's connections. The URL is part of it, since a batch may still lie at a former URL."""
    return model.name, model.base_url.rstrip("/")


def wire(model: Model, arguments: Body) -> bytes | Body:
    """A request's body, encoded once for all tries: bytes, or the arguments for a model in this process."""
    return arguments if model.weights is not None else json.dumps(arguments).encode()


def read(data: Any, headers: Mapping[str, str] | None) -> Outcome:
    """The outcome of a reply with status 200. Raises ValueError if its body is no reply."""
    if not isinstance(data, dict):
        raise ValueError(f"the body is a {type(data).__name__}, no object")
    if data.get("error") and not data.get("choices"):  # some gateways send errors with status 200
        raise ValueError(f"an error in place of a reply: {unsigned(str(data['error']))[:200]}")
    return Outcome(came="served", data=data, headers=headers)


def _lost(error: BaseException, seconds: float) -> Outcome:
    """The outcome of a request without a reply. It counts as billed if it may have reached the server."""
    import aiohttp

    unsent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
    left, slow = not isinstance(error, unsent), isinstance(error, TimeoutError)
    why = f"no reply in {seconds:g} s" if slow else f"{type(error).__name__}: {error}"
    return Outcome(came="slow" if slow else "failed", data={}, why=why, left=left, billed=left)


def refused(status: int, data: Any, headers: Mapping[str, str], *, by_url: bool = False) -> Outcome:
    """The outcome of a reply with another status, from its body. ``by_url``: the model reads images by URL."""
    error = data.get("error") or data if isinstance(data, dict) else data
    detail = error.get("message") or error.get("detail") if isinstance(error, dict) else None
    codes = [error.get(name) for name in ("code", "type", "param")] if isinstance(error, dict) else []
    said, message = f"{codes} {_message(detail or error)}".lower(), unsigned(str(detail or error))[:200]
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
    if by_url and any(word in said for word in _UNREAD):  # the image may be fine: try again
        return Outcome(came="failed", data=data, why=why, wait=wait)
    filtered = any(word in said for word in _FILTER)
    return Outcome(
        came="declined",
        data=data,
        why=why,
        filtered=filtered,
        form=not filtered and any(word in said for word in _FORM),
    )


def _message(detail: Any) -> str:
    """An error's message without the request that some servers repeat in it (FastAPI's list of details)."""
    if isinstance(detail, list):
        return " ".join(
            str({name: item.get(name) for name in ("msg", "loc")}) for item in detail if isinstance(item, dict)
        )
    return str(detail)


def unsigned(text: str) -> str:
    """The text without the signatures of URLs in it."""
    return _SIGNED.sub("?…", text)
