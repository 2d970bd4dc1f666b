"""The work in a bare aiohttp loop, the least that is possible: no journal, no retries. Runs in the project's venv."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from benchmarks.peers.work import MAX_TOKENS, MODEL, RESPONSE_FORMAT, Work, content, is_reply, main


async def _worker(session: aiohttp.ClientSession, url: str, images: Iterator[Path]) -> int:
    """Ask about images until none is left; returns the number of records obtained."""
    records = 0
    for image in images:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": content(image)}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "response_format": RESPONSE_FORMAT,
        }
        try:
            async with session.post(url, json=body) as response:
                response.raise_for_status()
                reply = json.loads(await response.read())
        except aiohttp.ClientError:
            continue
        records += is_reply(reply["choices"][0]["message"]["content"])
    return records


async def _all(work: Work) -> int:
    images = iter(work.images())
    # As many connections as workers, so that the pool limits nothing.
    connector = aiohttp.TCPConnector(limit=work.in_flight)
    headers = {"Authorization": "Bearer none"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session, asyncio.TaskGroup() as group:
        url = f"{work.base_url}/chat/completions"
        workers = [group.create_task(_worker(session, url, images)) for _ in range(work.in_flight)]
    return sum(worker.result() for worker in workers)


def run(work: Work) -> int:
    """Do the work; returns the number of records obtained."""
    return asyncio.run(_all(work))


if __name__ == "__main__":
    main(run)
