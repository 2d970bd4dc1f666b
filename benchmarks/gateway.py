"""The gateway: its rate as a share of what the server allows, its processor time, lost calls. ``make bench-gateway``.

The work is one request for each image of about 30 kB, with a structured answer, 64 in flight, to the canned server at a
fixed latency. This project runs its filter with one task type an image, from a store in a folder, with journal and
budget; peers ask for a question and answer (peers/work.py). Calls a second are computed from the server's first arrival
to its last reply. ``SCALE=0.1`` takes a tenth of the calls; arguments choose figures: speed, sending, limits,
malformed, memory, peers.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import material, running
from benchmarks.figures import Book, Figure
from benchmarks.peers.run import peer
from benchmarks.running import Result
from taskgalaxy_ops.demo.services import Simulator

LATENCY = 0.2  # seconds
IN_FLIGHT = 64
IDEAL = IN_FLIGHT / LATENCY
CALLS = 2_000
MANY = 10_000
ROUNDS = 3  # in each of which the compared sides run one after the other
TYPES = 200


class Bench:
    """One run of the benchmarks: its folder, its book, and for each size a store in which all but asking is done."""

    def __init__(self, folder: Path, book: Book, scale: float) -> None:
        self.folder = folder
        self.book = book
        self.calls = max(100, round(CALLS * scale))
        self.many = max(200, round(MANY * scale))
        self.images = folder / "images"
        material.photographs(self.images, 0, self.many)

    def add(self, figure: str, value: float, goal: float | None, better: Any = "higher", **detail: Any) -> None:
        """Report a figure."""
        self.book.add(Figure(f"gateway.{figure}", round(value, 4), goal, better, detail))

    def server(self, *options: str, latency: float = LATENCY) -> Simulator:
        """A canned server, as a context manager. options: such as "limits.concurrency=16"."""
        sets = [word for option in (f"latency={latency}", *options) for word in ("--set", option)]
        return Simulator(Path(tempfile.mkdtemp(dir=self.folder)), arguments=("--canned", *sets))

    def run(self, server: Simulator, calls: int, **model: Any) -> Result:
        """Run the filter over ``calls`` images in a separate process; ``wall``: seconds, including its start."""
        settings = self._prepared(server, calls, model)
        running.stats(server.url, "DELETE")
        began = time.monotonic()
        result = running.process("benchmarks.step", str(settings), "generate", "filter")
        result["wall"] = time.monotonic() - began
        return {**result, **_rate(server)}

    def peer(self, name: str, server: Simulator, calls: int) -> Result:
        """Run a peer over ``calls`` images; returns the same as `run`."""
        running.stats(server.url, "DELETE")
        return {**peer(name, server.base_url, self.images, calls, IN_FLIGHT), **_rate(server)}

    def _prepared(self, server: Simulator, calls: int, model: Mapping[str, Any]) -> Path:
        """The settings of a store whose images are matched with one task type each, before anything is asked."""
        ready = self.folder / "ready" / str(calls)
        chosen = self.folder / f"{calls}.json"
        source = self.folder / f"first {calls}"
        if not ready.exists():
            source.mkdir()
            for image in sorted(self.images.iterdir())[:calls]:
                (source / image.name).hardlink_to(image)
            self._written(chosen, ready, source, server, {})
            running.process("benchmarks.step", str(chosen), "types", "0", str(TYPES))
            for step in (("ingest",), ("embed",), ("generate", "match")):
                running.process("benchmarks.step", str(chosen), *step)
        store = self.folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(ready, store, copy_function=os.link)
        self._written(chosen, store, source, server, model)
        return chosen

    def _written(self, file: Path, store: Path, source: Path, server: Simulator, model: Mapping[str, Any]) -> None:
        teacher = {"name": "teacher", "model": "teacher", "base_url": server.base_url, "simulated": True}
        teacher |= {"concurrency": IN_FLIGHT, "max_tokens": 512, **model}
        changes = {"match": {"k": 1}, "teacher": teacher}
        file.write_text(
            material.settings(store.as_uri(), source, server.base_url, **changes).model_dump_json(), "utf-8"
        )


def _rate(server: Simulator) -> Result:
    """The server's view: useful calls a second, the share answered with 429, replies by status, most in flight."""
    traffic = running.stats(server.url)["traffic"]
    replies: dict[str, int] = traffic["statuses"]
    seconds = traffic["last_reply"] - traffic["first_arrival"]
    return {
        "rate": replies.get("200", 0) / seconds,
        "busy": replies.get("429", 0) / sum(replies.values()),
        "replies": replies,
        "in_flight": traffic["in_flight_max"],
    }


