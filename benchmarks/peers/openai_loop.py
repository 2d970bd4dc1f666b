"""The work with the ``AsyncOpenAI`` client and a semaphore, as one would write it in an afternoon: no journal, and the
client's own two retries. Runs in the project's venv."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai

from benchmarks.peers.work import MAX_TOKENS, MODEL, RESPONSE_FORMAT, Work, content, is_reply, main


async def _all(work: Work) -> int:
    slots = asyncio.Semaphore(work.in_flight)

    async def one(client: openai.AsyncOpenAI, image: Path) -> bool:
        async with slots:
            try:
                reply = await client.chat.completions.create(  # type: ignore[call-overload]  # plain dicts
                    model=MODEL,
                    messages=[{"role": "user", "content": content(image)}],
                    max_tokens=MAX_TOKENS,
                    temperature=0,
                    response_format=RESPONSE_FORMAT,
                )
            except openai.OpenAIError:
                return False
        return is_reply(reply.choices[0].message.content)

    async with openai.AsyncOpenAI(base_url=work.base_url, api_key="none") as client:
        return sum(await asyncio.gather(*(one(client, image) for image in work.images())))


def run(work: Work) -> int:
    """Do the work; returns the number of records obtained."""
    return asyncio.run(_all(work))


if __name__ == "__main__":
    main(run)
