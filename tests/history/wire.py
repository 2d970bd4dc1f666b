"""The wire between the client and the models in this process: chats, and the files and batches of the Batch API.

What becomes of a batch is decided when it is made, and its requests are answered when its results are first read: so
answers are given when they are received, as those to chats are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx2

from .models import Given, Models, Unit, drawn, error

Fate = Literal["whole", "partial", "expired", "failed"]
_STATUS: Mapping[Fate, str] = {"whole": "completed", "partial": "completed", "expired": "expired", "failed": "failed"}
_UPLOADED = re.compile(rb'name="file".*?\r\n\r\n(.*)\r\n--', re.DOTALL)


@dataclass(frozen=True)
class _Line:
    name: str
    body: Mapping[str, Any]
    units: Sequence[Unit]
    forgets: Mapping[Unit, int]  # of these and of what it asks along, when it was uploaded


@dataclass
class Batch:
    """A batch, and what is known of it."""

    id: str
    nonce: str
    file: str
    fate: Fate
    lines: Sequence[_Line]
    results: bytes | None = None  # None: nobody has read them
    refused: bool = False  # and somebody has seen that
    cleared: bool = False  # its file was deleted: whoever submitted it needs nothing more of it

    @property
    def under_way(self) -> bool:
        """Whether nobody knows yet what came of it."""
        return self.results is None and not self.refused


class Wire(httpx2.AsyncBaseTransport):
    """A transport of httpx to all models of a history, and the batches that they were sent."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._files: dict[str, list[_Line]] = {}
        self.batches: list[Batch] = []
        self.fate: Fate = "whole"  # of what is made from now on
        self.held = False  # no batch ends
        self.lags = False  # the list shows no batch
        self.deaf = False  # who makes a batch does not hear of it
        self.record_actual: dict[str, tuple[int, int]] = {}  # by request of a batch that was read: calls, nano-dollars
        self.twice: set[Unit] = set()  # asked while they were under way
        self.before: Callable[[], None] = lambda: None  # called before each request

    @property
    def units(self) -> set[Unit]:
        """What is under way."""
        return {unit for line in self._under_way() for unit in line.forgets}

    @property
    def surely_needed(self) -> set[Unit]:
        """What is under way, but for questions that count only if the verdict that they were asked along with fits."""
        return {unit for line in self._under_way() for unit in line.units}

    @property
    def requests(self) -> int:
        """How many requests are under way."""
        return sum(1 for _ in self._under_way())

    @property
    def obstructed(self) -> bool:
        """Whether something may keep a run from its end."""
        refused = any(batch.fate == "failed" and not batch.cleared for batch in self.batches)
        return self.held or self.lags or self.fate != "whole" or refused

    def _under_way(self) -> Iterator[_Line]:
        return (line for batch in self.batches if batch.under_way for line in batch.lines)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request."""
        self.before()
        return self._served(request, await request.aread())

    def _served(self, request: httpx2.Request, raw: bytes) -> httpx2.Response:
        match request.method, *request.url.path.removeprefix("/v1/").split("/"):
            case "POST", "chat", "completions":
                body = json.loads(raw)
                self.twice |= self.units.intersection(self._models.units_of(body))
                return self._models.chat(request, body)
            case "POST", "files":
                lines = self._read(raw)
                return self._models.refusal(request, _model(lines)) or self._uploaded(request, lines)
            case "DELETE", "files", file:
                for batch in self.batches:
                    batch.cleared |= batch.file == file
                return _ok(request, {"id": file, "object": "file", "deleted": True})
            case "POST", "batches":
                asked = json.loads(raw)
                lines = self._files[asked["input_file_id"]]
                return self._models.refusal(request, _model(lines)) or self._made(request, asked, lines)
            case "GET", "batches":
                listed = [] if self.lags else [self._told(batch) for batch in reversed(self.batches)]
                told = {"object": "list", "data": listed, "has_more": False}
                return self._models.refusal(request) or _ok(request, told)
            case "GET", "batches", id:
                batch = self._named(id)
                return self._models.refusal(request, _model(batch.lines)) or _ok(request, self._told(batch))
            case "GET", "files", id, "content":
                batch = self._named(id)
                if refusal := self._models.refusal(request, _model(batch.lines)):
                    return refusal
                return httpx2.Response(200, content=self._results(request, batch), request=request)
        raise AssertionError(f"{request.method} {request.url}")

    def _named(self, id: str) -> Batch:
        return next(batch for batch in self.batches if batch.id == id)

    def _read(self, raw: bytes) -> list[_Line]:
        found = _UPLOADED.search(raw)
        assert found, "no file was uploaded"
        lines = []
        for told in map(json.loads, found[1].splitlines()):
            asked = self._models.asked_by(told["body"])
            forgets = {unit: self._models.forgets[unit] for both in asked for unit in both if unit}
            lines.append(_Line(told["custom_id"], told["body"], [unit for unit, _ in asked], forgets))
        return lines

    def _uploaded(self, request: httpx2.Request, lines: list[_Line]) -> httpx2.Response:
        file = f"file-{len(self._files)}"
        self._files[file] = lines
        told = {"id": file, "object": "file", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch"}
        return _ok(request, told)

    def _made(self, request: httpx2.Request, asked: Mapping[str, Any], lines: list[_Line]) -> httpx2.Response:
        self.twice |= self.units.intersection(unit for line in lines for unit in line.units)
        nonce = asked["metadata"]["taskgalaxy"]
        batch = Batch(f"batch-{len(self.batches)}", nonce, asked["input_file_id"], self.fate, lines)
        self.batches.append(batch)
        if self.deaf:
            raise httpx2.ReadError("connection reset", request=request)
        return _ok(request, self._told(batch))

    def _told(self, batch: Batch) -> dict[str, Any]:
        batch.refused |= batch.fate == "failed" and not self.held
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": 2**31,
            "input_file_id": batch.file,
            "status": "in_progress" if self.held else _STATUS[batch.fate],
            "output_file_id": None if self.held or batch.refused else batch.id,
            "errors": {"object": "list", "data": [{"message": "no good"}]} if batch.refused else None,
            "metadata": {"taskgalaxy": batch.nonce},
        }

    def _results(self, request: httpx2.Request, batch: Batch) -> bytes:
        """In another order than they were asked in."""
        if batch.results is None:
            results = [self._result(request, batch, line) for line in batch.lines]
            self._give_up(batch, [(result["response"] or {}).get("status_code") for result in results])
            batch.results = "\n".join(map(json.dumps, reversed(results))).encode()
        return batch.results

    def _give_up(self, batch: Batch, statuses: Sequence[int | None]) -> None:
        """A unit that a model fails at by itself, in a batch of which it serves as much as it fails at, ends so."""
        failed = statuses.count(500) + statuses.count(None)  # None: it never reached the model
        if 200 not in statuses or 2 * failed > len(statuses):
            return
        for line, status in zip(batch.lines, statuses, strict=True):
            if status == 500 and len(line.units) == 1 and not self._late(line):
                self._models.deliver(line.units[0], Given({}, "model fails on it"))

    def _late(self, line: _Line) -> set[Unit]:
        """Units of a line of which an answer counts for nothing now."""
        models = self._models
        return {
            unit
            for unit, forgets in line.forgets.items()
            if unit in models.standing or models.forgets[unit] != forgets or not models.gone.isdisjoint(unit.images)
        }

    def _result(self, request: httpx2.Request, batch: Batch, line: _Line) -> dict[str, Any]:
        models, spoiled = self._models, drawn(batch.id, line.units) % 2 == 0
        if batch.fate == "expired" and spoiled:
            self.record_actual[line.name] = (0, 0)
            return {"custom_id": line.name, "response": None, "error": {"code": "batch_expired"}}
        before = models.cost
        models.received += 1
        if models.left == 0 or (batch.fate == "partial" and spoiled):
            reply = error(request, 500, "error")
        else:
            models.late = self._late(line)
            reply = models.reply(request, line.body, line.units)
            models.late = set()
        models.cost -= (models.cost - before) // 2  # half the price
        self.record_actual[line.name] = (1, models.cost - before)
        response = {"status_code": reply.status_code, "request_id": "x", "body": json.loads(reply.content)}
        return {"custom_id": line.name, "response": response, "error": None}


def _model(lines: Sequence[_Line]) -> str:
    return str(lines[0].body["model"])


def _ok(request: httpx2.Request, body: Mapping[str, Any]) -> httpx2.Response:
    return httpx2.Response(200, json=body, request=request)
