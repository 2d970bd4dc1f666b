"""A proxy between one worker and its servers: it counts the worker's store and model operations, and spoils some."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from serving import Quiet, served

from taskgalaxy_ops.simulator import wire

How = Literal[
    *("429", "500", "503", "reset", "hang"),  # not served
    *("lost", "cut", "slow", "kill", "stop", "malformed", "doubled", "twice"),  # served
]
_MODELS = "/models"  # before the path of what goes to the models' server
_STAGE = "/stage/"  # the worker says what it does next
_UPSTREAM_SECONDS = 60
_UPLOADED = re.compile(rb'name="file".*?\r\n\r\n(.*)\r\n--', re.DOTALL)


@dataclass(slots=True)
class Operation:
    """One request of the worker, and what became of it."""

    # list, page (of a listing, not its first), get, put, delete, head or bucket of the store; model; of batches, batch
    # or, where it only looks, look
    kind: str
    stage: str
    model: str = ""
    units: Sequence[str] = ()  # that it is asked
    served: int = 0  # times
    reply: str = ""  # a model's reply's id
    spoiled: bool = False  # by our fault


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, with the ``first``-th operation of these ``kinds`` (none: any) alone, or for good."""

    how: How
    first: int
    kinds: frozenset[str] = frozenset()
    lasting: bool = False
    seconds: float = 4.0  # of "slow"

    def hits(self, operation: Operation) -> bool:
        return not self.kinds or operation.kind in self.kinds


@dataclass
class Between:
    """One worker's operations, in order of arrival. ``signal`` gets the process that is to be killed or stopped."""

    store: str  # URLs of the servers
    models: str
    fault: Fault | None = None
    latency: float = 0  # seconds before a model's reply
    port: int = 0  # 0: any
    url: str = ""
    operations: list[Operation] = field(default_factory=list)
    stage: str = ""
    struck: Operation | None = None
    strike: Callable[[str], None] = lambda how: None  # "kill" or "stop"
    stopped: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counted: int = 0
    _files: dict[str, Sequence[str]] = field(default_factory=dict)  # units of what was uploaded, by file

    def arrived(self, method: str, path: str, body: bytes) -> tuple[Operation, Fault | None]:
        """Count an operation; with the fault that hits it."""
        operation = Operation(_kind(method, path), "")
        if operation.kind == "model":
            asked = wire.parse(body)
            operation.model = asked.model
            operation.units = [unit.key for unit in asked.units]
            self.stage = asked.stage
        with self._lock:
            operation.stage = self.stage
            self.operations.append(operation)
            if self.fault is None or not self.fault.hits(operation):
                return operation, None
            self._counted += 1
            if self._counted != self.fault.first and not (self.fault.lasting and self._counted > self.fault.first):
                return operation, None
            operation.spoiled = True
            self.struck = self.struck or operation
            return operation, self.fault

    def batched(self, method: str, path: str, operation: Operation, body: bytes, reply: bytes) -> None:
        """Note what a served operation on files or batches asks for."""
        if (method, path) == ("POST", f"{_MODELS}/v1/files") and (file := _UPLOADED.search(body)):
            asked = [wire.parse(json.dumps(json.loads(line)["body"]).encode()) for line in file[1].splitlines()]
            self._files[json.loads(reply)["id"]] = [unit.key for each in asked for unit in each.units]
            self.stage = asked[0].stage
        elif (method, path) == ("POST", f"{_MODELS}/v1/batches"):
            operation.units = self._files[json.loads(body)["input_file_id"]]

    def paid(self) -> list[Operation]:
        """The requests that a model served, and the batches that were made."""
        with self._lock:
            return [each for each in self.operations if each.kind in {"model", "batch"} and each.units and each.served]

    @contextmanager
    def open(self) -> Iterator[Between]:
        """Listen for as long as the block lasts."""
        between = self

        class Handler(Quiet):
            def handle_it(self) -> None:
                with suppress(OSError):  # the worker is gone
                    _handle(between, self)

        with served(Handler, self.port) as self.url:
            try:
                yield self
            finally:
                self.ended.set()


def _kind(method: str, path: str) -> str:
    if path.startswith(_MODELS):
        if path.endswith("/chat/completions"):
            return "model"
        return "look" if method == "GET" else "batch"
    if method == "GET":
        query = urlsplit(path).query
        if "list-type" in query:
            return "page" if "continuation-token" in query else "list"
        return "bucket" if "versioning" in query else "get"
    return method.lower()


def _handle(between: Between, handler: Quiet) -> None:
    body = handler.body()
    if handler.path.startswith(_STAGE):
        between.stage = handler.path.removeprefix(_STAGE)
        return handler.answer(200)
    operation, fault = between.arrived(handler.command, handler.path, body)
    how = fault.how if fault else ""
    if how in {"429", "500", "503"}:
        return handler.answer(int(how), b"<Error><Code>InternalError</Code></Error>")
    if how == "reset":
        return _reset(handler)
    if how == "hang":
        between.ended.wait()
        return _reset(handler)
    status, headers, data = _serve(between, handler, operation, body)
    if how == "twice":
        status, headers, data = _serve(between, handler, operation, body)
    if how in {"kill", "stop"}:
        between.strike(how)
        between.stopped.set()
    if how in {"kill", "lost"}:
        handler.close_connection = True
        return None
    if operation.kind == "model":
        between.ended.wait(between.latency)
    if how == "slow" and fault:
        between.ended.wait(fault.seconds)
    if how in {"malformed", "doubled"}:
        data = _spoiled(data, doubled=how == "doubled")
    headers["Content-Length"] = str(len(data))
    if how == "cut":
        handler.close_connection = True
        data = data[: len(data) // 2]
    return handler.answer(status, data, headers)


def _serve(between: Between, handler: Quiet, operation: Operation, body: bytes) -> tuple[int, dict[str, str], bytes]:
    model = handler.path.startswith(_MODELS)
    netloc = urlsplit(between.models if model else between.store).netloc
    upstream = http.client.HTTPConnection(netloc, timeout=_UPSTREAM_SECONDS)
    try:
        # Host too, for the store: it is signed.
        upstream.request(handler.command, handler.path.removeprefix(_MODELS), body, dict(handler.headers))
        reply = upstream.getresponse()
        data = reply.read()
    finally:
        upstream.close()
    operation.served += 1
    if operation.kind == "model" and reply.status == 200:
        operation.reply = json.loads(data)["id"]
    if operation.kind == "batch" and reply.status == 200:
        between.batched(handler.command, handler.path, operation, body, data)
    skipped = {"connection", "date", "server", "content-length"}
    headers = {name: value for name, value in reply.getheaders() if name.lower() not in skipped}
    return reply.status, headers, data


def _spoiled(data: bytes, *, doubled: bool) -> bytes:
    """A model's reply whose content is no JSON, or holds each entry twice."""
    reply = json.loads(data)
    message = reply["choices"][0]["message"]
    content: dict[str, Any] = json.loads(message["content"])
    if doubled:
        message["content"] = json.dumps({name: [*entries, *entries] for name, entries in content.items()})
    else:
        message["content"] = "I am not sure what you mean."
    return json.dumps(reply).encode()


def _reset(handler: Quiet) -> None:
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(handler.connection.detach())
