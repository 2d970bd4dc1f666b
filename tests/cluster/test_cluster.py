"""The composed stack, run natively: a source from its registration to a release, while a worker is killed."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.composed import Cluster
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.airflow.client import AirflowClient
from taskgalaxy_ops.operations.verify import verify
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.workspace import Workspace

pytestmark = pytest.mark.cluster

IMAGES, LANES, CONCURRENCY = 18, 16, 4
LATENCY = 6.0  # seconds a reply while the kill is prepared: requests are in flight then
SECONDS = 900.0  # for the whole flow, on a machine that has other things to do; four minutes on two quiet cores
# On top of the compose file: what a kill left "running" is noticed in half a minute, not in five.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
}


def raw_settings(base_url: str, store: str) -> dict[str, Any]:
    def model(name: str) -> dict[str, Any]:
        price = {"list_price": {"input": 2.5, "output": 10}}
        return {"name": name, "base_url": base_url, "model": name, "simulated": True, "concurrency": 4, **price}

    return {
        "store": store,
        "sources": {"shapes": {"location": "builtin:shapes", "limit": IMAGES}},
        "ingest": {"shard_images": 1},
        "match": {"k": 32},
        "write": {"variants": ["plain", "chain_of_thought"]},
        "teacher": model("sim-teacher"),
        "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
        "run": {"units_a_request": 4, "lease_seconds": 10, "block_calls": 4},
        "budget": {"max_cost": None, "max_calls": None},
        "airflow": {
            "lanes": LANES,
            "retries": 4,
            "retry_seconds": 3,
            "schedules": {"watch": None, "upkeep": None},
        },
    }


@dataclass
class Stack:
    cluster: Cluster
    client: AirflowClient
    settings: Settings

    def simulator(self, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.cluster.address('simulator', '8009')}/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
        return found


@pytest.fixture
def terminated() -> Iterator[None]:
    """SIGTERM ends the test as Ctrl-C does: with all that was started."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, terminated: None) -> Iterator[Stack]:
    for name in list(os.environ):
        if name.startswith("AIRFLOW"):
            monkeypatch.delenv(name)
    folder = Path(tempfile.mkdtemp(prefix="taskgalaxy-cluster-"))
    folder.chmod(0o711)  # Postgres runs as another user
    keys = {"access": secrets.token_hex(10), "secret": secrets.token_hex(20)}
    variables = {
        "POSTGRES_PASSWORD": secrets.token_hex(12),
        "REDIS_PASSWORD": secrets.token_hex(12),
        "AIRFLOW_PASSWORD": secrets.token_hex(12),
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW_SECRET_KEY": secrets.token_hex(32),
        "S3_ACCESS_KEY": keys["access"],
        "S3_SECRET_KEY": keys["secret"],
        "TASKGALAXY_SETTINGS_FILE": str(folder / "taskgalaxy.yaml"),
        "MODELS_CONCURRENCY": str(CONCURRENCY),
        "ENCODERS_CONCURRENCY": "2",
    }
    began = time.monotonic()
    cluster = Cluster(folder, variables, profiles=["simulator"], more={"*": IMPATIENT})
    base_url = cluster.native("http://simulator:8009/v1", cluster.services["simulator"])
    raw = raw_settings(base_url, "s3://taskgalaxy/galaxy")
    (folder / "taskgalaxy.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    try:
        with cluster:
            print(f"cluster up: {time.monotonic() - began:.0f} s")
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", cluster.address("seaweedfs", "8333"))
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["access"])
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["secret"])
            client = AirflowClient(cluster.address("api-server", "8080"), "admin", variables["AIRFLOW_PASSWORD"])
            yield Stack(cluster, client, parse_settings(raw))
            assert len(cluster.left()) > len(cluster.services) - 2, "the cluster does not know its processes"
        assert cluster.left() == [], "something of the cluster still runs"
    finally:
        kept = Path("build") / "cluster-logs"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for log in folder.glob("*.log"):
            shutil.copy(log, kept)
        shutil.rmtree(folder, ignore_errors=True)


def wait(what: str, look: Callable[[], Any], give_up: float, *, every: float = 1.0) -> Any:
    """What ``look`` gives as soon as it gives something."""
    while not (found := look()):
        assert time.monotonic() < give_up, f"{what}: not in time"
        time.sleep(every)
    return found


