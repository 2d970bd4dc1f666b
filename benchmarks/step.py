"""One step of the pipeline in a process of its own, so that its processor time and peak memory are its alone.

``python -m benchmarks.step <settings.json> <step> [argument …]`` prints what it came to, as JSON. The clock starts once
everything is imported and the store is open: start-up is apart.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Part of the start-up: both are imported by others where they are first needed.
import openai  # noqa: F401
import pyarrow.dataset  # noqa: F401

from benchmarks.material import BenchGalaxy, CountingStore, task_types
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.shard_run import HomeRun, Run
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.inference.gateway import Desk, Gateway
from taskgalaxy_ops.inference.spending import Till
from taskgalaxy_ops.models.request import Question, Unit
from taskgalaxy_ops.records import Match, Reason, Reply
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import load_settings
from taskgalaxy_ops.simulator import canned_answers
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import Catalogue

Result = dict[str, Any]


def start(_: BenchGalaxy) -> Result:
    """Nothing: what start-up alone takes."""
    return {}


def types(galaxy: BenchGalaxy, first: str, end: str) -> Result:
    """Publish a taxonomy with task types of these numbers more; ``first`` 0 begins it."""
    catalogue, new = Catalogue(galaxy), task_types(int(first), int(end))
    base = catalogue.version() if int(first) else None
    nodes = add_types(base.nodes if base else (), new)
    return {"version": catalogue.publish(base.number if base else None, nodes, [], "hand")}


def ingest(galaxy: BenchGalaxy) -> Result:
    """Scan the source."""
    receipt = pipeline.ingest(galaxy, "images")
    return {"images": receipt.images, "new_images": receipt.new_images, "new_shards": receipt.new_shards}


def embed(galaxy: BenchGalaxy) -> Result:
    """Encode what has no embedding."""
    homes = lanes.homes_of(galaxy, None)
    committed = {home.home: galaxy.shards.committed(home.home) for home in homes}
    return {"shards": len(pipeline.embed(galaxy, homes, committed))}


def generate(galaxy: BenchGalaxy, last_stage: str) -> Result:
    """The chain up to a stage. Fails if anything stays pending."""
    result = pipeline.generate(galaxy, last_stage=last_stage)
    if result.pending:
        raise RuntimeError(f"{result.pending} pending: {result.reasons}")
    malformed = sum(
        stage.counts.rejects.get(Reason.MALFORMED, 0)
        for home in result.homes
        for stage in home.stages.values()
        if stage.counts
    )
    return {"shards": len(result.matches), "requests": result.usage.requests, "malformed": malformed}


def matches(galaxy: BenchGalaxy, file: str) -> Result:
    """Write each image's file and task types to a file, for the bare loop."""
    files = {claim.image: claim.file for claim in galaxy.registry.claims()}
    root = Path(galaxy.settings.sources["images"].location)
    found: dict[str, list[str]] = {}
    for match in _matches(galaxy):
        found.setdefault(str(root / files[match.image]), []).append(match.task_type)
    Path(file).write_text(json.dumps(found), encoding="utf-8")
    return {"images": len(found)}


def pairs(galaxy: BenchGalaxy, file: str) -> Result:
    """Write all matched pairs to a file; if it holds others, tell how many are new."""
    now = {f"{match.image} {match.task_type}" for match in _matches(galaxy)}
    path = Path(file)
    before = set(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else now
    path.write_text(json.dumps(sorted(now)), encoding="utf-8")
    return {"pairs": len(now), "entered": len(now - before)}


def _matches(galaxy: BenchGalaxy) -> list[Match]:
    shards = pipeline.generate(galaxy, last_stage="match").matches.values()
    return [match for shard in shards for match in galaxy.shards.load(shard, "matches", Match)]


def release(galaxy: BenchGalaxy) -> Result:
    """Publish a release."""
    receipt = publish.publish(galaxy)
    return {"samples": receipt.release.samples, "made": receipt.made}


def fill(galaxy: BenchGalaxy) -> Result:
    """Filter, write and vote with canned answers that no server is asked for: makes a large store quickly."""
    galaxy.publish_settings()
    shards = pipeline.generate(galaxy, last_stage="match").matches
    run = Run(galaxy, StageKeys(galaxy), _Filling(), Till(galaxy.ledger()), galaxy.edits().counts())

    async def every() -> None:
        for home, shard in shards.items():
            await HomeRun(run, home, shard, galaxy.shards.committed(home))()

    asyncio.run(every())
    return {"shards": len(shards)}


class _Filling(Gateway):
    """Answers at once, from what the canned server would say."""

    async def ask(self, question: Question, units: Sequence[Unit], desk: Desk) -> None:
        items = [{"index": n, **unit.item} for n, unit in enumerate(units, 1)]
        block = {**question.head, str(question.items): items}
        name, entries = canned_answers.entries(block, question.model.model)
        raw = json.dumps({name: entries})
        answers, _ = question.parse(units, raw)
        desk.journal.add(
            Reply(
                reply=uuid.uuid4().hex,
                stage=question.stage,
                model=question.model.name,
                units=tuple(unit.key for unit in units),
                answers=answers,
                raw={"choices": [{"message": {"role": "assistant", "content": raw}}]},
                usage={"prompt_tokens": 500, "completion_tokens": 100},
                cost=0,
                list_cost=0,
                ceiling=0,
                block="",
                attempts=1,
                seen=desk.journal.seen,
                at=round(time.time(), 3),
                seconds=0.0,
                simulated=True,
            )
        )


STEPS: dict[str, Callable[..., Result]] = {
    step.__name__: step for step in (start, types, ingest, embed, generate, matches, pairs, release, fill)
}


def peak_memory() -> int:
    """The most memory that this process held so far, in bytes (Linux)."""
    # Not getrusage's maximum: that one is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(settings: str, step: str, *arguments: str) -> None:
    """Run one step."""
    galaxy = BenchGalaxy.open(load_settings(Path(settings)))
    store = CountingStore(galaxy.store)
    galaxy = BenchGalaxy(galaxy.settings, store)
    cpu, clock = time.process_time(), time.monotonic()
    result = STEPS[step](galaxy, *arguments)
    told = {
        "cpu": time.process_time() - cpu,
        "seconds": time.monotonic() - clock,
        "peak": peak_memory(),
        "passes": galaxy.passes,
        "requests": dict(store.requests),
        "bytes": dict(store.bytes),
        "result": result,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
