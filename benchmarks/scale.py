"""What 100 million images and 100,000 task types would take, estimated from a few image shards; ``make bench-scale``.

Runs a few image shards through the engine and counts; simulates writers on one store (writers.py); multiplies; and
writes the tables into docs/scale.md, between its two marks.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import engine, material
from benchmarks.figures import BUILD, Book, machine
from benchmarks.writers import LATENCY, Outcome, Plan, simulate
from taskgalaxy_ops.demo.services import Simulator
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix, normalise
from taskgalaxy_ops.prompts import load_prompts
from taskgalaxy_ops.simulator.wire import CHARACTERS_A_TOKEN, image_tokens

DOCUMENT = Path("docs/scale.md")
BEGIN, END = "<!-- measured: make bench-scale -->", "<!-- /measured -->"

IMAGES, TYPES = 100_000_000, 100_000
SHARD = engine.SHARD
SHARDS = 4  # image shards that are measured
DIM = 768  # of CLIP ViT-L/14

# US dollars. AWS S3 standard, us-east-1; models as in the example settings.
PUT_OR_LIST, GET, GIGABYTE_MONTH = 0.005 / 1000, 0.0004 / 1000, 0.023
TEACHER, JUDGE = (2.50, 10.00), (0.15, 0.60)  # a million tokens: input, output
SIDE = 1024  # pixels of an image as sent
UNIT_TOKENS = {"filter": 25, "write": 90, "vote": 20}  # tokens of the reply for a unit of the stage
ASKED_TOKENS = {"filter": 15, "write": 15, "vote": 90}  # tokens of the request for a unit of the stage

SIMULATED = (
    Plan(writers=16, killed=1, frozen=1),
    Plan(writers=64, killed=4, frozen=4),
    Plan(writers=64, killed=4, frozen=4, block_calls=1024, calls_a_shard=1024),
    Plan(writers=256, block_calls=1024, calls_a_shard=1024),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one image shard took."""

    images: int
    objects: dict[str, float]  # by kind
    bytes: dict[str, float]
    requests: dict[str, float]  # to the store
    cpu: dict[str, float]  # seconds by stage
    calls: dict[str, float]  # to models, by stage
    units: dict[str, float]


def measured() -> Cost:
    """Run a few image shards through all stages; returns the mean of an image shard."""
    place = Path(os.environ.get("BENCH_FOLDER", BUILD))
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=place) as name:
        folder = Path(name).absolute()
        with Simulator(folder / "server", arguments=("--canned",)) as server:
            bench = engine.Bench(folder, server, Book("scale"), 1.0)
            _, steps = bench.first("scale", SHARD * SHARDS)
        objects: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        store = folder / "stores" / "scale"
        for path in store.rglob("*"):
            if path.is_file() and (kind := _kind(path.relative_to(store).parts)):
                objects[kind] += 1
                sizes[kind] += path.stat().st_size
    requests: Counter[str] = Counter()
    for stage, took in steps.items():
        if stage != "release":
            requests.update(took["requests"])
    asking = {stage: steps[stage] for stage in ("filter", "write", "vote")}
    return Cost(
        SHARD,
        _each(objects),
        _each(sizes),
        _each(requests),
        {stage: took["cpu"] / SHARDS for stage, took in steps.items()},
        {stage: took["asked"]["requests"] / SHARDS for stage, took in asking.items()},
        {stage: took["asked"]["units"] / SHARDS for stage, took in asking.items()},
    )


def _kind(parts: tuple[str, ...]) -> str:
    if parts[0] == "homes":
        return parts[2] if len(parts) > 3 else ""
    return parts[0] if parts[0] in {"blobs", "data"} else ""


def _each(counts: Counter[str]) -> dict[str, float]:
    return {kind: count / SHARDS for kind, count in sorted(counts.items())}


def match_seconds() -> float:
    """CPU seconds to match one image shard with all task types."""
    rng = np.random.default_rng(0)
    images = EmbeddingMatrix(tuple(f"{n:064x}" for n in range(SHARD)), normalise(rng.standard_normal((SHARD, DIM))))
    names = tuple(f"group~kind~type {n:06d}" for n in range(TYPES))
    types = EmbeddingMatrix(names, normalise(rng.standard_normal((TYPES, DIM))))
    began = time.process_time()
    matches = sum(1 for _ in match(images, types, k=10))
    assert matches == 10 * SHARD
    return time.process_time() - began


