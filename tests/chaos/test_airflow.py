"""A real Airflow while its tasks, its scheduler, its workers and the servers behind them die: three instants each.

One Airflow and one store; for each kind of death a new source, whose run meets it while it filters, writes and votes.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from e2e.galaxies import Models

from chaos.table import Outcome, Table
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.airflow_stack import AirflowStack, dag_ids
from taskgalaxy_ops.demo.conductor import Conductor
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.airflow import provision
from taskgalaxy_ops.operations.airflow.client import AirflowClient
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.release.publish import publish, published
from taskgalaxy_ops.settings import load_settings, parse_settings
from taskgalaxy_ops.sources.builtin import build
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

pytestmark = pytest.mark.chaos

STAGES = ("filter", "write", "vote")
IMAGES = 4  # a source
UNITS, AT_ONCE = 2, 2  # of a request; requests of a model at once
SECONDS = 600.0  # that a run may take with three deaths in it
_SEEDS = """
- colour~colour of things~object colour identification
- detection & localisation~object localisation
- shapes & patterns~shape recognition~shape colour identification
- shapes & patterns~shape recognition~shape position
- shapes & patterns~shape recognition~shape naming
- spatial relations~position in the image~main object position
- spatial relations~position in the image~quadrant of object
- spatial relations~position in the image~object centring
"""


@dataclass
class Ground:
    """What the tests share."""

    stack: AirflowStack
    client: AirflowClient
    workspace: Workspace
    alone: Workspace  # another store, which nothing happens to
    server: SeaweedFS
    models: Models
    sources: Path

    def running(self, source: str, stage: str) -> dict[str, Any] | None:
        """The source's task of this stage, if it is at work."""
        for run in self.client.runs("galaxy_generate", state="running"):
            if run["partition_key"] == source:
                for task in self.client.tasks("galaxy_generate", run["dag_run_id"]):
                    if task["task_id"].endswith(f".{stage}") and task["state"] == "running" and task["pid"]:
                        return task
        return None

    def kept(self) -> set[str]:
        """The ids of all replies in the journals."""
        return {
            reply["raw"]["id"]
            for shard in self.workspace.registry.shards()
            for reply in Journal(self.workspace.store, shard.id).replies()
            if "id" in reply["raw"]
        }


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, served: Models) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("chaos airflow")
    with contextlib.ExitStack() as stop:
        # Servers of its own: they die and come back.
        server = stop.enter_context(SeaweedFS(folder / "servers"))
        models = stop.enter_context(Models(folder / "servers"))
        (folder / "seeds.yaml").write_text(_SEEDS, "utf-8")
        shapes = sorted(build("shapes", folder / "shapes", IMAGES * len(DEATHS)).rglob("*.png"))
        for number, name in enumerate(DEATHS):
            (folder / "sources" / name).mkdir(parents=True)
            for path in shapes[number * IMAGES : (number + 1) * IMAGES]:
                shutil.copy(path, folder / "sources" / name)

        def raw(store: str, base_url: str) -> dict[str, Any]:
            def model(name: str) -> dict[str, Any]:
                return {"name": name, "base_url": base_url, "model": name, "simulated": True, "concurrency": AT_ONCE}

            return {
                "store": f"s3://{server.bucket}/{store}",
                "ingest": {"shard_images": IMAGES},
                "taxonomy": {"seeds": str(folder / "seeds.yaml")},
                "match": {"k": 6},
                "teacher": model("sim-teacher"),
                "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
                "run": {"lease_seconds": 3, "units_a_request": UNITS},
                "airflow": {
                    "lanes": 1,
                    "retries": 8,
                    "retry_seconds": 1,
                    "schedules": {"watch": None, "upkeep": None},
                },
            }

        file = folder / "taskgalaxy.yaml"
        file.write_text(yaml.safe_dump(raw("airflow", models.base_url)), "utf-8")
        stack = AirflowStack(folder, file)
        stop.callback(stack.stop, grace=3)
        stack.start()
        client = stack.client()
        provision.apply(client, load_settings(file), server.environment)
        stack.wait_for_dags(dag_ids())
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            alone = {
                **raw("alone", served.base_url),
                "sources": {name: {"location": str(folder / "sources" / name)} for name in DEATHS},
            }
            yield Ground(
                stack,
                client,
                Workspace.open(load_settings(file)),
                Workspace.open(parse_settings(alone)),
                server,
                models,
                folder / "sources",
            )


