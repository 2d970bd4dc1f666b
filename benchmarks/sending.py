"""The cost of sending alone: the same request many times, by the official client and by the gateway's sender.

``python -m benchmarks.sending <base_url> <calls>`` prints the processor microseconds a call of each, as JSON. They take
turns with one server, in one process, and only parse the reply's JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import httpx2
import openai

from taskgalaxy_ops.models.http import Sender, wire
from taskgalaxy_ops.settings import Model

IN_FLIGHT = 16
TURNS = 5
IMAGE = 30_000  # bytes


async def _cpu(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """Processor microseconds a call."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await call()

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return 1e6 * (time.process_time() - began) / calls


async def measure(base_url: str, calls: int) -> dict[str, float]:
    """Processor microseconds a call of each way of sending: the median over rounds in which they take turns."""
    model = Model(name="teacher", model="teacher", base_url=base_url, simulated=True)
    image = base64.b64encode(random.Random(0).randbytes(IMAGE)).decode()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}},
    ]
    body = {"model": model.model, "messages": [{"role": "user", "content": parts}], "max_tokens": 512}
    sender = Sender()
    async with (
        openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as plain,
        openai.AsyncOpenAI(
            base_url=base_url, api_key="none", max_retries=0, http_client=openai.DefaultAioHttpClient()
        ) as quick,
    ):

        def posted(client: openai.AsyncOpenAI) -> Callable[[], Awaitable[object]]:
            async def call() -> None:
                json.loads((await client.post("/chat/completions", cast_to=httpx2.Response, body=body)).content)

            return call

        async def ours() -> None:
            sent = await sender.send(model, wire(model, body), 60)
            assert sent.kind == "served", sent

        ways = {"openai": posted(plain), "openai over aiohttp": posted(quick), "ours": ours}
        cpu_us: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            await way()  # a first call connects and imports
        for _ in range(TURNS):
            for name, way in ways.items():
                cpu_us[name].append(await _cpu(way, calls))
    await sender.aclose()
    return {name: round(statistics.median(each), 1) for name, each in cpu_us.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2])))))
