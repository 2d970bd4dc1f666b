"""The simulated models' HTTP interface: OpenAI's chat completions, and what only a test may look at.

``POST /v1/chat/completions``, ``GET /v1/models``, ``GET /healthz``; ``GET /stats`` tells what was asked and planted;
``GET`` and ``POST /control`` show and change latency and faults while the server runs. Images are computed on in a
small pool of threads, off the event loop, so that a 429 or the statistics wait for no one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taskgalaxy_ops.canonical import draw
from taskgalaxy_ops.models.simulated import answers as computing
from taskgalaxy_ops.models.simulated import faults as failing
from taskgalaxy_ops.models.simulated import wire
from taskgalaxy_ops.models.simulated.config import MODELS, SimulatorConfig, mistakes
from taskgalaxy_ops.models.simulated.stats import Stats
from taskgalaxy_ops.models.simulated.wire import Asked, WrongRequestError

_CONTROLLED = ("latency", "latency_spread", "faults")


def create_app(config: SimulatorConfig, stats_path: Path | None = None) -> Starlette:
    """The server as an ASGI application. ``stats_path``: where its statistics outlive it; None: they do not.

    Raises SettingsError and DamageError for a file that cannot hold them.
    """
    simulator = _Simulator(config, Stats(stats_path))
    routes = [
        Route("/v1/chat/completions", simulator.chat, methods=["POST"]),
        Route("/v1/models", simulator.models),
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


@dataclass(slots=True)
class _Reply:
    """What is sent, and what the statistics keep of it."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    fault: str | None = None
    answers: computing.Answers | None = None


class _Simulator:
    def __init__(self, config: SimulatorConfig, stats: Stats) -> None:
        self._config = config
        self._stats = stats
        self._pool = ThreadPoolExecutor(config.threads or cores(), thread_name_prefix="simulated")

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._stats.close()

    async def chat(self, request: Request) -> Response:
        self._authorise(request)
        started = time.monotonic()
        raw = await request.body()
        if (greeted := wire.greeted(raw)) is not None:
            return JSONResponse(greeted)
        asked = wire.parse(raw)
        config = self._config  # as it is now: /control may change it meanwhile
        attempt = self._stats.attempt(asked.key)
        fault = failing.drawn(config.faults, config.seed, asked.key, attempt)
        if fault in {"rate_limit", "server_error", "hang"}:
            reply = _no_reply(config, fault)
        else:
            reply = await asyncio.get_running_loop().run_in_executor(self._pool, _reply, config, asked, attempt, fault)
            spread = config.latency_spread * (2 * draw(config.seed, "latency", asked.key, attempt) - 1)
            await asyncio.sleep(started + config.latency * (1 + spread) - time.monotonic())
        self._keep(asked, reply)
        if fault == "hang":
            await _hang(request, config.faults.hang_seconds)
        return JSONResponse(reply.body, reply.status, reply.headers)

    def _keep(self, asked: Asked, reply: _Reply) -> None:
        usage = reply.body.get("usage")
        record = {
            "at": round(time.time(), 3),
            "request": asked.key,
            "model": asked.model,
            "stage": asked.stage,
            "units": [unit.key for unit in asked.units],
            "answered": sorted(reply.answered),
            "fault": reply.fault,
            "tokens": [usage["prompt_tokens"], usage["completion_tokens"]] if usage else None,
        }
        if reply.answers is not None:
            kept = asdict(reply.answers)
            record |= {name: kept[name] for name in ("pairs", "votes", "labels") if kept[name]}
        self._stats.add(record)

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
        return JSONResponse({"seed": self._config.seed, **self._stats.summary()})

    async def control(self, request: Request) -> Response:
        self._authorise(request)
        if request.method == "POST":
            self._change(await request.body())
        return JSONResponse(self._config.model_dump(include=set(_CONTROLLED)))

    def _change(self, raw: bytes) -> None:
        known = self._config.model_dump()
        try:
            changes = wire.json_object(raw)
            if unknown := set(changes) - set(_CONTROLLED):
                raise WrongRequestError(
                    400, f"cannot change {', '.join(sorted(unknown))}; only {', '.join(_CONTROLLED)}."
                )
            if isinstance(changes.get("faults"), dict):
                changes["faults"] = {**known["faults"], **changes["faults"]}
            self._config = SimulatorConfig.model_validate({**known, **changes})
        except ValidationError as error:
            raise WrongRequestError(400, mistakes(error)) from error

    def _authorise(self, request: Request) -> None:
        wanted = self._config.api_key
        given = request.headers.get("authorization", "")
        if wanted and not hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode()):
            raise WrongRequestError(401, "Incorrect API key provided.", "invalid_api_key")

    async def wrong(self, _: Request, error: Exception) -> Response:
        """A WrongRequestError as OpenAI sends it."""
        if not isinstance(error, WrongRequestError):
            raise error
        self._stats.wrong(error.status)
        kind = "authentication_error" if error.status == 401 else "invalid_request_error"
        return JSONResponse(wire.error_body(str(error), kind, error.code), error.status)