def kill_task(ground: Ground, task: dict[str, Any]) -> None:
    """The task's own process, not the one that minds it."""
    for child in psutil.Process(task["pid"]).children():
        child.kill()


def kill_worker(ground: Ground, task: dict[str, Any]) -> None:
    """As a machine that loses power: the task and whoever minds it."""
    process = psutil.Process(task["pid"])
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def kill_scheduler(ground: Ground, task: dict[str, Any]) -> None:
    """The scheduler alone: its workers live on, and the loop that minds it starts it again."""
    (scheduler,) = (part for part in ground.stack.parts if part.name == "airflow-scheduler")
    assert scheduler.pid is not None
    for child in psutil.Process(scheduler.pid).children():
        child.kill()


def restart_store(ground: Ground, task: dict[str, Any]) -> None:
    ground.server.stop(grace=0)
    ground.server.start()


def restart_models(ground: Ground, task: dict[str, Any]) -> None:
    ground.models.kill()
    ground.models.start()
    ground.models.control(latency=LATENCY)


LATENCY = 1.0  # seconds that a reply takes while somebody is about to die
DEATHS: dict[str, Callable[[Ground, dict[str, Any]], None]] = {
    "killed task": kill_task,
    "killed worker": kill_worker,
    "killed scheduler": kill_scheduler,
    "S3 server killed, started again": restart_store,
    "models killed, started again": restart_models,
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_run_with_three_deaths(death: str, ground: Ground, table: Table) -> None:
    before = {each["unit"] for each in ground.models.stats()["asked_again"]}
    ground.models.control(latency=LATENCY)
    waits: dict[str, tuple[float, int]] = {}
    ground.client.trigger("galaxy_ingest", {"name": death, "location": str(ground.sources / death)})
    for stage in STAGES:
        asked = ground.models.stats()["units"]["by_stage"].get(stage, 0)
        victim = wait(lambda stage=stage: ground.running(death, stage))
        wait(lambda stage=stage, asked=asked: ground.models.stats()["units"]["by_stage"].get(stage, 0) > asked)
        struck = time.monotonic()
        DEATHS[death](ground, victim)
        waits[stage] = (struck, len(twice(ground, before)))
    ground.models.control(latency=0)
    Conductor(ground.client, ground.workspace).settle(SECONDS)
    ended = time.monotonic()

    assert RunResults(ground.workspace).pending == 0
    assert ground.client.runs("galaxy_generate")[-1]["state"] == "success"
    assert verify(ground.workspace).damage == []
    assert [each.key for each in ground.workspace.store.list("probes/")] == [keys.PROBE]
    again = twice(ground, before)
    # In flight at an instant: the teacher's requests, or each judge's; and what replied within the last second.
    unflushed = 2 * AT_ONCE * UNITS * len(ground.workspace.settings.judges)
    assert len(again) <= len(STAGES) * unflushed
    assert all(times <= 1 + len(STAGES) for times in again.values())
    pipeline.ingest(ground.alone, death)
    assert pipeline.generate(ground.alone).pending == 0
    undisturbed, found = publish(ground.alone).release, published(ground.workspace)[-1]
    lost = undisturbed.samples - found.samples
    for number, stage in enumerate(STAGES):
        until = waits[STAGES[number + 1]][0] if number + 1 < len(STAGES) else ended
        count = (waits[STAGES[number + 1]][1] if number + 1 < len(STAGES) else len(again)) - waits[stage][1]
        table.add(Outcome("Airflow", death, stage, lost, count, until - waits[stage][0]))
    assert (found.content, found.manifest_sha256) == (undisturbed.content, undisturbed.manifest_sha256)


def twice(ground: Ground, before: set[str]) -> dict[str, int]:
    """Units that were asked more than once, and how often."""
    stats = ground.models.stats()
    return {each["unit"]: each["asked"] for each in stats["asked_again"] if each["unit"] not in before}


def wait(found: Callable[[], Any], seconds: float = 300) -> Any:
    """What ``found`` gives once it gives something."""
    give_up = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < give_up, f"nothing in {seconds} s"
        time.sleep(0.3)
    return value
