"""The engine's own cost: of a second run, of 1 % more images or types, a reply, a shard. ``make bench-engine``.

Stages run in separate processes (step.py), on a store in a folder, and ask the canned server (``taskgalaxy simulate
--canned``), another process. ``SCALE=0.1`` takes a tenth of the images; ``BENCH_FOLDER`` names another place for the
stores; arguments choose figures: images, memory, types, cpu, journal, shards.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import material, running
from benchmarks.figures import Book, Figure
from benchmarks.running import Result
from taskgalaxy_ops.demo.services import SeaweedFS, Simulator
from taskgalaxy_ops.records import Answer, Reply
from taskgalaxy_ops.storage import Store, keys, open_store
from taskgalaxy_ops.storage.journal import PART_REPLIES, Journal

IMAGES = 20_000
SHARD = 512  # images a shard, as by default
SMALL = 10  # the store with which memory is compared has this many times fewer images
TYPES = 2_000
WIDE_IMAGES, WIDE_SHARDS = 100_000, 200
CPU_IMAGES = 1_500
JOURNAL_PARTS, JOURNAL_ROUNDS = 32, 8  # parts: as many as the journal of an image shard of 512 images has

FIRST = (("ingest",), ("embed",), *(("generate", stage) for stage in ("match", "filter", "write", "vote")))
RELEASE = ("release",)
ENCODER = "fixed projection of the pixels (no model)"


class Bench:
    """One run of the benchmarks: its folder, its server, and the book that it reports to."""

    def __init__(self, folder: Path, server: Simulator, book: Book, scale: float) -> None:
        self.folder = folder
        self.server = server
        self.book = book
        self.scale = scale
        self._made: dict[str, Mapping[str, Result]] = {}

    def count(self, full: int) -> int:
        """A number of images at this run's scale, at least 20."""
        return max(20, round(full * self.scale))

    def add(self, figure: str, value: float, goal: float | None, better: Any = "lower", **detail: Any) -> None:
        """Report a figure."""
        self.book.add(Figure(f"engine.{figure}", round(value, 5), goal, better, detail))

    def asked(self) -> Result:
        """The server's counts so far."""
        return running.stats(self.server.url)

    def server_cpu(self) -> float:
        """Processor seconds of the server so far (Linux), from which its capacity is computed."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settings(self, name: str, source: Path, store: str = "", **changes: Any) -> Path:
        """Write a settings file for the store of this name, and return its path."""
        file = self.folder / f"{name}.json"
        url = store or (self.folder / "stores" / name).as_uri()
        chosen = material.settings(url, source, self.server.base_url, **changes)
        file.write_text(chosen.model_dump_json(), encoding="utf-8")
        return file

    def step(self, settings: Path, *arguments: str) -> Result:
        """Run one step in a separate process; returns what it took, and what it asked the server."""
        before = self.asked()
        took = running.process("benchmarks.step", str(settings), *arguments)
        after = self.asked()
        took["asked"] = {"requests": after["requests"] - before["requests"]}
        took["asked"]["units"] = sum(after["units"].values()) - sum(before["units"].values())
        return took

    def run(self, settings: Path, steps: Iterable[tuple[str, ...]]) -> dict[str, Result]:
        """Run steps in order; returns what each took, by its last word."""
        return {step[-1]: self.step(settings, *step) for step in steps}

    def first(self, name: str, count: int) -> tuple[Path, Mapping[str, Result]]:
        """Make a source of ``count`` images and run it once, if not done; returns settings, and what each step took."""
        source = self.folder / f"{name} images"
        # 4 and 40 image shards at any scale, so that small and large runs have equally many under way at once.
        ingest = {"min_side": material.SIDE, "shard_images": max(8, round(SHARD * self.scale))}
        settings = self.settings(name, source, ingest=ingest)
        if name not in self._made:
            material.images(source, 0, count)
            self.step(settings, "types", "0", str(TYPES))
            self._made[name] = self.run(settings, [*FIRST, RELEASE])
        return settings, self._made[name]

    def large(self) -> tuple[Path, Mapping[str, Result]]:
        return self.first("large", self.count(IMAGES))

    def small(self) -> tuple[Path, Mapping[str, Result]]:
        return self.first("small", self.count(IMAGES // SMALL))


def _sum(steps: Mapping[str, Result], what: str, *, without: str = "release") -> float:
    return sum(float(took[what]) for name, took in steps.items() if name != without)


def _units(steps: Mapping[str, Result]) -> int:
    return sum(took["asked"]["units"] for took in steps.values())


def _cpu(steps: Mapping[str, Result]) -> Result:
    return {name: round(took["cpu"], 2) for name, took in steps.items()}


def images(bench: Bench) -> None:
    """Measure a second run, then one with one per cent more images."""
    settings, first = bench.large()
    count = bench.count(IMAGES)
    again = bench.run(settings, [*FIRST, RELEASE])
    calls, passes = sum(took["asked"]["requests"] for took in again.values()), int(_sum(again, "passes", without=""))
    bench.add("noop_calls", calls + passes, 0, images=count, model_calls=calls, encoder_passes=passes)
    more = max(1, count // 100)
    material.images(bench.folder / "large images", count, count + more)
    then = bench.run(settings, [*FIRST, RELEASE])
    counts = {"images": count, "more": more}
    bench.add(
        "images_1pct_calls",
        _units(then) / _units(first),
        0.0105,
        **counts,
        first_units=_units(first),
        then_units=_units(then),
    )
    whole = _sum(then, "cpu", without="") / _sum(first, "cpu", without="")
    bench.add(
        "images_1pct_cpu",
        _sum(then, "cpu") / _sum(first, "cpu"),
        0.02,
        **counts,
        first_seconds=round(_sum(first, "cpu"), 2),
        then_seconds=round(_sum(then, "cpu"), 2),
        with_release=round(whole, 4),
        first_steps=_cpu(first),
        then_steps=_cpu(then),
        noop_steps=_cpu(again),
        encoder=ENCODER,
    )


def memory(bench: Bench) -> None:
    """Compare the peak memory of each stage's process at n and 10 n images."""
    small, large = bench.small()[1], bench.large()[1]
    growth = {name: round(large[name]["peak"] / small[name]["peak"], 3) for name in large}
    worst = max(growth, key=lambda name: growth[name])
    megabytes = {name: [round(steps[name]["peak"] / 1e6) for steps in (small, large)] for name in large}
    bench.add(
        "memory_growth",
        growth[worst],
        1.1,
        images=bench.count(IMAGES),
        worst=worst,
        stages=growth,
        megabytes=megabytes,
    )


