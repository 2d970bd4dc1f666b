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
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from taskgalaxy_ops.errors import ModelError
from taskgalaxy_ops.models.local.server import InProcessModels
from taskgalaxy_ops.models.refusals import Kind, classify, unsigned
from taskgalaxy_ops.models.reply import filtered
from taskgalaxy_ops.settings import Model

if TYPE_CHECKING:
    import aiohttp  # both load slowly, so they are imported only where a request is sent
    import openai

Body = Mapping[str, Any]
_Place = tuple[str, str]
_MAYBE_SERVED = {408, 504, 524}  # a proxy stopped waiting, but the model may have gone on, and bill it
_CONNECT_SECONDS = 15.0
_IDLE_SECONDS = 60.0  # an unused connection is kept so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a request: ``data`` is the reply if it was served; else ``kind`` says why not (`Refusal`)."""

    kind: Literal["served"] | Kind
    data: Body
    why: str = ""
    wait: float = 0.0  # seconds that the server asks to wait; 0: it does not say
    headers: Mapping[str, str] | None = None
    left: bool = True  # False: the request never reached a server
    billed: bool = False  # it may have been served, but tells no usage: it counts with the most that it could cost
    parameter: str = ""  # of our request, which the model does not take
    room: int = 0  # the most tokens that a reply may have, where the server said it; 0: it did not


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
                default_headers=self._headers(model),
                http_client=openai.DefaultAsyncHttpxClient(verify=certificates()),
            )
        return self._clients[_place(model)]

    def _headers(self, model: Model) -> dict[str, str]:
        """The settings' further headers, with the environment's values. Raises ModelError if one is not set."""

        def value(name: str, text: str) -> str:
            def held(found: re.Match[str]) -> str:
                if (kept := self._keys.get(found[1])) is None:
                    raise ModelError(
                        f"model {model.name!r}: its header {name} needs the environment variable {found[1]}, which is "
                        "not set."
                    )
                return kept.strip()

            full = re.sub(r"\$\{(\w+)\}", held, text)
            if not full.isprintable():
                raise ModelError(
                    f"model {model.name!r}: its header {name} holds a control character. Write it in one line."
                )
            return full

        return {name: value(name, text) for name, text in (model.headers or {}).items()}

    def _session(self, model: Model) -> aiohttp.ClientSession:
        """The connections to the model, with the URL, headers and certificates of its client. Raises ModelError."""
        import aiohttp

        if _place(model) not in self._sessions:
            proxy, client = _proxy(model), self.client(model)
            headers = {**client.default_headers, **client.auth_headers, "Content-Type": "application/json"}
            # No limit on the pool: rate_limit.py limits the requests in flight.
            pool = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=certificates())
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
            data = raw[:20_000].decode("utf-8", "replace")
        return refused(status, data, headers, by_url=model.images == "url")

    async def replies(self, model: Model) -> bool:
        """Whether the model's server replies at all, and not that it is overloaded or failing. Raises ModelError."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_CONNECT_SECONDS)
        try:
            async with self._session(model).get(f"{_place(model)[1]}/models", timeout=timeout) as reply:
                return reply.status < 500 and reply.status != 429
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False

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
def certificates() -> ssl.SSLContext:
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
    """The outcome of a reply with status 200. Raises ValueError if its body is no reply.

    Routers send what their own provider failed with as a 200: with an error in place of choices or inside one, with
    no choice, or with a choice that holds no message. Such a reply may have been billed.
    """
    if not isinstance(data, dict):
        raise ValueError(f"the body is a {type(data).__name__}, no object")
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = choice.get("error") or (None if choice else data.get("error"))
    if error:
        said = refused(_status(error), {"error": error}, headers or {})
        return replace(said, billed=bool(choice) or said.billed)
    if not choice:
        raise ValueError("the reply holds no choice")
    if choice.get("finish_reason") == "error":
        raise ValueError("the reply ended with finish_reason 'error'")
    message = choice.get("message") or ({} if filtered(choice) else None)
    empty = isinstance(message, dict) and not any(value for name, value in message.items() if name != "role")
    if not isinstance(message, dict) or (choice.get("finish_reason") is None and empty):
        raise ValueError("the reply's choice holds no message")
    return Outcome(kind="served", data=data, headers=headers)


def _status(error: Any) -> int:
    """The status that an error within a reply names; 502, a failure upstream, where it names none."""
    code = error.get("code") if isinstance(error, dict) else None
    named = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else 0
    return named if 400 <= named < 600 else 502


def _lost(error: BaseException, seconds: float) -> Outcome:
    """The outcome of a request without a reply. It counts as billed if it may have reached the server."""
    import aiohttp

    unsent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
    left, slow = not isinstance(error, unsent), isinstance(error, TimeoutError)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return Outcome(kind="fatal", data={}, why=str(error)[:300], left=False)  # it does not pass by waiting
    why = f"no reply in {seconds:g} s" if slow else f"{type(error).__name__}: {unsigned(str(error))[:300]}"
    return Outcome(kind="slow" if slow else "failed", data={}, why=why, left=left, billed=left)


def refused(status: int, data: Any, headers: Mapping[str, str], *, by_url: bool = False) -> Outcome:
    """The outcome of a reply with another status, from its body. ``by_url``: the model reads images by URL."""
    said = classify(status, data, headers, by_url=by_url)
    return Outcome(
        kind=said.kind,
        data={"error": {"status": status, "message": said.why.partition(", ")[2]}},
        why=said.why,
        wait=said.wait,
        headers=headers,
        billed=status in _MAYBE_SERVED,
        parameter=said.parameter,
        room=said.room,
    )