async def _not_found(request: Request, _: Exception) -> Response:
    message = f"There is no {request.method} {request.url.path}; the models are at /v1/chat/completions."
    return JSONResponse(wire.error_body(message, "invalid_request_error", "not_found"), 404)


async def _broken(_: Request, error: Exception) -> Response:
    """An error of the server's own (a package that is not installed): told to the client, and to the server's log."""
    return JSONResponse(wire.error_body(f"{type(error).__name__}: {error}", "server_error"), 500)


async def _hang(request: Request, seconds: float) -> None:
    """Wait until the client gives up, or this many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass


def _no_reply(config: SimulatorConfig, fault: str | None) -> _Reply:
    if fault == "rate_limit":
        error = wire.error_body(
            "Rate limit reached (simulated). Try again later.", "rate_limit_error", "rate_limit_exceeded"
        )
        return _Reply(429, error, {"Retry-After": f"{config.faults.retry_after:g}"}, fault=fault)
    return _Reply(500, wire.error_body("The server had an error (simulated).", "server_error"), fault=fault)


def _reply(config: SimulatorConfig, asked: Asked, attempt: int, fault: failing.Fault | None) -> _Reply:
    """The reply to a request, computed; to be called in a thread. Raises WrongRequestError for a broken image."""
    image = computing.open_image(asked)
    tokens = asked.text_tokens + (wire.image_tokens(*image.size, asked.detail) if image else 0)
    if refused := failing.refused(config.faults, config.seed, asked.units):
        return _refusal(asked, attempt, tokens, refused[1])
    answers = computing.answer(config, asked, image)
    answered = {unit.key for unit in asked.units}
    text, finish = wire.encode({wire.REPLIES[asked.stage]: answers.entries}), "stop"
    if fault == "malformed":
        text, answered = failing.malformed(asked, answers.entries, config.seed, attempt)
    elif fault == "truncated":
        text, finish, answered = failing.cut(text, config.seed, asked.key, attempt), "length", set()
    if asked.max_tokens is not None and wire.text_tokens(text) > asked.max_tokens:
        text, finish, answered = text[: asked.max_tokens * wire.CHARACTERS_A_TOKEN], "length", set()
    body = wire.completion(asked, attempt, text=text, finish=finish, prompt_tokens=tokens)
    return _Reply(200, body, answered=answered, fault=fault, answers=answers)


def _refusal(asked: Asked, attempt: int, tokens: int, form: failing.RefusalForm) -> _Reply:
    # Of several units it is not told which was meant; of one, the refusal is its answer.
    answered = {unit.key for unit in asked.units} if len(asked.units) == 1 else set()
    if form == "error":
        message = "Your request was rejected by the safety system (simulated)."
        body: Mapping[str, Any] = wire.error_body(message, "invalid_request_error", "content_policy_violation")
        return _Reply(400, body, answered=answered, fault="refusal")
    if form == "content_filter":
        body = wire.completion(asked, attempt, text=None, finish="content_filter", prompt_tokens=tokens)
    else:
        sorry = "I'm sorry, I can't help with that (simulated)."
        body = wire.completion(asked, attempt, text=None, finish="stop", prompt_tokens=tokens, refusal=sorry)
    return _Reply(200, body, answered=answered, fault="refusal")