def _middle(results: Sequence[Result]) -> Result:
    """The result with the median rate."""
    return sorted(results, key=lambda result: float(result["rate"]))[len(results) // 2]


def speed(bench: Bench) -> None:
    """Compare with a bare aiohttp loop, and with a simple loop over the official client."""
    with bench.server() as server:
        ours, aiohttp_loop, openai_loop = [], [], []
        for _ in range(ROUNDS):
            ours.append(bench.run(server, bench.calls))
            aiohttp_loop.append(bench.peer("aiohttp", server, bench.calls))
            openai_loop.append(bench.peer("openai", server, bench.calls))
        ours_median, aiohttp_median, openai_median = _middle(ours), _middle(aiohttp_loop), _middle(openai_loop)
        results = {"ours": ours_median, "aiohttp": aiohttp_median, "openai": openai_median}
        cpu = {name: round(1000 * result["cpu"] / bench.calls, 3) for name, result in results.items()}
        bench.add(
            "of_ideal",
            ours_median["rate"] / IDEAL,
            0.93,
            calls=bench.calls,
            aiohttp=round(aiohttp_median["rate"] / IDEAL, 4),
            of_aiohttp=round(ours_median["rate"] / aiohttp_median["rate"], 4),
            of_aiohttp_goal=0.98,
            rounds=[round(result["rate"] / IDEAL, 4) for result in ours],
            most_in_flight=ours_median["in_flight"],
        )
        bench.add("cpu", cpu["ours"] / cpu["openai"], 1.0, "lower", cpu_s_per_1000=cpu)
        whole = bench.run(server, bench.many)
        bench.add(
            "whole_run",
            bench.many / whole["wall"] / IDEAL,
            0.85,
            calls=bench.many,
            seconds=round(whole["wall"], 2),
            cpu_s_per_1000=round(1000 * whole["cpu"] / bench.many, 3),
        )


def sending(bench: Bench) -> None:
    """Compare the cost of sending a request, without the rest of the gateway, with the official client's."""
    with bench.server(latency=0) as server:
        cpu_us = running.process("benchmarks.sending", server.base_url, str(bench.calls))
        bench.add("sending", cpu_us["ours"] / cpu_us["openai over aiohttp"], 1.0, "lower", cpu_us_a_call=cpu_us)


def peers(bench: Bench) -> None:
    """Compare with other tools on the same work."""
    for name in ("distilabel", "curator", "datadesigner"):
        with bench.server() as server:
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(bench.run(server, bench.calls))
                theirs.append(bench.peer(name, server, bench.calls))
            ours_median, their_median = _middle(ours), _middle(theirs)
            bench.add(
                f"vs_{name}",
                ours_median["rate"] / their_median["rate"],
                1.0,
                calls=bench.calls,
                calls_a_second=[round(ours_median["rate"], 1), round(their_median["rate"], 1)],
                cpu_s_per_1000=[round(1000 * each["cpu"] / bench.calls, 2) for each in (ours_median, their_median)],
                lost=their_median["lost"],
            )


LIMITS = {
    "16 in flight": (16 / LATENCY, "limits.concurrency=16"),
    "100 a second": (100.0, "limits.requests_per_second=100"),
}


def limits(bench: Bench) -> None:
    """Measure the rate under limits that only the server knows."""
    by_limit = {}
    for name, (most, option) in LIMITS.items():
        with bench.server(option, "limits.headers=false") as server:
            result = bench.run(server, bench.calls)
            by_limit[name] = {
                "of_limit": round(result["rate"] / most, 4),
                "busy": round(result["busy"], 4),
                "lost": bench.calls - result["replies"].get("200", 0),
                "cpu_s_per_1000": round(1000 * result["cpu"] / bench.calls, 2),
            }
    bench.add(
        "ratelimited", min(each["of_limit"] for each in by_limit.values()), 0.95, calls=bench.calls, each=by_limit
    )
    bench.add("ratelimited_lost", max(each["lost"] for each in by_limit.values()), 0, "lower")
    bench.add("ratelimited_429", max(each["busy"] for each in by_limit.values()), 0.03, "lower")


def malformed(bench: Bench) -> None:
    """Measure calls and losses when replies are malformed, cut off or errors."""
    faults = ("faults.malformed=0.05", "faults.truncated=0.02", "faults.server_error=0.02")
    with bench.server(*faults) as server:
        result = bench.run(server, bench.calls)
        asked = sum(result["replies"].values())
        bench.add("malformed_lost", result["result"]["malformed"], 0, "lower", calls=bench.calls)
        faults = sum(running.stats(server.url)["faults"].values())
        needed = round(asked / (bench.calls + faults), 4)  # each fault needs a call more
        bench.add(
            "malformed_calls", asked / bench.calls, 1.1, "lower", sent=asked, of_what_faults_need=needed, faults=faults
        )


def memory(bench: Bench) -> None:
    """Compare peak memory at ten times the calls."""
    with bench.server() as server:
        few, many = (bench.run(server, calls)["peak"] for calls in (bench.many // 10, bench.many))
        bench.add(
            "memory",
            many / few,
            1.1,
            "lower",
            calls=[bench.many // 10, bench.many],
            megabytes=[round(few / 1e6), round(many / 1e6)],
        )


FIGURES: Mapping[str, Callable[[Bench], None]] = {
    figure.__name__: figure for figure in (speed, sending, limits, malformed, memory, peers)
}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    with running.folder("gateway", FIGURES, chosen) as folder:
        running.measure(FIGURES, chosen, Bench(folder, Book("gateway"), running.scale()))


if __name__ == "__main__":
    main(*sys.argv[1:])
