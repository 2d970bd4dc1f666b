"""Run one step of the pipeline in a separate process, to measure its processor time and peak memory alone.

``python -m benchmarks.step <settings.json> <step> [argument …]`` prints the result and what it took, as JSON. The clock
starts when everything is imported and the store is open, so that start-up does not count.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Imported here to be part of the start-up; otherwise the library imports both where they are first needed.
import openai  # noqa: F401
import pyarrow.dataset  # noqa: F401

from benchmarks.material import BenchWorkspace, CountingStore, task_types
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.generation.shard_run import Run, ShardRun
from taskgalaxy_ops.generation.stage_keys import StageKeys
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.records import Match, Reason, Reply
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import load_settings
from taskgalaxy_ops.simulator import canned_answers
from taskgalaxy_ops.taxonomy import add_types
from taskgalaxy_ops.taxonomy.store import TaxonomyStore

Result = dict[str, Any]


def start(_: BenchWorkspace) -> Result:
    """Do nothing, to measure start-up alone."""
    return {}


def types(workspace: BenchWorkspace, first: str, end: str) -> Result:
    """Add the task types with these numbers to the taxonomy; ``first`` 0 makes a new one."""
    taxonomy_store, new = TaxonomyStore(workspace), task_types(int(first), int(end))
    base = taxonomy_store.version() if int(first) else None
    nodes = add_types(base.nodes if base else (), new)
    return {"version": taxonomy_store.publish(base.number if base else None, nodes, [], "hand")}


def ingest(workspace: BenchWorkspace) -> Result:
    """Scan the source."""
    receipt = pipeline.ingest(workspace, "images")
    return {"images": receipt.images, "new_images": receipt.new_images, "new_shards": receipt.new_shards}


def embed(workspace: BenchWorkspace) -> Result:
    """Encode the image shards that have no embeddings."""
    shards = lanes.shards_of(workspace, None)
    committed = {shard.id: workspace.stage_outputs.committed(shard.id) for shard in shards}
    return {"shards": len(pipeline.embed(workspace, shards, committed))}


def generate(workspace: BenchWorkspace, last_stage: str) -> Result:
    """Run the stages up to a last one. Raises RuntimeError if anything stays pending."""
    result = pipeline.generate(workspace, pipeline.RunOptions(last_stage=last_stage))
    if result.pending:
        raise RuntimeError(f"{result.pending} pending: {result.reasons}")
    malformed = sum(
        stage.counts.rejects.get(Reason.MALFORMED, 0)
        for shard in result.shards
        for stage in shard.stages.values()
        if stage.counts
    )
    return {"shards": len(result.matches), "requests": result.usage.requests, "malformed": malformed}


def matches(workspace: BenchWorkspace, file: str) -> Result:
    """Write each image's file and task types to a file, for the bare loop."""
    files = {claim.image: claim.file for claim in workspace.registry.claims()}
    root = Path(workspace.settings.sources["images"].location)
    by_file: dict[str, list[str]] = {}
    for match in _matches(workspace):
        by_file.setdefault(str(root / files[match.image]), []).append(match.task_type)
    Path(file).write_text(json.dumps(by_file), encoding="utf-8")
    return {"images": len(by_file)}


def pairs(workspace: BenchWorkspace, file: str) -> Result:
    """Write all matches to a file; if the file exists, ``entered`` is the number of those that are not in it."""
    now = {f"{match.image} {match.task_type}" for match in _matches(workspace)}
    path = Path(file)
    before = set(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else now
    path.write_text(json.dumps(sorted(now)), encoding="utf-8")
    return {"pairs": len(now), "entered": len(now - before)}


def _matches(workspace: BenchWorkspace) -> list[Match]:
    shards = pipeline.generate(workspace, pipeline.RunOptions(last_stage="match")).matches.values()
    return [match for stage_output in shards for match in workspace.stage_outputs.load(stage_output, "matches", Match)]


def release(workspace: BenchWorkspace) -> Result:
    """Publish a release."""
    receipt = publish.publish(workspace)
    return {"samples": receipt.release.samples, "made": receipt.made}


def fill(workspace: BenchWorkspace) -> Result:
    """Filter, write and vote with canned answers, without a server, to make a large store quickly."""
    workspace.publish_settings()
    shards = pipeline.generate(workspace, pipeline.RunOptions(last_stage="match")).matches
    run = Run(
        workspace=workspace,
        keys=StageKeys(workspace),
        gateway=_Filling(),
        run_budget=RunBudget(workspace.ledger()),
        edits=workspace.edits().counts(),
    )

    async def every() -> None:
        for shard, stage_output in shards.items():
            await ShardRun(run, shard, stage_output, workspace.stage_outputs.committed(shard))()

    asyncio.run(every())
    return {"shards": len(shards)}


class _Filling(Gateway):
    """A gateway that answers at once, as the canned server would."""

    async def ask(self, question: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        items = [{"index": n, **unit.item} for n, unit in enumerate(units, 1)]
        block = {**question.head, str(question.items): items}
        name, entries = canned_answers.entries(block, question.model.model)
        keep(question, units, {name: entries}, context)


def keep(
    question: RequestTemplate, units: Sequence[RequestItem], content: Mapping[str, Any], context: CallContext
) -> None:
    """Keep a reply of this content in the journal, as if a model had given it."""
    raw = json.dumps(content)
    answers, _ = question.parse(units, raw)
    context.journal.add(
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
            seen=context.journal.seen,
            at=round(time.time(), 3),
            seconds=0.0,
            simulated=True,
        )
    )


STEPS: dict[str, Callable[..., Result]] = {
    step.__name__: step for step in (start, types, ingest, embed, generate, matches, pairs, release, fill)
}


def peak_memory() -> int:
    """The peak memory of this process so far, in bytes (Linux)."""
    # Not getrusage's maximum, which is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main(settings: str, step: str, *arguments: str) -> None:
    """Run one step."""
    workspace = BenchWorkspace.open(load_settings(Path(settings)))
    store = CountingStore(workspace.store)
    workspace = BenchWorkspace(workspace.settings, store)
    cpu, clock = time.process_time(), time.monotonic()
    result = STEPS[step](workspace, *arguments)
    report = {
        "cpu": time.process_time() - cpu,
        "seconds": time.monotonic() - clock,
        "peak": peak_memory(),
        "passes": workspace.passes,
        "requests": dict(store.requests),
        "bytes": dict(store.bytes),
        "result": result,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
