"""`gateway.batch_duplicates`: units submitted twice over 30 kills of a worker at random instants.

    python -m benchmarks.batches [kills]

Each worker asks about its own image shard by batches, and is killed at a random instant of the time that a whole image
shard takes: while it uploads, submits, waits or collects. Then another worker continues the image shard. For one batch
in five the reply to its creation is lost, and a batch is listed only a second after its creation. The submitted units
are counted by the simulated models.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.figures import Book, Figure
from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.inference.batch_wait import until_one_ends
from taskgalaxy_ops.inference.gateway import Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.simulator.config import Batches, SimulatorConfig
from taskgalaxy_ops.simulator.serve import running
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

IMAGES = 12  # an image shard
_AT_ONCE = 5  # workers
_LONGEST = 120.0  # seconds: a worker that takes longer counts as hanging
_CONTEXT = multiprocessing.get_context("forkserver")
# The fork server imports these once, so that a worker, which is its fork, does not spend seconds on it.
_CONTEXT.set_forkserver_preload(
    ["__main__", "aiohttp", "openai.resources.batches", "openai.resources.chat.completions", "PIL.PngImagePlugin"]
)
_PROVIDER = Batches(seconds=0.5, lost_reply=0.2, list_lag=1)
_TYPES = ("dominant colour identification", "background colour identification", "colour share estimation")


def duplicates(folder: Path, *, kills: int = 30) -> tuple[int, dict[str, Any]]:
    """The number of units that were submitted twice, and details of the runs."""
    began = time.monotonic()
    with running(SimulatorConfig(batches=_PROVIDER)) as url:

        def start(shard: str) -> tuple[multiprocessing.process.BaseProcess, float]:
            ready = _CONTEXT.Event()
            worker = _CONTEXT.Process(target=_work, args=(folder, url, shard, ready), daemon=True)
            worker.start()
            if not ready.wait(_LONGEST):
                raise RuntimeError(f"{shard}: its worker did not begin")
            return worker, time.monotonic()

        def whole(shard: str) -> float:
            worker, at = start(shard)
            worker.join(_LONGEST)
            if worker.exitcode != 0:
                raise RuntimeError(f"{shard} could not be asked to the end in {_LONGEST:.0f} s")
            return time.monotonic() - at

        whole("to warm the server")
        takes = whole("whole")

        def mortal(name: str) -> int:
            """Run image shards until a worker was killed before its end; returns their number."""
            died, shards = False, 0
            while not died:
                shards += 1
                worker, _ = start(f"{name}-{shards}")
                worker.join(random.uniform(0, takes))
                died = worker.is_alive()
                worker.kill()
                worker.join()
                whole(f"{name}-{shards}")
            return shards

        names = [f"home-{number}" for number in range(kills)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            shards = 2 + sum(pool.map(mortal, names))
        with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=60) as reply:
            stats = json.load(reply)
    expected = shards * IMAGES * len(_TYPES)
    if stats["units"]["distinct"] != expected:
        raise RuntimeError(f"{stats['units']['distinct']} units were asked, not {expected}")
    twice = sum(unit["asked"] - 1 for unit in stats["asked_again"])
    detail = {"kills": kills, "units": expected, "batches": stats["batches"]["created"]}
    return twice, {**detail, "seconds_whole": round(takes, 2), "seconds": round(time.monotonic() - began)}


def _work(folder: Path, url: str, shard: str, ready: Any) -> None:
    workspace = Workspace.open(_settings(folder, url))
    template = filter_template("Say which of these task types fit the image.", workspace.settings.teacher)
    units = []
    for number in range(IMAGES):
        raw = io.BytesIO()
        colour = random.Random(f"{shard} {number}").randbytes(3)
        Image.new("RGB", (64, 64), tuple(colour)).save(raw, "PNG")
        image = sha256_hex(raw.getvalue())
        workspace.store.put_if_absent(keys.blob(image), raw.getvalue())
        units += [template.unit(image, {"task_type": f"colour~main colours~{name}"}) for name in _TYPES]
    ready.set()
    asyncio.run(_ask(workspace, shard, template, units))


async def _ask(workspace: Workspace, shard: str, template: RequestTemplate, units: Sequence[RequestItem]) -> None:
    gateway, run_budget = Gateway(), workspace.run_budget()
    left = True
    while left:
        asked = AskedShard(id=shard)
        async with InferenceSession(workspace.store, workspace.settings.run, gateway, run_budget, asked) as session:
            left = bool(
                await session.ask(lambda answers: [(template, [unit for unit in units if unit.key not in answers])])
            )
            waiting = session.waiting
        if gateway.usage.unavailable:
            raise RuntimeError(f"{shard}: {gateway.usage.unavailable}")
        if waiting:
            await until_one_ends(gateway, waiting, workspace.settings.run.batch, math.inf)
    await gateway.aclose()


def _settings(folder: Path, url: str) -> Settings:
    def model(name: str, mode: str) -> dict[str, Any]:
        return {"name": name, "base_url": url, "model": name, "simulated": True, "mode": mode, "image_side": 64}

    return parse_settings(
        {
            "store": f"file://{folder / 'store'}",
            "teacher": model("sim-teacher", "batch"),
            "judges": [model("sim-judge-a", "chat")],
            "budget": {"max_cost": None, "max_calls": None},
            "vote": {"quorum": 1},
            "run": {
                "lease_seconds": 3,
                "batch": {"poll_seconds": 0.2, "lookup_seconds": 5, "max_requests": 4},
            },
        }
    )


def main() -> None:
    """Measure and report the figure."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder:
        twice, detail = duplicates(Path(folder), kills=kills)
    Book("gateway").add(Figure("gateway.batch_duplicates", twice, 0, "lower", detail))


if __name__ == "__main__":
    main()
