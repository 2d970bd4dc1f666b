"""Canned replies: the simulated models' protocol at the highest rate that one core gives, so that what a benchmark
measures is the client. No image is looked at: each answer is valid, and drawn by hash of its item alone. A request
that is none of ours (another tool's, in a comparison) gets a question and an answer as JSON, as text or tool call.

A bare ASGI application, without routing, validation or statistics but its counts (``GET`` and ``DELETE /stats``). Of
the configuration it heeds seed, latency, limits, faults (no refusals; malformed and truncated ones of its own kind)
and the key; ``/control`` changes them.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.request import GREETING
from taskgalaxy_ops.simulator import breaking, canned_answers, control
from taskgalaxy_ops.simulator import faults as failing
from taskgalaxy_ops.simulator.breaking import Receive, Scope, Send
from taskgalaxy_ops.simulator.config import FAULTS, Fault, SimulatorConfig
from taskgalaxy_ops.simulator.limits import Gate, Refused
from taskgalaxy_ops.simulator.traffic import Traffic
from taskgalaxy_ops.simulator.wire import CHARACTERS_A_TOKEN, WrongRequestError, error_body


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A chat request, as far as it is looked at."""

    model: str
    prompt_tokens: int
    most_tokens: int
    stage: str  # of our blocks; "" for another's request
    replies: str  # name of the reply's list, and its entries
    entries: Sequence[Mapping[str, Any]]
    greets: bool
    tool: str | None
    hashed: int


@dataclass(slots=True)
class _Reply:
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None


