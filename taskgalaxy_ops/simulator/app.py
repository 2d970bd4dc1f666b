"""The simulated models' HTTP interface: OpenAI's chat completions, and what only a test may look at.

``POST /v1/chat/completions``, ``GET /v1/models``, ``/v1/files`` and ``/v1/batches`` (files.py, batches.py), ``GET
/healthz``; ``GET /stats`` tells what was asked and planted; ``GET`` and ``POST /control`` show and change latency,
faults, limits and batches while the server runs: given limits anew, every key starts with full ones, and with faults
a slow start begins again. Images are computed on in a
small pool of threads, off the event loop, so that a 429 or the statistics wait for no one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.simulator import breaking, control, fetching, replies, wire
from taskgalaxy_ops.simulator import faults as failing
from taskgalaxy_ops.simulator.batches import Batches
from taskgalaxy_ops.simulator.config import MODELS, Fault, SimulatorConfig
from taskgalaxy_ops.simulator.files import Files
from taskgalaxy_ops.simulator.limits import Gate, Refused
from taskgalaxy_ops.simulator.replies import Reply
from taskgalaxy_ops.simulator.stats import Stats
from taskgalaxy_ops.simulator.traffic import Traffic
from taskgalaxy_ops.simulator.wire import Asked, WrongRequestError

_WAITING = 6  # threads more than cores: of those that need one text engine, or one image's text, all but one wait


def create_app(config: SimulatorConfig, stats_path: Path | None = None) -> Starlette:
    """The server as an ASGI application. ``stats_path``: where its statistics outlive it; None: they do not.

    Raises SettingsError and DamageError for a file that cannot hold them.
    """
    simulator = _Simulator(config, Stats(stats_path))
    routes = [
        Route("/v1/chat/completions", simulator.chat, methods=["POST"]),
        Route("/v1/models", simulator.models),
        *simulator.routes,
        Route("/healthz", simulator.health),
        Route("/stats", simulator.statistics, methods=["GET", "DELETE"]),
        Route("/control", simulator.control, methods=["GET", "POST"]),
    ]
    return Starlette(
        routes=routes,
        lifespan=simulator.lifespan,
        exception_handlers={WrongRequestError: simulator.wrong, 404: _not_found, 405: _not_found, 500: _broken},
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Simulator:
    def __init__(self, config: SimulatorConfig, stats: Stats) -> None:
        self._config = config
        self._stats = stats
        self._traffic = Traffic()
        self._gate = Gate(config.limits)
        self._start = failing.Start()
        self._pool = ThreadPoolExecutor(config.threads or cores() + _WAITING, thread_name_prefix="simulated")
        files = Files(lambda: self._config.batches.max_bytes)
        self._batches = Batches(files, lambda: self._config, self._batched)
        self.routes = [self._guarded(route) for route in (*files.routes, *self._batches.routes)]

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._batches.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._stats.close()

    async def chat(self, request: Request) -> Response:
        key = self._authorise(request)
        started = time.monotonic()
        raw = await request.body()
        if (greeted := wire.greeted(raw)) is not None:
            return JSONResponse(greeted)
        asked = await self._parsed(raw)
        status: int | None = 500
        self._traffic.arrived()
        try:
            reply = await self._admitted(key, asked, started, request)
            status = None if reply.fault in ("reset", "half_body") else reply.status
            if reply.fault == "reset":
                return breaking.Reset()
            if reply.fault == "half_body":
                return breaking.HalfBody(reply.body)
            return JSONResponse(reply.body, reply.status, reply.headers)
        except WrongRequestError as error:  # an image that cannot be read
            status = error.status
            raise
        finally:
            self._traffic.left(status)

    async def _admitted(self, key: str, asked: Asked, started: float, request: Request) -> Reply:
        """The reply within the key's limits, after its latency."""
        delay, gate = self._start.delay(self._config.faults), self._gate  # as they are now: /control may change them
        if delay is None:
            return replies.starting()
        images = wire.IMAGE_TOKENS_LOW * len(asked.images)
        slot = gate.admit(key, asked.model, asked.text_tokens + images + (asked.max_tokens or 0))
        if isinstance(slot, Refused):
            reply = replies.over_limit(asked.model, slot)
            reply.headers = gate.headers(key, asked.model, slot)
            return reply
        tokens = None
        try:
            reply = await self._answered(asked, started, delay)
            if reply.fault == "hang":
                await breaking.hang(request.receive, self._config.faults.hang_seconds)
            tokens = sum(reply.tokens) if reply.tokens else None
        finally:
            slot.release(tokens)
        reply.headers = {**gate.headers(key, asked.model), **reply.headers}
        return reply

    async def _answered(self, asked: Asked, started: float, delay: float) -> Reply:
        config = self._config
        attempt = self._stats.attempt(asked.key)
        fault = failing.drawn(config.faults, config.seed, asked.key, attempt)
        if fault in replies.UNCOMPUTED:
            reply = replies.uncomputed(config, fault)
        else:
            reply = await self._computed(config, asked, attempt, fault)
            spread = config.latency_spread * (2 * draw(config.seed, "latency", asked.key, attempt) - 1)
            await asyncio.sleep(started + config.latency * (1 + spread) + delay - time.monotonic())
        self._stats.add(reply.record(asked))
        return reply

    async def _batched(self, raw: bytes, failed: bool) -> Reply:
        """The reply to a batch's request, which knows no connections; ``failed``: as a server that had an error."""
        config = self._config
        try:
            asked = await self._parsed(raw)
            attempt = self._stats.attempt(asked.key)
            fault = failing.drawn(config.faults, config.seed, asked.key, attempt)
            if failed:
                reply = replies.uncomputed(config, "server_error")
            else:
                spoiled = fault if fault in failing.SPOILT else None
                reply = await self._computed(config, asked, attempt, spoiled)
        except WrongRequestError as error:
            self._stats.wrong(error.status)
            return Reply(status=error.status, body=_told(error))
        self._stats.add(reply.record(asked))
        return reply

    async def _parsed(self, raw: bytes) -> Asked:
        origin = self._config.image_origin
        if origin is None:
            return wire.parse(raw)
        return await asyncio.to_thread(wire.parse, raw, partial(fetching.fetch, origin=origin))

    async def _computed(self, config: SimulatorConfig, asked: Asked, attempt: int, fault: Fault | None) -> Reply:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, replies.computed, config, asked, attempt, fault)

    async def models(self, request: Request) -> Response:
        self._authorise(request)
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "simulated"} for name in MODELS]
        return JSONResponse({"object": "list", "data": listed})

    async def health(self, _: Request) -> Response:
        return JSONResponse({"ok": True, "simulated": True})

    async def statistics(self, request: Request) -> Response:
        self._authorise(request)
        if request.method == "DELETE":
            self._stats.clear()
            self._traffic.clear()
        passing = {"traffic": self._traffic.summary(), "batches": self._batches.summary()}  # not kept over a restart
        return JSONResponse({"seed": self._config.seed, **self._stats.summary(), **passing})

    async def control(self, request: Request) -> Response:
        self._authorise(request)
        if request.method == "POST":
            self._config, names = control.changed(self._config, await request.body())
            if "faults" in names:
                self._start.again()
            if "limits" in names:
                self._gate = Gate(self._config.limits)
        return JSONResponse(control.shown(self._config))

    def _authorise(self, request: Request) -> str:
        """The request's key."""
        wanted = self._config.api_key
        given = request.headers.get("authorization", "")
        if wanted and not hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode()):
            raise WrongRequestError(401, "Incorrect API key provided.", "invalid_api_key")
        return given

    def _guarded(self, route: Route) -> Route:
        """The route, for those who have the key."""

        async def endpoint(request: Request) -> Response:
            self._authorise(request)
            response: Response = await route.endpoint(request)
            return response

        return Route(route.path, endpoint, methods=list(route.methods or ()))

    async def wrong(self, _: Request, error: Exception) -> Response:
        """A WrongRequestError as OpenAI sends it."""
        if not isinstance(error, WrongRequestError):
            raise error
        self._stats.wrong(error.status)
        return JSONResponse(_told(error), error.status)


def _told(error: WrongRequestError) -> dict[str, Any]:
    kind = "authentication_error" if error.status == 401 else "invalid_request_error"
    return wire.error_body(str(error), kind, error.code)


async def _not_found(request: Request, _: Exception) -> Response:
    message = f"There is no {request.method} {request.url.path}; the models are at /v1/chat/completions."
    return JSONResponse(wire.error_body(message, "invalid_request_error", "not_found"), 404)


async def _broken(_: Request, error: Exception) -> Response:
    """An error of the server's own (a package that is not installed): told to the client, and to the server's log."""
    return JSONResponse(wire.error_body(f"{type(error).__name__}: {error}", "server_error"), 500)
