"""A case: a worker whose run is spoiled, a clean run behind it, and what must hold then."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from chaos.between import Between, Fault, Operation
from chaos.worker import Orders, work
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.release.publish import Published, published
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.storage import connect, keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

# The longest that a worker may take, whatever is done to it: what takes longer hangs.
BOUND_SECONDS = 600.0
# What an error's advice begins with.
_ADVICE = re.compile(r"\b(Run|run again|Check|Wait|Free|Set|set this|Raise|Name) ")
_CONTEXT = multiprocessing.get_context("forkserver")
# All that a run imports, once: a worker is a fork, and costs no second of imports.
_CONTEXT.set_forkserver_preload(
    [
        *("__main__", "chaos.worker", "boto3.s3.inject", "openai.resources.chat.completions", "httpcore2"),
        *("openai.lib.streaming.chat", "anyio._backends._asyncio", "pandas", "pyarrow.dataset"),
        *("pyarrow.pandas_compat", "numpy.random", "PIL.PngImagePlugin", "PIL.JpegImagePlugin"),
    ]
)


@dataclass(frozen=True, slots=True)
class Universe:
    """What all cases share: the servers, the images, and the release of the undisturbed run."""

    server: SeaweedFS
    models: str
    images: Path
    seeds: Path
    encoder: Path
    folder: Path

    def settings(self, name: str, between: Between, store: str = "", **model: Any) -> Settings:
        """Of one worker; ``store`` other than in the server, and more fields of all models."""

        def one(called: str) -> dict[str, Any]:
            own = {"name": called, "model": called, "base_url": f"{between.url}/models/v1", "simulated": True}
            return {**own, "concurrency": 2, "timeout_seconds": 30, **model}

        raw: dict[str, Any] = {
            "store": store or f"s3://{self.server.bucket}/chaos/{name}",
            "s3": {"endpoint_url": between.url},
            "sources": {"few": {"location": str(self.images)}},
            "ingest": {"shard_images": 2},
            "taxonomy": {"seeds": str(self.seeds)},
            "match": {"k": 2},
            "teacher": one("sim-teacher"),
            "judges": [one(f"sim-judge-{letter}") for letter in "abc"],
            "run": {
                "lease_seconds": 6,
                "units_a_request": 2,
                "batch": {"poll_seconds": 0.2, "lookup_seconds": 0, "max_requests": 2},
            },
        }
        return parse_settings(raw)

    def workspace(self, name: str, store: str = "") -> Workspace:
        """The case's store, with nothing in between."""
        direct = Between(self.server.url, self.models, url=self.server.url)
        settings = self.settings(name, direct, store)
        return Workspace(settings, connect(settings.store, **({} if store else self.server.s3_options)))