class Canned:
    """The ASGI application."""

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self._configure(config or SimulatorConfig())
        self._gate = Gate(self._config.limits)
        self._start = failing.Start()
        self._traffic = Traffic()
        self._clear()

    def _configure(self, config: SimulatorConfig) -> None:
        self._config = config
        self._faulty = any(getattr(config.faults, fault) for fault in FAULTS)

    def _clear(self) -> None:
        self._requests = 0
        self._units: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._attempts: Counter[int] = Counter()
        self._calls: Counter[str] = Counter()
        self._tokens: dict[str, list[int]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        key = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        raw = await _body(receive)
        try:
            wanted = self._config.api_key if scope["path"] != "/healthz" else None
            if wanted and key != f"Bearer {wanted}".encode():
                raise WrongRequestError(401, "Incorrect API key provided.", "invalid_api_key")
            if scope["path"] == "/v1/chat/completions":
                await self._chat(scope, receive, send, key.decode("latin-1"), raw)
                return
            reply = self._looked(scope["path"], scope["method"], raw)
        except WrongRequestError as error:
            reply = _Reply(error.status, error_body(str(error), "invalid_request_error", error.code))
        await _send(send, reply)

    def _looked(self, path: str, method: str, raw: bytes) -> _Reply:
        match path:
            case "/stats":
                if method == "DELETE":
                    self._clear()
                    self._traffic.clear()
                return _Reply(200, self._summary())
            case "/control":
                if method == "POST":
                    config, names = control.changed(self._config, raw)
                    self._configure(config)
                    if "faults" in names:
                        self._start.again()
                    if "limits" in names:
                        self._gate = Gate(config.limits)
                return _Reply(200, control.shown(self._config))
            case "/healthz":
                return _Reply(200, {"ok": True, "simulated": True})
        return _Reply(404, error_body(f"There is no {path}.", "invalid_request_error"))

    def _summary(self) -> Mapping[str, Any]:
        return {
            "simulated": True,
            "requests": self._requests,
            "units": dict(self._units),
            "calls": dict(self._calls),
            "tokens": {model: {"prompt": p, "completion": c} for model, (p, c) in self._tokens.items()},
            "faults": dict(self._faults),
            "traffic": self._traffic.summary(),
        }

    async def _chat(self, scope: Scope, receive: Receive, send: Send, key: str, raw: bytes) -> None:
        asked = self._read(raw)
        reply = None
        self._traffic.arrived()
        try:
            reply = await self._admitted(key, asked, receive)
        finally:
            self._traffic.left(reply.status if reply and reply.fault not in ("reset", "half_body") else None)
        match reply.fault:
            case "reset":
                await breaking.reset(scope, receive)
            case "half_body":
                await breaking.send_half(scope, receive, send, json.dumps(reply.body).encode())
            case _:
                await _send(send, reply)

    def _read(self, raw: bytes) -> _Asked:
        """What a request asks. Raises WrongRequestError."""
        try:
            body, head = canned_answers.split(raw)
            content = body["messages"][-1]["content"]
            parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
            text = next(part["text"] for part in parts if part["type"] == "text")
            images = [part["image_url"] for part in parts if part["type"] == "image_url"]
            tokens = len(text) // CHARACTERS_A_TOKEN
            if images:
                tokens += len(images) * canned_answers.tokens_of_image(head, images[0].get("detail", "auto"))
            most = body.get("max_completion_tokens") or body.get("max_tokens") or 0
            tool = body["tools"][0]["function"]["name"] if body.get("tools") else None
            stage, replies, entries = "", "", cast(Sequence[Mapping[str, Any]], ())
            if text.endswith("\n```"):
                block = json.loads(text[text.rindex("```json\n") + 8 : -4])
                stage, (replies, entries) = block["request"], canned_answers.entries(block, body["model"])
            hashed = zlib.crc32(raw) if self._faulty or not stage else 0
            model = str(body["model"])
            return _Asked(
                model=model,
                prompt_tokens=tokens,
                most_tokens=int(most),
                stage=stage,
                replies=replies,
                entries=entries,
                greets=text == GREETING,
                tool=tool,
                hashed=hashed,
            )
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
            raise WrongRequestError(400, f"{error!r}") from error

    async def _admitted(self, key: str, asked: _Asked, receive: Receive) -> _Reply:
        """The reply within the key's limits, after its latency."""
        config, gate = self._config, self._gate  # as they are now: /control may change them
        delay = self._start.delay(config.faults)
        if delay is None:
            return _Reply(503, error_body("The model is being loaded (simulated).", "server_error", "unavailable"))
        slot = gate.admit(key, asked.model, asked.prompt_tokens + asked.most_tokens)
        if isinstance(slot, Refused):
            message = f"Rate limit reached (simulated): {slot.message}."
            error = error_body(message, slot.kind, "rate_limit_exceeded")
            return _Reply(429, error, gate.headers(key, asked.model, slot))
        tokens = None
        try:
            reply = self._answered(config, asked)
            if usage := reply.body.get("usage"):
                tokens = usage["total_tokens"]
            if reply.fault == "hang":
                await breaking.hang(receive, config.faults.hang_seconds)
            seconds = delay + config.latency
            if config.latency_spread:
                seconds *= 1 + config.latency_spread * (2 * draw(config.seed, "latency", self._requests) - 1)
            if seconds:
                await asyncio.sleep(seconds)
        finally:
            slot.release(tokens)
        reply.headers = {**gate.headers(key, asked.model), **reply.headers}
        return reply

    def _answered(self, config: SimulatorConfig, asked: _Asked) -> _Reply:
        self._requests += 1
        fault: Fault | None = None
        if self._faulty:
            self._attempts[asked.hashed] += 1
            fault = failing.drawn(config.faults, config.seed, str(asked.hashed), self._attempts[asked.hashed])
        if fault:
            self._faults[fault] += 1
        match fault:
            case "rate_limit":
                error = error_body("Rate limit reached (simulated).", "requests", "rate_limit_exceeded")
                return _Reply(429, error, {"retry-after": f"{config.faults.retry_after:g}"}, fault)
            case "server_error" | "hang" | "reset":
                return _Reply(500, error_body("The server had an error (simulated).", "server_error"), {}, fault)
        text, finish = self._text(asked, 2 if fault == "duplicated" else 1), "stop"
        if fault == "malformed":
            text = canned_answers.malformed(text, asked.hashed)
        elif fault == "truncated":
            text, finish = failing.cut(text, config.seed, str(asked.hashed), self._attempts[asked.hashed]), "length"
        return _Reply(200, self._completion(asked, text, finish), {}, fault)

    def _text(self, asked: _Asked, times: int) -> str:
        """The reply's text; its list says everything so many times."""
        if asked.greets:
            return "ready"
        if not asked.stage:
            return canned_answers.plain(asked.hashed)
        self._units[asked.stage] += len(asked.entries)
        return json.dumps({asked.replies: [*asked.entries] * times})

    def _completion(self, asked: _Asked, text: str, finish: str) -> Mapping[str, Any]:
        completion = -(-len(text) // CHARACTERS_A_TOKEN)
        self._calls[asked.model] += 1
        tokens = self._tokens.setdefault(asked.model, [0, 0])
        tokens[0] += asked.prompt_tokens
        tokens[1] += completion
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if asked.tool is not None:
            call = {"name": asked.tool, "arguments": text}
            message |= {"content": None, "tool_calls": [{"id": "call_canned", "type": "function", "function": call}]}
        return {
            "id": f"chatcmpl-canned-{self._requests}",
            "object": "chat.completion",
            "created": 0,
            "model": asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": asked.prompt_tokens,
                "completion_tokens": completion,
                "total_tokens": asked.prompt_tokens + completion,
            },
            "simulated": True,
        }


async def _send(send: Send, reply: _Reply) -> None:
    raw = json.dumps(reply.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
