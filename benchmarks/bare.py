"""A bare loop over the same client, as one would write it without an engine: no journal, no budget, no retries.

``python -m benchmarks.bare <settings.json> <matches.json> <default or aiohttp>``; the last is the client's transport.
For each image it asks which of its task types fit, for a question and answer for each of these, for two judges' votes,
and for a third one's where they differ. It sends the image's unchanged file as base64, parses replies as JSON and keeps
only what it needs. The requests are the engine's own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import openai

from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.generation.stages.vote import vote_template
from taskgalaxy_ops.generation.stages.write import write_template
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.settings import Model, load_settings

Entry = dict[str, Any]


class Loop:
    """The clients and prompts, and the samples and counts so far."""

    def __init__(self, settings: Path, transport: str) -> None:
        chosen = load_settings(settings)
        self._models = [chosen.teacher, *chosen.judges]
        self._clients: dict[str, Any] = {
            model.name: openai.AsyncOpenAI(
                base_url=model.base_url,
                api_key="none",
                max_retries=0,
                timeout=120,
                http_client=None if transport == "default" else openai.DefaultAioHttpClient(),  # its fastest transport
            )
            for model in self._models
        }
        prompts = load_prompts({})
        teacher, *judges = self._models
        forms = {
            "filter": filter_template(prompts["filter"], teacher),
            "write": write_template(prompts["write_plain"], teacher, "plain"),
            "vote": vote_template(prompts["vote"], judges[0], True),
        }
        self._prompts = {stage: f"{form.prompt}\n\n{form.reply_form}" for stage, form in forms.items()}
        self._schemas = {stage: form.json_schema() for stage, form in forms.items()}
        self._heads = {stage: dict(form.head) for stage, form in forms.items()}
        self._slots = {model.name: asyncio.Semaphore(model.concurrency) for model in self._models}
        self.requests = 0
        self.units = 0
        self.samples: list[Entry] = []

    async def _ask(self, model: Model, stage: str, url: str, items: str, replies: str, asked: list[Entry]) -> list[Any]:
        block = {**self._heads[stage], items: [{"index": n, **item} for n, item in enumerate(asked, 1)]}
        text = f"{self._prompts[stage]}\n\n```json\n{json.dumps(block, ensure_ascii=False, indent=1)}\n```"
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        schema = {"name": stage, "strict": True, "schema": self._schemas[stage]}
        async with self._slots[model.name]:
            self.requests += 1
            self.units += len(asked)
            reply = await self._clients[model.name].chat.completions.create(
                model=model.model,
                messages=[{"role": "user", "content": content}],
                max_tokens=model.max_tokens,
                temperature=model.temperature,
                response_format={"type": "json_schema", "json_schema": schema},
            )
        entries: list[Any] = json.loads(reply.choices[0].message.content or "")[replies]
        return entries

    async def image(self, file: str, types: list[str]) -> None:
        """Run all stages for one image. types: its task types."""
        url = "data:image/png;base64," + base64.b64encode(Path(file).read_bytes()).decode("ascii")
        teacher, first, second, third = self._models
        asked: list[Entry] = [{"task_type": task_type} for task_type in types]
        verdicts = await self._ask(teacher, "filter", url, "task_types", "verdicts", asked)
        fitting = [item for item, verdict in zip(asked, verdicts, strict=True) if verdict["fits"]]
        if not fitting:
            return
        written = await self._ask(teacher, "write", url, "task_types", "pairs", fitting)
        pairs = [
            {**item, "question": pair["question"], "answer": pair["answer"]}
            for item, pair in zip(fitting, written, strict=True)
        ]
        ones = await self._ask(first, "vote", url, "pairs", "votes", pairs)
        twos = await self._ask(second, "vote", url, "pairs", "votes", pairs)
        sums = [one["vote"] + two["vote"] for one, two in zip(ones, twos, strict=True)]
        if open_ones := [pair for pair, votes in zip(pairs, sums, strict=True) if votes == 1]:
            threes = iter(await self._ask(third, "vote", url, "pairs", "votes", open_ones))
            sums = [votes + next(threes)["vote"] if votes == 1 else votes for votes in sums]
        self.samples += [pair for pair, votes in zip(pairs, sums, strict=True) if votes >= 2]

    async def all(self, matches: dict[str, list[str]]) -> None:
        """Run every image, as many at once as the engine has requests in flight."""
        slots = asyncio.Semaphore(max(model.concurrency for model in self._models))

        async def one(file: str, types: list[str]) -> None:
            async with slots:
                await self.image(file, types)

        async with asyncio.TaskGroup() as group:
            for file, types in matches.items():
                group.create_task(one(file, types))
        for client in self._clients.values():
            await client.close()


def main(settings: str, matches: str, transport: str) -> None:
    """Run the loop, and print its seconds and counts as JSON."""
    listed = json.loads(Path(matches).read_text(encoding="utf-8"))
    cpu, clock = time.process_time(), time.monotonic()
    loop = Loop(Path(settings), transport)
    asyncio.run(loop.all(listed))
    report = {
        "cpu": time.process_time() - cpu,
        "seconds": time.monotonic() - clock,
        "requests": loop.requests,
        "units": loop.units,
        "samples": len(loop.samples),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
