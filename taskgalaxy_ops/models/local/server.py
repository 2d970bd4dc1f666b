"""Runs a chat model in this process: takes the body of a chat-completions request and returns that protocol's reply.

The gateway, the journal, parsing, repairs and refusals therefore work alike for a model behind a URL and for one in
this process. Waiting requests are answered together, in one thread; the first request loads the weights.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from taskgalaxy_ops.models.local.transformers import Chat, Generator, TooLongError, Written
from taskgalaxy_ops.settings import InProcessSettings, Model

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Request:
    """A waiting request. Only requests with the same ``kind`` can share a batch."""

    model: str
    text: str
    pictures: tuple[str, ...]  # data URLs
    schema: Body | None  # of the reply; None: it may be any text
    room: int  # tokens
    temperature: float
    reply: asyncio.Future[Body]

    @property
    def kind(self) -> tuple[bool, int, float]:
        return bool(self.pictures), self.room, self.temperature


class InProcessModel:
    """One model's weights, and the requests that wait for it. For one event loop."""

    def __init__(self, model: Model, load: Callable[[Model], Generator] = Generator) -> None:
        self._model = model
        self._load = load
        self._longest_wait = (model.in_process or InProcessSettings()).wait_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="taskgalaxy-model")
        self._loading: asyncio.Future[Generator] | None = None
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Load the weights, unless they are loaded. Raises ModelError; if loading failed once, the same each time."""
        await self._loaded()

    async def complete(self, arguments: Body) -> Body:
        """The reply to a body of ``/chat/completions``, or an error's body if this request cannot be answered.

        Its messages, temperature, room for tokens and schema are used; the schema is in the prompt, too. Raises
        ModelError if the model cannot be loaded.
        """
        await self._loaded()
        text, pictures = _shown(arguments)
        request = _Request(
            model=str(arguments.get("model", "")),
            text=text,
            pictures=pictures,
            schema=_schema(arguments),
            room=int(arguments.get("max_completion_tokens") or arguments.get("max_tokens") or self._model.max_tokens),
            temperature=float(arguments.get("temperature") or 0.0),
            reply=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(request)
        self._arrived.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await request.reply

    async def close(self) -> None:
        """Stop generating at the next token, and free the memory."""
        loading, self._loading = self._loading, None
        generator = None
        if loading is not None:
            await asyncio.wait([loading])  # loading cannot be interrupted
            generator = None if loading.exception() else loading.result()
        if generator:
            generator.stop()
        if self._worker:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        if generator:
            await asyncio.get_running_loop().run_in_executor(self._thread, generator.close)
        self._thread.shutdown()

    async def _loaded(self) -> Generator:
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(self._thread, self._load, self._model)
        return await asyncio.shield(self._loading)

    async def _work(self) -> None:
        generator = await self._loaded()
        part: list[_Request] = []
        try:
            while self._waiting:
                part = await self._batch(generator.most)
                run = asyncio.get_running_loop().run_in_executor
                for request, reply in zip(part, await run(self._thread, self._answers, generator, part), strict=True):
                    if not request.reply.done():  # else the sender was cancelled
                        request.reply.set_result(reply)
        finally:
            for request in (*part, *self._waiting):
                request.reply.cancel()  # no effect on requests that were answered

    async def _batch(self, most: int) -> list[_Request]:
        """Up to ``most`` requests of the oldest one's kind, once there are so many or the longest wait is over."""
        deadline = time.monotonic() + self._longest_wait
        while True:
            self._waiting = [request for request in self._waiting if not request.reply.done()]
            part = [request for request in self._waiting if request.kind == self._waiting[0].kind][:most]
            left = deadline - time.monotonic()
            if not part or len(part) == most or left <= 0:
                self._waiting = [request for request in self._waiting if request not in part]
                return part
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                continue

    def _answers(self, generator: Generator, part: Sequence[_Request]) -> list[Body]:
        """A reply for each request, or the error why it has none. Runs in the model's thread."""
        if not part:
            return []
        first = part[0]
        try:
            chats = [Chat(each.text, tuple(map(_picture, each.pictures)), each.schema) for each in part]
            results = generator.generate(chats, room=first.room, temperature=first.temperature)
        except MemoryError as error:
            return [self._failed(f"memory has no room for a single request ({error})")] * len(part)
        except Exception as error:  # noqa: BLE001 - the model's code may raise anything
            if len(part) > 1:  # try each alone, to find the one that fails
                return [reply for request in part for reply in self._answers(generator, [request])]
            return [self._failed(f"{type(error).__name__}: {str(error)[:300]}")]
        return [_reply(request.model, result) for request, result in zip(part, results, strict=True)]

    def _failed(self, what: str) -> Body:
        """The error of a request that failed. Whether it is the request's fault, only others can tell."""
        advice = "Lower image_side, max_tokens or run.units_a_request, or serve it by vLLM; see docs/models.md."
        return _error(f"{self._model.base_url}: {what}. {advice}", 500)


class InProcessModels:
    """The models that run in this process. Models with the same weights share them."""

    def __init__(self) -> None:
        self._models: dict[tuple[object, ...], InProcessModel] = {}

    def of(self, model: Model) -> InProcessModel:
        """The weights that answer for ``model``; its first request, or ``ready``, loads them."""
        key = (model.weights, model.revision, model.in_process)
        if key not in self._models:
            self._models[key] = InProcessModel(model)
        return self._models[key]

    async def close(self) -> None:
        """Close all models."""
        for each in self._models.values():
            await each.close()
        self._models.clear()


def _shown(arguments: Body) -> tuple[str, tuple[str, ...]]:
    """The texts and the pictures (data URLs) of a request's messages, joined into one turn.

    A system message becomes the beginning of the text, since not every chat template has a place for one.
    """
    texts: list[str] = []
    pictures: list[str] = []
    for message in arguments["messages"]:
        content = message["content"]
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                pictures.append(part["image_url"]["url"])
    form = arguments.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = json.dumps(form["json_schema"]["schema"], ensure_ascii=False)
        texts.append(f"Reply with JSON alone, of this JSON schema: {schema}")
    elif form.get("type") == "json_object":
        texts.append("Reply with one JSON object alone.")
    return "\n\n".join(texts), tuple(pictures)


def _schema(arguments: Body) -> Body | None:
    """The JSON schema that a request wants its reply held to."""
    form = arguments.get("response_format") or {}
    if form.get("type") == "json_schema":
        return dict(form["json_schema"]["schema"])
    return {"type": "object"} if form.get("type") == "json_object" else None


def _reply(model: str, result: Written | TooLongError) -> Body:
    if isinstance(result, TooLongError):
        return _error(str(result), "context_length_exceeded")
    finish, tokens = "length" if result.cut else "stop", (result.prompt_tokens, result.completion_tokens)
    return _completion(model, finish, {"content": result.text}, tokens)


def _error(message: str, code: str | int) -> Body:
    """An error's body, as a server sends it."""
    return {"error": {"message": message, "code": code}}


def _picture(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    if not head.startswith("data:"):
        raise ValueError(f"a picture by URL ({url[:60]}…): a model in process takes data URLs alone")
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        return opened.convert("RGB")


def _completion(model: str, finish: str, message: Body, tokens: tuple[int, int]) -> Body:
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return {
        "id": f"in-process-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}],
        "usage": usage,
    }