def test_a_killed_worker_loses_nothing(stack: Stack) -> None:
    client, cluster = stack.client, stack.cluster
    give_up = time.monotonic() + SECONDS

    def one_run(dag: str) -> dict[str, Any] | None:
        return next(iter(client.runs(dag)), None)

    wait("the DAGs", lambda: {"galaxy_ingest", "galaxy_generate", "galaxy_release"} <= set(client.dags()), give_up)
    workers = [name for name in cluster.services if name.startswith("worker-")]
    assert len(workers) == 2
    began = time.monotonic()
    client.trigger("galaxy_ingest", {"name": "shapes"})
    run = wait("the announced run", lambda: one_run("galaxy_generate"), give_up)
    assert run["partition_key"] == "shapes"
    at_once = 0

    def votes() -> Counter[str]:
        nonlocal at_once
        tasks = client.tasks("galaxy_generate", run["dag_run_id"])
        at_once = max(at_once, sum(task["state"] == "running" for task in tasks))
        failed = [task for task in tasks if task["state"] == "failed"]
        assert not failed, [(task["task_id"], client.log(task)[-5:]) for task in failed]
        return Counter(task["state"] for task in tasks if task["task_id"].endswith(".vote"))

    def voted() -> int:
        return int(stack.simulator("stats")["units"]["by_stage"].get("vote", 0))

    def middle() -> bool:
        states = votes()
        assert states["success"] < LANES, "the votes were over before the kill"
        return states["success"] >= 3 and states["running"] >= 2 and voted() > 0

    wait("the middle of the votes", middle, give_up)
    stack.simulator("control", {"latency": LATENCY})
    before = voted()
    # The first reply of a judge: the next judge is being asked, and other lanes wait for their first.
    wait("votes in flight", lambda: voted() > before, give_up, every=0.05)
    victim = cluster.services["worker-models"]
    victim.kill()
    killed_at = time.monotonic()
    states = votes()
    assert 0 < states["success"] < LANES, f"killed at the wrong moment: {states}"
    assert victim.restarted, "the compose file does not start a killed worker again"
    victim.start()
    stack.simulator("control", {"latency": 0})

    def ended(dag: str) -> Any:
        votes()
        found = one_run(dag)
        return found if found and found["state"] in {"success", "failed"} else None

    run = wait("the run's end", lambda: ended("galaxy_generate"), give_up)
    tasks = client.tasks("galaxy_generate", run["dag_run_id"])
    assert run["state"] == "success", Counter((task["task_id"], task["state"]) for task in tasks)
    taken = time.monotonic() - began
    release_run = wait("the release", lambda: ended("galaxy_release"), give_up)
    assert release_run["state"] == "success"

    assert sum(task["task_id"].endswith(".vote") for task in tasks) == LANES
    hosts = Counter(task["queue"] for task in tasks)
    assert hosts["encoders"] == LANES + 1 and hosts["models"] == 3 * LANES
    retried = [task for task in tasks if task["try_number"] > 1]
    assert retried, "the kill hit no task"
    assert all(task["queue"] == "models" for task in retried), "the other worker's tasks were not to be disturbed"

    stats = stack.simulator("stats")
    workspace = Workspace.open(stack.settings)
    results = RunResults(workspace)
    assert results.pending == 0
    for counts in results.funnel:
        assert counts.units_in == counts.units_out + sum(counts.rejects.values()) + counts.pending
    assert not verify(workspace).damage
    replies = [reply for shard in workspace.registry.shards() for reply in Journal(workspace.store, shard.id).replies()]
    units = [unit for reply in replies for unit in reply["units"]]
    asked = len(units)
    assert asked == len(set(units)), "the journals hold a unit twice"
    assert stats["units"]["distinct"] == asked
    again = stats["asked_again"]
    assert all(each["asked"] == 2 for each in again), "a unit was asked more than twice"
    # A killed task loses its requests in flight, and the judge's before them whose replies it had not flushed.
    assert again, "nothing was in flight when the worker was killed"
    assert {each["stage"] for each in again} <= {task["task_id"].rpartition(".")[2] for task in retried}
    settings = stack.settings
    assert len(again) <= len(retried) * 2 * settings.teacher.concurrency * settings.run.units_a_request

    release = publish.published(workspace)[-1]
    assert not release.partial and release.samples > 0
    calm = stack.settings.model_copy(update={"store": f"{stack.settings.store}-undisturbed"})
    undisturbed = Workspace.open(calm)
    pipeline.ingest(undisturbed, "shapes")
    assert not pipeline.generate(undisturbed).pending
    assert publish.publish(undisturbed).release.content == release.content

    print(
        f"cluster: {LANES} lanes on {len(workers)} Celery workers, one killed -9: {taken:.0f} s "
        f"({killed_at - began:.0f} s to the kill), {len(tasks)} tasks, at most {at_once} at once, {len(retried)} tried "
        f"again, {asked} units asked, {len(again)} of them twice, {release.samples} samples",
        file=sys.stderr,
    )
