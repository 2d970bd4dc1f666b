"""Canned replies: the simulated models' protocol at the highest rate that one core gives, so that what a benchmark
measures is the client. No image is looked at: each answer is valid, and drawn by hash of its item alone.

A bare ASGI application, without routing, validation or statistics but its counts (``GET`` and ``DELETE /stats``).
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from taskgalaxy_ops.models.simulated.wire import CHARACTERS_A_TOKEN, IMAGE_TOKENS_LOW

FITS = 0.3  # share of task types that fit
APPROVED = 0.7  # share of a judge's votes that approve

Message = dict[str, Any]


def entries(block: Mapping[str, Any], model: str) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The reply's list by name, and its entries, for a request's block."""
    match block["request"]:
        case "filter":
            verdicts = [
                {"index": item["index"], "fits": _draw("fits", item["task_type"]) < FITS, "reason": "canned"}
                for item in block["task_types"]
            ]
            return "verdicts", verdicts
        case "write":
            return "pairs", [_pair(item["index"], item["task_type"]) for item in block["task_types"]]
        case "vote":
            votes = [
                {
                    "index": item["index"],
                    "vote": int(_draw(model, item["task_type"], item["question"]) < APPROVED),
                    "reason": "canned",
                }
                for item in block["pairs"]
            ]
            return "votes", votes
    return "children", []


def _pair(index: int, task_type: str) -> dict[str, Any]:
    return {
        "index": index,
        "question": f"What does this image show with regard to {task_type.rpartition('~')[2]}?",
        "answer": f"Canned answer {_hash(task_type):08x}.",
        "reasoning": "It was drawn by hash.",
    }


def _hash(*parts: str) -> int:
    return zlib.crc32("\x1f".join(parts).encode())


def _draw(*parts: str) -> float:
    return _hash(*parts) / 2**32


class Canned:
    """The ASGI application."""

    def __init__(self) -> None:
        self._requests = 0
        self._units: Counter[str] = Counter()

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        path = scope["path"]
        if path == "/v1/chat/completions":
            status, body = self._chat(await _body(receive))
        elif path == "/stats":
            if scope["method"] == "DELETE":
                self._requests, self._units = 0, Counter()
            status, body = 200, {"requests": self._requests, "units": dict(self._units)}
        elif path == "/healthz":
            status, body = 200, {"ok": True, "simulated": True}
        else:
            status, body = 404, {"error": {"message": f"There is no {path}.", "type": "invalid_request_error"}}
        raw = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})

    def _chat(self, raw: bytes) -> tuple[int, Mapping[str, Any]]:
        try:
            asked = json.loads(raw)
            content = asked["messages"][-1]["content"]
            text = content if isinstance(content, str) else content[0]["text"]
            name, found = "", cast(Sequence[Mapping[str, Any]], ())
            if text.endswith("\n```"):  # else a greeting
                block = json.loads(text[text.rindex("```json\n") + 8 : -4])
                name, found = entries(block, asked["model"])
                self._units[block["request"]] += len(found)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return 400, {"error": {"message": f"{error!r}", "type": "invalid_request_error"}}
        self._requests += 1
        reply = json.dumps({name: found}) if name else "ready"
        prompt, completion = IMAGE_TOKENS_LOW + len(text) // CHARACTERS_A_TOKEN, len(reply) // CHARACTERS_A_TOKEN
        message = {"role": "assistant", "content": reply, "refusal": None}
        return 200, {
            "id": f"chatcmpl-canned-{self._requests}",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
            "simulated": True,
        }


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
