"""The canned server's capacity: calls a second that it answers on one core. ``python -m benchmarks.canned [CALLS]``.

A benchmark of a client is valid only while its server works far below this capacity. 64 connections, made with asyncio
alone, send votes on an image of 30 kB, each the next one when it has its reply; once without, and once with limits and
random faults. The server is a separate process, with a core of its own if the machine has two. Calls a second are
computed from the server's processor seconds (Linux), as one core provides them, and also from the clock for
information.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.figures import Book, Figure
from taskgalaxy_ops.demo.services import Simulator

CALLS = 20_000
CONNECTIONS = 64
IMAGE_BYTES = 30_000
GOAL = 2_000
LIMITED = ("limits.concurrency=64", "limits.requests_per_second=1000000", "limits.tokens_per_minute=1000000000000")
FAULTY = ("faults.malformed=0.05", "faults.truncated=0.02", "faults.server_error=0.02")


class _Connection(asyncio.Protocol):
    """Sends the same request repeatedly, while ``turns``, which all connections share, has entries."""

    def __init__(self, request: bytes, turns: list[int], gone: asyncio.Queue[None]) -> None:
        self._request = request
        self._turns = turns
        self._gone = gone
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if not self._turns:
            self._transport.close()
            return
        self._turns.pop()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if blank and len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]):
            self._received = b""
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._gone.put_nowait(None)


def _request() -> bytes:
    pair = {"index": 1, "task_type": "ocr~sign text", "question": "What does the sign say?", "answer": "Stop."}
    block = {"request": "vote", "show_answer": True, "pairs": [pair]}
    text = "Judge each pair by what the image shows. " * 30 + f"\n\n```json\n{json.dumps(block)}\n```"
    image = base64.b64encode(random.Random(0).randbytes(IMAGE_BYTES)).decode()
    content = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}},
    ]
    body = json.dumps(
        {"model": "judge", "messages": [{"role": "user", "content": content}], "max_tokens": 500}
    ).encode()
    head = f"Host: localhost\r\nAuthorization: Bearer none\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n{head}".encode() + body


async def _ask(port: int, calls: int) -> float:
    """Make ``calls`` calls; returns the seconds that they took."""
    turns, gone, request = [0] * calls, asyncio.Queue[None](), _request()
    loop, started = asyncio.get_running_loop(), time.perf_counter()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(request, turns, gone), "127.0.0.1", port)
    for _ in range(CONNECTIONS):
        await gone.get()
    return time.perf_counter() - started


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answered(url: str) -> int:
    with urllib.request.urlopen(f"{url}/stats", timeout=10) as reply:
        return int(json.load(reply)["requests"])


def measure(name: str, settings: tuple[str, ...], calls: int) -> Figure:
    """Measure the capacity with these settings of the simulator."""
    arguments = ("--canned", *(word for setting in settings for word in ("--set", setting)))
    with tempfile.TemporaryDirectory() as folder, Simulator(Path(folder), arguments=arguments) as server:
        assert server.pid is not None
        asyncio.run(_ask(server.ports["http"], calls // 10))  # warm
        before = _cpu(server.pid)
        seconds = asyncio.run(_ask(server.ports["http"], calls))
        used = max(_cpu(server.pid) - before, 1 / os.sysconf("SC_CLK_TCK"))
        answered = _answered(server.url)
    if answered != calls + calls // 10:
        raise RuntimeError(
            f"canned server: {answered} of {calls + calls // 10} requests counted. Something else asked it."
        )
    detail = {"calls_a_second_by_clock": calls / seconds, "cpu_ms_a_call": used * 1000 / calls, "calls": calls}
    return Figure(f"canned.{name}", round(calls / used), GOAL, "higher", detail)


def main(calls: int = CALLS) -> None:
    """Measure and report."""
    book = Book("canned")
    book.add(measure("capacity", (), calls))
    book.add(measure("capacity_faulty", (*LIMITED, *FAULTY), calls))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