def shard_table(cost: Cost, matching: float) -> list[str]:
    """Lines of the table of what an image shard took, and all of them would take."""
    shards = IMAGES / SHARD
    rows: list[tuple[str, float, str]] = []
    rows += [(f"objects: {kind}", number, "{:,.1f} million") for kind, number in cost.objects.items()]
    rows += [(f"MB: {kind}", size / 1e6, "{:,.1f} TB") for kind, size in cost.bytes.items() if kind != "blobs"]
    rows += [(f"store requests: {kind}", number, "{:,.1f} million") for kind, number in cost.requests.items()]
    rows += [(f"model calls: {stage}", cost.calls[stage], "{:,.0f} million") for stage in cost.calls]
    rows += [(f"CPU seconds: {stage}", seconds, "{:,.0f} hours") for stage, seconds in cost.cpu.items()]
    rows.append((f"CPU seconds: match with {TYPES:,} task types", matching, "{:,.0f} hours"))
    lines = [f"| | a shard ({SHARD} images) | {IMAGES:,} images ({shards:,.0f} shards) |", "|---|---:|---:|"]
    for name, value, form in rows:
        whole = value * shards / (3600 if "hours" in form else 1e6)
        lines.append(f"| {name} | {value:,.2f} | {form.format(whole)} |")
    return lines


def money_table(cost: Cost) -> list[str]:
    """Lines of the table of what the store and the models would cost."""
    shards = IMAGES / SHARD
    asks = cost.requests
    requests = shards * ((asks.get("put", 0) + asks.get("list", 0)) * PUT_OR_LIST + asks.get("get", 0) * GET)
    gigabytes = shards * sum(size for kind, size in cost.bytes.items() if kind != "blobs") / 1e9
    lines = ["| | calculated as | US dollars |", "|---|---|---:|"]
    lines.append(f"| store requests | table above at S3's prices | {requests:,.0f} |")
    month = gigabytes * GIGABYTE_MONTH
    lines.append(f"| storage but the images, a month | {gigabytes:,.0f} GB at {GIGABYTE_MONTH} | {month:,.0f} |")
    prompts = load_prompts({})
    texts = {"filter": "filter", "write": "write_plain", "vote": "vote"}
    for stage, calls in cost.calls.items():
        price = JUDGE if stage == "vote" else TEACHER
        units = cost.units[stage] / calls
        asked = len(prompts[texts[stage]]) / CHARACTERS_A_TOKEN + image_tokens(SIDE, SIDE) + units * ASKED_TOKENS[stage]
        answered = units * UNIT_TOKENS[stage]
        dollars = shards * calls * (asked * price[0] + answered * price[1]) / 1e6
        tokens = f"{asked:,.0f} tokens in, {answered:,.0f} out, at {price[0]:.2f} and {price[1]:.2f} a million"
        lines.append(f"| {stage} | {calls * shards / 1e6:,.0f} million calls of {tokens} | {dollars:,.0f} |")
    return lines


def hours_table(cost: Cost, matching: float) -> list[str]:
    """Lines of the table of hours, by the number of workers and by the models' rate."""
    shards = IMAGES / SHARD
    calls = shards * sum(cost.calls.values())
    cpu = shards * (sum(seconds for stage, seconds in cost.cpu.items() if stage != "release") + matching)
    lines = [
        "| workers | CPU alone (a core each) | 8 calls a second each | all models together 500 calls a second |",
        "|---:|---:|---:|---:|",
    ]
    for workers in (16, 64, 256):
        asked = calls / (workers * 8) / 3600
        lines.append(
            f"| {workers} | {cpu / workers / 3600:,.0f} h | {asked:,.0f} h | {max(asked, calls / 500 / 3600):,.0f} h |"
        )
    return lines


def simulation_table() -> list[str]:
    """Lines of the table of simulated writers on one store; each simulation checks its invariants."""
    lines = [
        "| writers | `block_calls` | calls, of what the models would give | ledger: seconds a use | longest "
        "| writers that gave up | store requests a call |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for plan in SIMULATED:
        outcome = simulate(plan)
        lines.append(_simulated(plan, outcome))
    return lines


def _simulated(plan: Plan, outcome: Outcome) -> str:
    alive = plan.writers - (plan.killed / 2 + plan.frozen * min(1.0, 3 * plan.lease_seconds / plan.seconds))
    share = outcome.in_time / (alive * plan.calls_a_second * plan.seconds)
    requests = sum(outcome.requests.values()) / outcome.calls
    mean = outcome.ledger_seconds / outcome.ledger_uses
    return (
        f"| {plan.writers} | {plan.block_calls} | {share:.0%} | {mean:.2f} | {outcome.ledger_longest:.1f} | "
        f"{outcome.given_up} | {requests:.2f} |"
    )


def main() -> None:
    """Measure, simulate, and write the document's tables."""
    cost, matching = measured(), match_seconds()
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    parts: list[list[str]] = [
        [f"Measured with {SHARDS} shards of {SHARD} images of {material.SIDE} pixels a side, k = 10, on {about}."],
        shard_table(cost, matching),
        money_table(cost),
        hours_table(cost, matching),
        [f"Store: {', '.join(f'{name} {1000 * seconds:.0f} ms' for name, seconds in LATENCY.items())}, each ± a half."],
        simulation_table(),
    ]
    tables = "\n\n".join("\n".join(part) for part in parts)
    print(tables)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
