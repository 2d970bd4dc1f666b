"""Failing a connection: a reset without a reply, a reply of which half is sent (no ASGI application can), silence."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast

from starlette.responses import JSONResponse, Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TRANSPORT = "simulated.transport"
_LINGER_NOT = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: close sends a reset


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, whose scope carries the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = cast(Any, functools.partial(_carrying, self.app, transport))


async def _carrying(app: Any, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send) -> None:
    scope[_TRANSPORT] = transport
    await app(scope, receive, send)


async def reset(scope: Scope, receive: Receive) -> None:
    """Reset a request's connection; the request's body must have been read."""
    transport: asyncio.Transport = scope[_TRANSPORT]
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()
    await _gone(receive)


async def send_half(
    scope: Scope, receive: Receive, send: Send, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Announce a JSON body, send half of it and close the connection; the request's body must have been read."""
    told = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    scope[_TRANSPORT].close()
    await _gone(receive)


async def hang(receive: Receive, seconds: float) -> None:
    """Wait until the client gives up, or this many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await _gone(receive)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Reset(Response):
    """A response that resets the connection instead."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await reset(scope, receive)


class HalfBody(JSONResponse):
    """A response of which half is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_half(scope, receive, send, bytes(self.body))
