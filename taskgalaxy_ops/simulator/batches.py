"""``/v1/batches``: OpenAI's Batch API over the simulated models. Kept in memory: gone with the server.

A batch is worked on as soon as it is made, and ends when its work is done and its seconds have passed: seen when
somebody asks, so that ``/control`` can hold it or let it go. What is told is OpenAI's: a file that cannot be read
fails the batch, not its creation; requests that fail, expire or are cancelled end in the error file.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.simulator import batch_lines, breaking, wire
from taskgalaxy_ops.simulator.batch_lines import Line
from taskgalaxy_ops.simulator.config import SimulatorConfig, mistakes
from taskgalaxy_ops.simulator.files import Files, page
from taskgalaxy_ops.simulator.replies import Reply
from taskgalaxy_ops.simulator.wire import WrongRequestError

_DAY = 86_400
_AT_ONCE = 8  # requests of a batch that are worked on
_LISTED, _MOST_LISTED = 20, 100
_FULL = "Enqueued token limit reached. Please try again once some in_progress batches have been completed."

_Key = Annotated[str, StringConstraints(max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class _Create(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    input_file_id: str
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None


@dataclass(slots=True, kw_only=True)
class _Batch:
    asked: _Create
    created_at: float
    size: int  # lines of its file
    drawn: Callable[..., float]  # by this batch's input and how often it was submitted
    id: str = field(default_factory=lambda: f"batch_{uuid.uuid4().hex}")
    status: str = "validating"
    times: dict[str, float] = field(default_factory=dict)  # field: Unix seconds
    errors: Sequence[Mapping[str, Any]] = ()
    lines: Sequence[Line] = ()
    expires: bool = False
    results: dict[str, tuple[bool, Mapping[str, Any]]] = field(default_factory=dict)  # custom_id: success, output line
    files: dict[str, str] = field(default_factory=dict)
    work: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return self.status in {"failed", "completed", "expired", "cancelled"}

    def told(self) -> dict[str, Any]:
        """The batch object."""
        done = Counter(success for success, _ in self.results.values())
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.asked.endpoint,
            "model": self.lines[0].body.get("model") if self.lines else None,
            "errors": {"object": "list", "data": list(self.errors)} if self.errors else None,
            "input_file_id": self.asked.input_file_id,
            "completion_window": self.asked.completion_window,
            "status": self.status,
            "output_file_id": self.files.get("output"),
            "error_file_id": self.files.get("error"),
            "created_at": int(self.created_at),
            "expires_at": int(self.created_at) + _DAY,
            **{f"{name}_at": int(self.times[name]) if name in self.times else None for name in times},
            "request_counts": {"total": len(self.lines), "completed": done[True], "failed": done[False]},
            "metadata": self.asked.metadata,
            "simulated": True,
        }


class Batches:
    """The batches of one server. ``config``: as it is now; ``answer``: the reply to a chat request's body, which fails
    if so told."""

    def __init__(
        self,
        files: Files,
        config: Callable[[], SimulatorConfig],
        answer: Callable[[bytes, bool], Awaitable[Reply]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._config = config
        self._answer = answer
        self._clock = clock
        self._batches: dict[str, _Batch] = {}
        self._submitted: Counter[str] = Counter()  # by the input's hash

    @property
    def routes(self) -> Sequence[Route]:
        """The endpoints."""
        return [
            Route("/v1/batches", self._create, methods=["POST"]),
            Route("/v1/batches", self._list, methods=["GET"]),
            Route("/v1/batches/{id}", self._retrieve, methods=["GET"]),
            Route("/v1/batches/{id}/cancel", self._cancel, methods=["POST"]),
        ]

    def close(self) -> None:
        """Stop working."""
        for batch in self._batches.values():
            if batch.work is not None:
                batch.work.cancel()

    def summary(self) -> Mapping[str, int]:
        """How many batches were made, and how many requests they hold."""
        batches = self._batches.values()
        return {"created": len(batches), "requests": sum(len(batch.lines) for batch in batches)}

    async def _create(self, request: Request) -> Response:
        try:
            asked = _Create.model_validate_json(await request.body())
        except ValidationError as error:
            raise WrongRequestError(400, mistakes(error)) from error
        config, file = self._config(), self._files.get(asked.input_file_id)
        content = file.sha256 if file else ""
        self._submitted[content] += 1
        place = (config.seed, "batch", content, self._submitted[content])
        size = len(file.data.splitlines()) if file else 0
        full = config.batches.enqueued_requests is not None and (
            await self._enqueued() + size > config.batches.enqueued_requests
        )
        if full and config.batches.enqueued_refusal != "failed":
            raise WrongRequestError(int(config.batches.enqueued_refusal), _FULL)
        batch = _Batch(asked=asked, created_at=self._clock(), size=size, drawn=lambda *parts: draw(*place, *parts))
        self._batches[batch.id] = batch
        if full:
            self._fail(batch, [batch_lines.problem("token_limit_exceeded", _FULL)])
        elif file is None or file.purpose != "batch":
            message = f"The input file {asked.input_file_id[:64]!r} is not there, or is not for batches."
            self._fail(batch, [batch_lines.problem("invalid_input_file", message, None, "input_file_id")])
        else:
            batch.work = asyncio.create_task(self._work(batch, file.data))
        if batch.drawn("lost reply") < config.batches.lost_reply:
            return breaking.Reset()
        return JSONResponse(batch.told())

    async def _enqueued(self) -> int:
        """The requests in batches that have not ended."""
        for batch in list(self._batches.values()):
            await self._look(batch)
        return sum(batch.size for batch in self._batches.values() if not batch.ended)

    async def _list(self, request: Request) -> Response:
        seen = self._clock() - self._config().batches.list_lag
        listed = [batch for batch in reversed(self._batches.values()) if batch.created_at <= seen]
        for batch in listed:
            await self._look(batch)
        return JSONResponse(page(request, listed, _Batch.told, _LISTED, _MOST_LISTED))

    async def _retrieve(self, request: Request) -> Response:
        return JSONResponse((await self._named(request)).told())

    async def _cancel(self, request: Request) -> Response:
        batch = await self._named(request)
        if batch.ended or batch.status == "finalizing":
            raise WrongRequestError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        self._enter(batch, "cancelling")
        return JSONResponse(batch.told())

    async def _named(self, request: Request) -> _Batch:
        id = request.path_params["id"]
        if id not in self._batches:
            raise WrongRequestError(404, f"No batch found with id '{id}'.")
        await self._look(self._batches[id])
        return self._batches[id]

    def _enter(self, batch: _Batch, status: str) -> None:
        batch.status = status
        batch.times.setdefault(status, self._clock())

    def _fail(self, batch: _Batch, errors: Sequence[Mapping[str, Any]]) -> None:
        batch.errors = errors
        self._enter(batch, "failed")

    async def _work(self, batch: _Batch, data: bytes) -> None:
        config = self._config()
        batch.lines, wrong = await asyncio.to_thread(batch_lines.read, data, config.batches)
        if wrong:
            self._fail(batch, wrong)
            return
        if batch.status == "validating":
            self._enter(batch, "in_progress")
        todo = batch.lines
        batch.expires = batch.drawn("expired") < config.batches.expired
        if batch.expires:
            order = sorted(todo, key=lambda line: batch.drawn("done", line.custom_id))
            todo = order[: round(len(order) * config.batches.expired_done)]
        waiting = iter(todo)

        async def work() -> None:
            for line in waiting:
                if batch.status == "cancelling":
                    return
                failed = batch.drawn("failed", line.custom_id) < config.batches.failed
                reply = await self._answer(wire.encode(line.body).encode(), failed)
                result = batch_lines.outcome(line, reply.status, reply.body)
                batch.results[line.custom_id] = reply.status == 200, result

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())

    async def _look(self, batch: _Batch) -> None:
        """End a batch that is due."""
        if batch.ended or batch.status == "finalizing" or batch.work is None or not batch.work.done():
            return
        if error := batch.work.exception():
            self._fail(batch, [batch_lines.problem("server_error", f"{error!r}")])
        elif batch.status == "cancelling":
            await self._end(batch, "cancelled", "batch_cancelled")
        elif self._clock() >= batch.created_at + self._config().batches.seconds:
            await self._end(batch, "expired" if batch.expires else "completed", "batch_expired")

    async def _end(self, batch: _Batch, status: str, rest: str) -> None:
        self._enter(batch, "finalizing")
        lines = list(batch.lines)
        if self._config().batches.shuffled:
            lines.sort(key=lambda line: batch.drawn("order", line.custom_id))
        results = [batch.results.get(line.custom_id) or (False, batch_lines.unmade(line, rest)) for line in lines]
        for name, success in (("output", True), ("error", False)):
            if kept := [result for ok, result in results if ok == success]:
                file = await self._files.add(f"{batch.id}_{name}.jsonl", "batch_output", batch_lines.written(kept))
                batch.files[name] = file.id
        self._enter(batch, status)