def types(bench: Bench) -> None:
    """Measure the calls of a run with one per cent more task types."""
    settings, _ = bench.small()
    file = str(bench.folder / "pairs.json")
    bench.step(settings, "pairs", file)
    bench.step(settings, "types", str(TYPES), str(TYPES + TYPES // 100))
    entered = bench.step(settings, "pairs", file)["result"]["entered"]
    units = bench.step(settings, "generate", "filter")["asked"]["units"]
    ratio = units / entered if entered else float("nan")
    bench.add("types_1pct_calls", ratio, 1.0, images=bench.count(IMAGES // SMALL), filter_units=units, entered=entered)


def cpu(bench: Bench) -> None:
    """Compare the engine with a bare loop that sends the same requests."""
    count = bench.count(CPU_IMAGES)
    source = bench.folder / "cpu images"
    material.images(source, 0, count)
    settings = bench.settings("cpu", source, vote={"audit_share": 0})
    bench.step(settings, "types", "0", str(TYPES))
    bench.run(settings, [("ingest",), ("generate", "match")])
    listed = str(bench.folder / "matches.json")
    bench.step(settings, "matches", listed)
    bare = running.process("benchmarks.bare", str(settings), listed, "aiohttp")
    bare_default_transport = running.process("benchmarks.bare", str(settings), listed, "default")
    before = bench.server_cpu()
    engine = bench.step(settings, "generate", "vote")
    served = engine["asked"]["requests"] / max(0.01, bench.server_cpu() - before)
    if (engine["asked"]["requests"], engine["asked"]["units"]) != (bare["requests"], bare["units"]):
        raise SystemExit(f"the two sides asked differently: {engine['asked']} and {bare}")
    thousand = bare["units"] / 1000
    bench.add(
        "cpu",
        engine["cpu"] / bare["cpu"],
        1.3,
        images=count,
        units=bare["units"],
        requests=bare["requests"],
        engine_ms_a_unit=round(engine["cpu"] / thousand, 3),
        bare_ms_a_unit=round(bare["cpu"] / thousand, 3),
        of_the_clients_default_transport=round(engine["cpu"] / bare_default_transport["cpu"], 3),
        server_requests_a_cpu_second=round(served),
        bare_loop="sends the image's file as it is; the engine renders it, once a stage",
    )


def journal(bench: Bench) -> None:
    """Compare the journal's replies a second with bare puts of equally many objects of the same sizes."""
    with SeaweedFS(bench.folder / "s3") as server:
        s3 = open_store(f"s3://{server.bucket}/journal", **server.s3_options)
        folder = open_store(str(bench.folder / "stores" / "journal"))
        rounds = max(2, round(JOURNAL_ROUNDS * min(1.0, bench.scale)))
        rates = {name: _journal_rate(store, rounds) for name, store in {"s3": s3, "folder": folder}.items()}
    ratio, rate, bare, size = rates["s3"]
    bench.add(
        "journal_rate",
        ratio,
        0.9,
        "higher",
        replies_a_second=round(rate),
        bare_replies_a_second=round(bare),
        part_bytes=size,
        store="SeaweedFS",
        folder_ratio=round(rates["folder"][0], 3),
        folder_replies_a_second=round(rates["folder"][1]),
    )


def _journal_rate(store: Store, rounds: int) -> tuple[float, float, float, int]:
    """Ratio, replies a second of the journal and of bare puts (medians over rounds), and bytes a part."""
    ours, bare, size = [], [], 0
    for _ in range(rounds):
        shard = uuid.uuid4().hex
        replies = [_reply(number) for number in range(JOURNAL_PARTS * PART_REPLIES)]
        gc.collect()
        gc.freeze()  # the benchmark's own objects must not slow down garbage collection in the journal's time
        began = time.monotonic()
        shard_journal = Journal(store, shard)
        for reply in replies:
            shard_journal.add(reply)
        shard_journal.flush()
        ours.append(len(replies) / (time.monotonic() - began))
        gc.unfreeze()
        objects = [store.get(listed.key) for listed in store.list(f"{keys.journal(shard)}/")]
        size = sum(map(len, objects)) // len(objects)
        began = time.monotonic()
        for number, raw in enumerate(objects):
            store.put_if_absent(f"bare/{shard}/{number:010d}", raw)
        bare.append(len(replies) / (time.monotonic() - began))
    return median(a / b for a, b in zip(ours, bare, strict=True)), median(ours), median(bare), size


def _reply(number: int) -> Reply:
    """A reply as large as a filter's about ten task types; random ids and texts, so that it compresses like one."""
    units = tuple(uuid.uuid4().hex * 2 for _ in range(10))
    texts = [f"It shows {uuid.uuid4().hex[:12]}, which {'fits' if n % 3 else 'does not fit'}." for n in range(10)]
    answers = {unit: Answer({"fits": bool(n % 3), "reason": texts[n]}) for n, unit in enumerate(units)}
    verdicts = [{"index": n + 1, "fits": bool(n % 3), "reason": text} for n, text in enumerate(texts)]
    message = {"role": "assistant", "content": json.dumps({"verdicts": verdicts}), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    raw = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": number, "choices": [choice]}
    usage = {"prompt_tokens": 1200, "completion_tokens": 300}
    return Reply(
        reply=uuid.uuid4().hex,
        stage="filter",
        model="teacher",
        units=units,
        answers=answers,
        raw=raw,
        usage=usage,
        cost=6_000_000,
        list_cost=6_000_000,
        ceiling=25_000_000,
        block=uuid.uuid4().hex,
        attempts=1,
        seen=7,
        at=round(time.time(), 3),
        seconds=1.234,
    )


def shards(bench: Bench) -> None:
    """Measure a run with nothing to do, over many image shards."""
    count = bench.count(WIDE_IMAGES)
    source = bench.folder / "wide images"
    material.images(source, 0, count)
    ingest = {"min_side": material.SIDE, "shard_images": -(-count // WIDE_SHARDS)}
    settings = bench.settings("wide", source, ingest=ingest, match={"k": 2})
    bench.step(settings, "types", "0", str(TYPES))
    made = bench.run(settings, [("ingest",), ("embed",), ("generate", "match"), ("fill",), RELEASE])
    again = bench.run(settings, [("ingest",), ("generate", "vote"), RELEASE])
    if again["vote"]["asked"]["requests"] or again["release"]["result"]["made"]:
        raise SystemExit("the run had something to do")
    number = again["vote"]["result"]["shards"]
    steps = {name: sum(took["requests"].values()) / number for name, took in again.items()}
    bench.add(
        "noop_requests_per_shard",
        steps["ingest"] + steps["vote"],
        2,
        images=count,
        shards=number,
        with_release=round(sum(steps.values()), 3),
        steps={name: round(value, 3) for name, value in steps.items()},
        kinds={name: took["requests"] for name, took in again.items()},
        made="in this process's own steps, without a server",
    )
    bench.add(
        "noop_seconds_100k",
        again["ingest"]["seconds"] + again["vote"]["seconds"],
        None,
        images=count,
        steps={name: round(took["seconds"], 2) for name, took in again.items()},
        peak_megabytes={name: round(took["peak"] / 1e6) for name, took in again.items()},
        first_seconds={name: round(took["seconds"], 1) for name, took in made.items()},
    )


FIGURES: Mapping[str, Callable[[Bench], None]] = {
    figure.__name__: figure for figure in (images, memory, types, cpu, journal, shards)
}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    with (
        running.folder("engine", FIGURES, chosen) as folder,
        Simulator(folder / "server", arguments=("--canned",)) as server,
    ):
        running.measure(FIGURES, chosen, Bench(folder, server, Book("engine"), running.scale()))


if __name__ == "__main__":
    main(*sys.argv[1:])