@dataclass(slots=True)
class Worker:
    """A worker process behind its proxy."""

    between: Between
    orders: Orders
    process: ForkServerProcess
    began: float
    seconds: float = 0.0
    code: int | None = None
    started: threading.Event = field(default_factory=threading.Event)

    def strike(self, how: str) -> None:
        """Kill or stop it."""
        self.started.wait()
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)

    def go_on(self) -> None:
        """Wake it, if it is there: a run may have fewer operations than the one that was counted."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)

    def wait(self) -> int:
        """Its exit code. AssertionError where it hangs."""
        self.process.join(BOUND_SECONDS)
        self.seconds = time.monotonic() - self.began
        self.code = self.process.exitcode
        if self.code is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it hangs: nothing in {BOUND_SECONDS:.0f} s. It said:\n{self.said}")
        return self.code

    @property
    def said(self) -> str:
        return self.orders.said.read_text("utf-8", "replace") if self.orders.said.exists() else ""


@dataclass
class Case:
    """One store, its workers one after another, and what they came to."""

    universe: Universe
    name: str
    in_folder: bool = False  # the store, and not in S3
    model: Mapping[str, Any] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)  # units that may be paid for twice

    @property
    def folder(self) -> Path:
        return self.universe.folder / self.name

    @property
    def store(self) -> str:
        return str(self.folder / "store") if self.in_folder else ""

    @contextmanager
    def worker(self, fault: Fault | None = None, *, latency: float = 0, **orders: Any) -> Iterator[Worker]:
        """A worker, at work; it is dead when the block ends. ``latency``: seconds that each model's reply takes."""
        # A batch is looked for where it was submitted.
        port = urlsplit(self.workers[0].between.url).port if self.workers and self.model.get("mode") == "batch" else 0
        between = Between(self.universe.server.url, self.universe.models, fault, latency, port or 0)
        with between.open():
            folder = self.folder / f"worker {len(self.workers)}"
            (folder / "tmp").mkdir(parents=True)
            file = folder / "settings.yaml"
            settings = self.universe.settings(self.name, between, self.store, **self.model)
            file.write_text(yaml.safe_dump(settings.model_dump(mode="json")), "utf-8")
            told = Orders(file, between.url, self.universe.encoder, folder, self.universe.server.environment, **orders)
            process = _CONTEXT.Process(target=work, args=(told,), daemon=True)
            worker = Worker(between, told, process, time.monotonic())
            between.strike = worker.strike
            self.workers.append(worker)
            process.start()
            worker.started.set()
            try:
                yield worker
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.join()

    @cached_property
    def workspace(self) -> Workspace:
        """The store, with nothing in between."""
        return self.universe.workspace(self.name, self.store)

    def kept(self) -> set[str]:
        """The ids of the replies in the journals."""
        workspace = self.workspace
        return {
            reply["raw"]["id"]
            for shard in workspace.registry.shards()
            for reply in Journal(workspace.store, shard.id).replies()
            if "id" in reply["raw"]  # a canary that was not served has none
        }

    def sound(self) -> None:
        """No marker, log or release names what is not there, or is not what it should be."""
        found = verify(self.workspace)
        assert not found.damage, found.damage

    def requests(self) -> list[Operation]:
        """What models served, in order of workers."""
        return [operation for worker in self.workers for operation in worker.between.paid()]

    def paid_twice(self) -> Counter[str]:
        """Units that models answered more than once, and how often beyond the first."""
        asked: Counter[str] = Counter()
        for operation in self.requests():
            for unit in operation.units:
                asked[unit] += operation.served
        return Counter({unit: times - 1 for unit, times in asked.items() if times > 1})

    def allow(self, worker: Worker, kept: set[str]) -> None:
        """What a worker had asked may be asked again where its reply is not among the ``kept``, or was spoiled.

        Of what went by batch nothing may.
        """
        for operation in worker.between.paid():
            if operation.kind == "model" and (operation.reply not in kept or operation.spoiled):
                self.allowed.update(operation.units)

    def finish(self, expected: Published) -> None:
        """A clean run, and all that must hold behind it."""
        for _ in range(3):
            with self.worker() as last:
                if last.wait() != 3 or "the lease ran out" not in last.said:  # as it may where a machine is very busy
                    break
        assert last.code == 0, f"it ended with {last.code}:\n{last.said}"
        self.sound()
        twice = set(self.paid_twice())
        assert twice <= self.allowed, f"{len(twice - self.allowed)} units were paid for twice that were kept"
        workspace = self.workspace
        found, *more = published(workspace)
        assert not more, f"released more than once: {more}"
        same = (found.content, found.manifest_sha256) == (expected.content, expected.manifest_sha256)
        assert same, f"{found} is not the undisturbed {expected}"
        left = [path for worker in self.workers for path in worker.orders.temporary.iterdir()]
        left += (Path(self.store) / ".tmp").iterdir() if self.in_folder else ()
        assert not left, f"temporary files are left: {left}"
        probes = [listed.key for listed in workspace.store.list("probes/")]
        assert probes == [keys.PROBE], f"probes are left: {probes}"


def advises(worker: Worker) -> None:
    """It ended with an error that a person can act on."""
    said = worker.said
    assert "Traceback" not in said, said
    assert _ADVICE.search(said), said
