"""A data engineer's days in a real Airflow: forms, announcements, schedules, approval, backfill, and a killed lane.

One Airflow, one store, and one order of events: each test goes on where the former ended, as days do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import yaml
from PIL import Image, ImageOps

from e2e.browsing import browser
from e2e.galaxies import Models
from taskgalaxy_ops.demo.airflow_stack import USER, AirflowStack, dag_ids
from taskgalaxy_ops.demo.conductor import Conductor
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.generation.lanes import shards_of
from taskgalaxy_ops.generation.results import RunResults
from taskgalaxy_ops.operations.airflow import announcements, provision
from taskgalaxy_ops.operations.airflow.client import AirflowClient
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.settings import load_settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.taxonomy.expand import Growth, expand
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import struck_out
from taskgalaxy_ops.workspace import Workspace

K = 12
PATIENCE = 600  # seconds after which a wait is over: many times what it takes, on a machine that does nothing else
CANARY = "sk-canary-7f3a9c51d2"  # the models' key: to be found nowhere but in Airflow's connections


@dataclass
class Days:
    """What the tests share."""

    stack: AirflowStack
    client: AirflowClient
    workspace: Workspace
    models: Models
    folder: Path  # of the sources
    settings: Path
    conductor: Conductor  # one for all days: runs that are over are not asked about again

    def settled(self) -> None:
        """Wait until nothing runs and nothing that was announced waits."""
        self.conductor.settle(PATIENCE)

    def log_in(self, page: Any) -> None:
        """To Airflow's home."""
        page.goto(self.stack.url)
        page.fill("input[name=username]", USER)
        page.fill("input[name=password]", self.stack.password)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "login" not in url)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return self.client.runs(dag)

    def last(self, dag: str) -> dict[str, Any]:
        return self.client.runs(dag)[-1]

    def samples(self, version: int | None = None) -> list[dict[str, Any]]:
        """The rows of a release's LLaVA files, by default of the latest."""
        number = published(self.workspace)[-1].version if version is None else version
        listed = [each.key for each in self.workspace.store.list(keys.release(number))]
        files = [key for key in listed if key.endswith(".json") and "llava" in key]
        assert files, listed
        return [row for key in files for row in json.loads(self.workspace.store.get(key))]

    def asked(self) -> dict[str, int]:
        found: dict[str, int] = self.models.stats()["units"]["by_stage"]
        return dict(found)


@pytest.fixture(scope="module")
def days(
    tmp_path_factory: pytest.TempPathFactory, seaweedfs: SeaweedFS, served: Models, pictures: Path
) -> Iterator[Days]:
    folder = tmp_path_factory.mktemp("an airflow")
    sources = folder / "sources"
    for name in ("photos", "documents", "shapes"):
        shutil.copytree(pictures / name, sources / name)

    def model(name: str) -> dict[str, Any]:
        own = {"name": name, "base_url": served.base_url, "model": name}
        return {**own, "simulated": True, "api_key_env": "CANARY_KEY", "concurrency": 2}

    raw = {
        "store": f"s3://{seaweedfs.bucket}/airflow",
        "ingest": {"shard_images": 2},
        "match": {"k": K},
        "teacher": model("sim-teacher"),
        "judges": [model(f"sim-judge-{letter}") for letter in "abc"],
        "run": {"lease_seconds": 3, "units_a_request": 4},
        "airflow": {
            "lanes": 1,
            "retries": 3,
            "retry_seconds": 2,
            "schedules": {"watch": None, "upkeep": None},
        },
    }
    file = folder / "taskgalaxy.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    served.count_anew()
    environment = {**seaweedfs.environment, "CANARY_KEY": CANARY}
    former = {name: os.environ.get(name) for name in environment}
    stack = AirflowStack(folder, file)
    try:
        # Of the tests' own process: Airflow's get what they need as connections.
        for name in environment:
            os.environ.pop(name, None)
        stack.start()
        os.environ.update(environment)
        client = stack.client()
        provision.apply(client, load_settings(file), environment)
        stack.wait_for_dags(dag_ids())
        workspace = Workspace.open(load_settings(file))
        yield Days(stack, client, workspace, served, sources, file, Conductor(client, workspace))
    finally:
        stack.stop(grace=3)
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def test_a_source_by_the_form_in_a_browser(days: Days, tmp_path: Path) -> None:
    """Log in, fill in the form, trigger, wait: the release holds what the folder held."""
    with browser() as page:
        days.log_in(page)
        page.goto(f"{days.stack.url}/dags/galaxy_generate")
        page.get_by_role("button", name="Trigger").first.click()
        page.get_by_role("dialog").get_by_text("This field is required").first.wait_for()  # Sources
        assert page.get_by_role("dialog").get_by_role("button", name="Trigger").is_disabled()
        page.screenshot(path=tmp_path / "generate.png")
        page.goto(f"{days.stack.url}/dags/galaxy_ingest")
        page.get_by_role("button", name="Trigger").first.click()
        page.locator("#element_name").fill("shapes")
        page.locator("#element_location").fill(str(days.folder / "shapes"))
        page.locator("#element_licence").fill("CC0-1.0")
        page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
        page.wait_for_url("**/runs/**")
    days.settled()
    assert [run["partition_key"] for run in days.runs("galaxy_generate")] == ["shapes"]
    assert [days.last(dag)["note"] for dag in ("galaxy_ingest", "galaxy_generate")] == 2 * ["source shapes"]
    assert [one.version for one in published(days.workspace)] == [1]
    results = RunResults(days.workspace)
    assert results.pending == 0
    rows = days.samples()
    assert {row["id"] for row in rows} == {pair.pair for pair in results.samples} != set()
    assert {row["conversations"][1]["from"] for row in rows} == {"gpt"}
    claims = {claim.image: claim for claim in days.workspace.registry.claims()}
    assert {claim.source for claim in claims.values()} == {"shapes"}
    assert {pair.image for pair in results.samples} <= set(claims)


def test_a_second_source_later_asks_only_its_units_once_its_plan_is_approved(days: Days, tmp_path: Path) -> None:
    before, generated = days.asked(), len(days.runs("galaxy_generate"))
    first = {row["id"] for row in days.samples(1)}
    form = {"name": "photos", "location": str(days.folder / "photos"), "then": "plan first"}
    run = days.client.trigger("galaxy_ingest", form)
    path = _asks(days, "galaxy_ingest", run, "plan")
    assert days.client.call("GET", path)["subject"] == "Run this source?"
    assert f"{3 * K} matches" in days.client.call("GET", path)["body"]
    with browser() as page:
        days.log_in(page)
        page.goto(days.stack.url + _required_action("galaxy_ingest", run, "plan"))
        _in_view(page.get_by_role("button", name="Approve"))
        page.screenshot(path=tmp_path / "plan first.png")
        assert page.get_by_text(f"{3 * K} matches").is_visible()
    assert (days.asked(), len(days.runs("galaxy_generate"))) == (before, generated)
    days.client.call("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})
    days.settled()
    assert days.asked()["filter"] - before["filter"] == 3 * K
    assert days.models.stats()["asked_again"] == []
    assert [one.version for one in published(days.workspace)] == [1, 2]
    second = {row["id"] for row in days.samples(2)}
    assert first < second
    sources = {claim.image: claim.source for claim in days.workspace.registry.claims()}
    assert {sources[pair.image] for pair in RunResults(days.workspace).samples} == {"shapes", "photos"}


def test_a_taxonomy_that_a_person_approved_is_announced_to_all_sources(days: Days, tmp_path: Path) -> None:
    run = days.client.trigger("galaxy_taxonomy", {"max_new": 6})
    path = _asks(days, "galaxy_taxonomy", run, "approve")
    asked = days.client.call("GET", path)
    proposal = TaxonomyStore(days.workspace).proposal(1)
    assert len(proposal.added) == 6
    assert f"**{len(proposal.added)} new nodes**" in asked["body"]
    offered = [node.path for node in proposal.added]
    assert asked["params"]["strike_out"]["schema"]["examples"] == offered
    assert len(TaxonomyStore(days.workspace).versions()) == 1  # nothing is published before somebody decides
    with browser() as page:
        days.log_in(page)
        page.goto(days.stack.url + _required_action("galaxy_taxonomy", run, "approve"))
        picture = page.locator("img[src*='/galaxy/images/']").first
        picture.wait_for()
        wait(lambda: picture.evaluate("each => each.naturalWidth") > 0)
        _in_view(page.get_by_role("button", name="Approve"))
        page.screenshot(path=tmp_path / "approval.png")
        page.goto(f"{days.stack.url}/galaxy/reports/proposal-1")
        assert "nearest existing task types" in page.locator("body").inner_text()
        assert page.locator("td img").first.evaluate("each => each.naturalWidth") > 0
        page.screenshot(path=tmp_path / "proposal.png")
    answer = {"chosen_options": ["Approve"], "params_input": {"strike_out": offered[:2]}}
    days.client.call("PATCH", path, answer)
    days.settled()
    assert days.client.run("galaxy_taxonomy", run)["state"] == "success"
    assert TaxonomyStore(days.workspace).version().nodes == struck_out(proposal.nodes, proposal.added, offered[:2])
    assert set(offered[2:]) <= {node.path for node in TaxonomyStore(days.workspace).version().nodes}
    last = announcements.announced(days.workspace)[-1]
    assert (last.reason, last.sources, last.open) == ("taxonomy", ["photos", "shapes"], [])
    assert sorted(each["partition_key"] for each in days.runs("galaxy_generate")[-2:]) == ["photos", "shapes"]
    assert days.models.stats()["asked_again"] == []


def test_a_rejected_taxonomy_is_not_published(days: Days) -> None:
    versions = len(TaxonomyStore(days.workspace).versions())
    run = days.client.trigger("galaxy_taxonomy", {"max_new": 2})
    path = _asks(days, "galaxy_taxonomy", run, "approve")
    days.client.call("PATCH", path, {"chosen_options": ["Reject"], "params_input": {}})
    days.settled()
    states = {task["task_id"]: task["state"] for task in days.client.tasks("galaxy_taxonomy", run)}
    assert (states["publish"], states["announce"]) == ("skipped", "skipped")
    taxonomy_store = TaxonomyStore(days.workspace)
    assert len(taxonomy_store.versions()) == versions
    rejected = {node.path for node in taxonomy_store.proposal(2).added}
    assert rejected <= set(taxonomy_store.refused())  # beside those that were struck out before
    again = expand(days.workspace, Growth(max_new=2), publish=False)
    assert {node.path for node in taxonomy_store.proposal(again.proposal).added}.isdisjoint(rejected)


def test_a_backfill_of_one_of_two_sources(days: Days) -> None:
    before, generated = days.asked(), len(days.runs("galaxy_generate"))
    releases = len(published(days.workspace))
    days.client.trigger("galaxy_backfill", {"sources": ["photos"], "dry_run": False})
    days.settled()
    assert [run["partition_key"] for run in days.runs("galaxy_generate")[generated:]] == ["photos"]
    assert days.last("galaxy_generate")["state"] == "success"
    assert days.asked() == before  # all of it was answered
    assert len(published(days.workspace)) == releases  # nothing changed: no release
    run = days.client.trigger("galaxy_backfill", {"sources": ["shapes"], "forecast": True})  # a dry run
    days.settled()
    assert len(days.runs("galaxy_generate")) == generated + 1
    assert days.asked() == before  # too much is answered for a probe
    tasks = {task["task_id"]: task for task in days.client.tasks("galaxy_backfill", run)}
    hrefs = []
    for task, button in (("plan", "Plan"), ("forecast", "Forecast")):
        links = f"dags/galaxy_backfill/dagRuns/{quote(run, safe='')}/taskInstances/{task}/links"
        hrefs.append(days.client.call("GET", links)["extra_links"][button])
        assert hrefs[-1] == f"/galaxy/reports/{days.client.xcom(tasks[task])['page']}"
    href, costs = hrefs
    with browser() as page:
        assert page.goto(days.stack.url + href).status == 401  # anonymous
        days.log_in(page)
        page.goto(days.stack.url + href)
        assert "shapes: 2 shards" in page.locator("body").inner_text()
        page.goto(days.stack.url + costs)
        assert "nothing is left to ask" in page.locator("body").inner_text()
        assert page.goto(f"{days.stack.url}/galaxy/reports/no-such-page").status == 404
        assert page.goto(f"{days.stack.url}/galaxy/reports/..%2F..%2Ftaskgalaxy.json").status in {404, 422}
        page.goto(f"{days.stack.url}/galaxy/")
        assert "photos" in page.locator("body").inner_text()


def test_a_killed_lane_cleared_in_the_ui_costs_what_was_in_flight(days: Days) -> None:
    before = days.models.stats()
    days.models.control(latency=0.5)
    days.client.trigger("galaxy_ingest", {"name": "documents", "location": str(days.folder / "documents")})
    try:
        victim = wait(lambda: _task(days, "documents", "filter", "running"), every=1.0)
        wait(lambda: days.models.stats()["requests"] >= before["requests"] + 8, every=0.2)
        _kill(victim["pid"])
        sent = days.asked()["filter"] - before["units"]["by_stage"]["filter"]
        kept = _journalled(days.workspace, "documents")
    finally:
        days.models.control(latency=0)
    run = victim["dag_run_id"]
    body = {
        "dry_run": False,
        "dag_run_id": run,
        "task_ids": [[victim["task_id"], victim["map_index"]]],
        "only_failed": False,
        "include_downstream": True,
    }
    days.client.call("POST", "dags/galaxy_generate/clearTaskInstances", body)
    days.settled()
    assert days.client.run("galaxy_generate", run)["state"] == "success"
    stats = days.models.stats()
    assert RunResults(days.workspace).pending == 0
    twice = [each for each in stats["asked_again"] if each not in before["asked_again"]]
    assert all(each["asked"] == 2 for each in twice)
    assert kept, "the kill came too early to show anything"
    # What was replied and not yet written; and two requests of four units in flight, which the server counts later.
    assert len(twice) <= sent - len(kept) + 2 * 4
    everything = _journalled(days.workspace, "documents")
    assert len(set(everything)) == len(everything)
    assert {claim.source for claim in days.workspace.registry.claims()} == {"documents", "photos", "shapes"}
    assert {row["id"] for row in days.samples()} == {pair.pair for pair in RunResults(days.workspace).samples}


def test_a_scheduled_watch_finds_nothing_and_then_a_file(days: Days) -> None:
    seen = len(days.runs("galaxy_watch"))
    generated = len(days.runs("galaxy_generate"))
    announced = announcements.seen(days.workspace)
    raw = yaml.safe_load(days.settings.read_text("utf-8"))
    raw["airflow"]["schedules"]["watch"] = "* * * * *"
    days.settings.write_text(yaml.safe_dump(raw), "utf-8")
    token = days.client.call("GET", "dags/galaxy_watch")["file_token"]
    days.client.call("PUT", f"parseDagFile/{token}")  # as the UI's button does; else it would be parsed in a while
    wait(lambda: sum(run["state"] == "success" for run in days.runs("galaxy_watch")) > seen)
    first = days.last("galaxy_watch")
    assert first["run_type"] == "scheduled"
    assert announcements.seen(days.workspace) == announced
    assert len(days.runs("galaxy_generate")) == generated  # nothing new: nothing runs downstream
    raw["teacher"]["mode"] = "batch"  # of the run that follows, for the next test
    raw["run"]["batch"] = {"poll_seconds": 1}
    days.settings.write_text(yaml.safe_dump(raw), "utf-8")
    days.models.control(batches={"seconds": 3600})
    (days.folder / "shapes" / "a new one.png").write_bytes(_another(days.folder))
    wait(lambda: announcements.seen(days.workspace) > announced)
    wait(lambda: days.last("galaxy_watch")["state"] == "success")
    days.client.call("PATCH", "dags/galaxy_watch", {"is_paused": True})
    wait(lambda: len(days.runs("galaxy_generate")) > generated)
    assert [run["partition_key"] for run in days.runs("galaxy_generate")[generated:]] == ["shapes"]
    files = {claim.file for claim in days.workspace.registry.claims() if claim.source == "shapes"}
    assert "a new one.png" in files


def test_a_lane_that_waits_for_a_batch_holds_no_slot(days: Days) -> None:
    """The run of that file: its teacher is asked by batch, and all of it is one run."""
    generate = days.last("galaxy_generate")["dag_run_id"]
    before = days.models.stats()["asked_again"]  # since the killed lane
    try:
        task = wait(lambda: _task(days, "shapes", "filter", "deferred"))
        pool = days.client.call("GET", f"pools/{task['pool']}")
        assert (pool["deferred_slots"], pool["occupied_slots"], pool["open_slots"]) == (1, 0, pool["slots"])
        assert RunResults(days.workspace).pending == K  # of the one new image
    finally:
        days.models.control(batches={"seconds": 0})
    days.settled()
    assert days.last("galaxy_generate")["dag_run_id"] == generate
    assert days.client.run("galaxy_generate", generate)["state"] == "success"
    assert not _tried_again(days, generate)
    assert RunResults(days.workspace).pending == 0
    assert days.models.stats()["asked_again"] == before


def test_a_model_that_dies_is_seen_and_one_that_is_back_is_asked_on(days: Days, tmp_path: Path) -> None:
    """Its stage is deferred, and says so wherever one looks; nobody clears anything."""
    raw = yaml.safe_load(days.settings.read_text("utf-8"))
    raw["teacher"]["mode"] = "chat"
    days.settings.write_text(yaml.safe_dump(raw), "utf-8")
    (days.folder / "shapes" / "one more.png").write_bytes(_another(days.folder, ImageOps.mirror))
    generated = len(days.runs("galaxy_generate"))
    with days.models.away():
        days.client.trigger("galaxy_ingest", {"name": "shapes"})
        wait(lambda: len(days.runs("galaxy_generate")) > generated)
        task = wait(lambda: _task(days, "shapes", "filter", "deferred"))
        took = time.time() - datetime.fromisoformat(task["start_date"]).timestamp()
        print(f"from the first request to a model that is dead to a sign in the UI: {took:.0f} s")
        note = days.client.run("galaxy_generate", task["dag_run_id"])["note"]
        assert note.startswith("source shapes\n\nfilter 1: sim-teacher has served nothing since ")
        with browser() as page:
            days.log_in(page)
            page.get_by_role("link", name="Galaxy").first.click()  # one
            frame = page.frame_locator("iframe[title=Galaxy]")
            frame.get_by_text("Models that serve nothing").wait_for()
            text = frame.locator("body").inner_text()
            assert "sim-teacher" in text.split("Models that serve nothing")[1].split("At work")[0]
            assert "filter 1: sim-teacher has served nothing since" in text
            page.screenshot(path=tmp_path / "galaxy.png", full_page=True)
            frame.get_by_role("link", name="source shapes").first.click()  # two
            frame.get_by_text("lane 1: ").first.wait_for()
            assert "deferred" in frame.locator("body").inner_text()
            page.screenshot(path=tmp_path / "a run that waits.png")
    days.settled()
    run = days.client.run("galaxy_generate", task["dag_run_id"])
    assert (run["state"], run["note"]) == ("success", "source shapes")
    assert not _tried_again(days, task["dag_run_id"])
    assert RunResults(days.workspace).pending == 0
    with browser() as page:
        days.log_in(page)
        page.get_by_role("link", name="Galaxy").first.click()
        frame = page.frame_locator("iframe[title=Galaxy]")
        sources = frame.locator("table", has=frame.get_by_text("latest run"))
        sources.get_by_role("link").first.click()  # a source's latest run: two clicks from Airflow's home
        frame.get_by_role("link", name="All runs of this DAG").click()  # and all of them: three
        frame.get_by_role("link", name="source photos").first.wait_for()
        latest = published(days.workspace)[-1]  # now: another may be made while the page is looked at
        wait(lambda: list(days.workspace.store.list(keys.report(f"release-{latest.name}"))))
        page.goto(days.stack.url)
        page.get_by_role("link", name="Galaxy").first.click()  # the contact sheet of the latest release: two
        frame = page.frame_locator("iframe[title=Galaxy]")
        frame.get_by_role("link", name=latest.name).click()
        frame.get_by_role("heading", name=f"TaskGalaxy {latest.name}").wait_for()


def test_keys_are_in_connections_alone(days: Days) -> None:
    """The models' key and the store's are nowhere in what Airflow and the store keep."""
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    connection = days.client.call("GET", "connections/galaxy_model_sim-teacher")
    assert connection["password"] in {None, "***"}
    searched = 0
    for path in days.stack.folder.rglob("*"):
        if path.is_file() and path.suffix in {".log", ".db", ".db-wal", ".yaml", ".json", ".cfg", ""}:
            raw = path.read_bytes()
            searched += 1
            for key in (CANARY, secret):
                assert key.encode() not in raw, f"{path} holds a key"
    assert searched > 20
    for listed in days.workspace.store.list(""):
        raw = days.workspace.store.get(listed.key)
        assert CANARY.encode() not in raw
        assert secret.encode() not in raw


def _asks(days: Days, dag: str, run: str, task: str) -> str:
    """Until the run asks a person, and the scheduler has noted that the asking task's process ended; the answer's path.

    Who answered before that would be asked again: the executor's report would meet a task that is queued anew.
    """
    wait(lambda: any(t["state"] == "awaiting_input" for t in days.client.tasks(dag, run)))
    noted = f"TaskInstance Finished: dag_id={dag}, task_id={task}, run_id={run},"
    wait(lambda: noted in (days.stack.folder / "airflow-scheduler.log").read_text("utf-8", "replace"))
    time.sleep(1)
    return f"dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances/{task}/-1/hitlDetails"


def _required_action(dag: str, run: str, task: str) -> str:
    """The path of the page on which a person answers."""
    return f"/dags/{dag}/runs/{quote(run, safe='')}/tasks/{task}/required_actions"


def _in_view(button: Any) -> None:
    """Nobody has to scroll for it."""
    button.wait_for()
    box, height = button.bounding_box(), button.page.viewport_size["height"]
    assert box["y"] + box["height"] <= height, box


def _journalled(workspace: Workspace, source: str) -> list[str]:
    """The units of every reply in the journals of a source's image shards."""
    found: list[str] = []
    for shard in shards_of(workspace, [source]):
        found += [unit for reply in Journal(workspace.store, shard.id).replies() for unit in reply["units"]]
    return found


def _another(folder: Path, turn: Callable[[Any], Any] = ImageOps.flip) -> bytes:
    """An image that no source holds."""
    out = BytesIO()
    with Image.open(sorted((folder / "shapes").glob("*.png"))[0]) as image:
        turn(image.convert("RGB")).save(out, "PNG")
    return out.getvalue()


def _task(days: Days, source: str, name: str, state: str) -> dict[str, Any] | None:
    """A task instance of this name and state in the source's run; its process is known."""
    for run in days.client.runs("galaxy_generate", state="running"):
        if run["partition_key"] == source:
            for task in days.client.tasks("galaxy_generate", run["dag_run_id"]):
                if task["task_id"].endswith(f".{name}") and task["state"] == state and task["pid"]:
                    return task
    return None


def _tried_again(days: Days, run: str) -> dict[str, Any]:
    """The tasks of a generate run that needed more than one try: how the first one ended."""
    path = f"dags/galaxy_generate/dagRuns/{quote(run, safe='')}"
    events = days.client.call("GET", f"eventLogs?dag_id=galaxy_generate&run_id={quote(run, safe='')}&limit=100")
    return {
        task["task_id"]: (
            [event["extra"] for event in events["event_logs"] if event["event"] == "state mismatch"],
            days.client.call("GET", f"{path}/taskInstances/{task['task_id']}/logs/1?map_index={task['map_index']}"),
        )
        for task in days.client.tasks("galaxy_generate", run)
        if task["try_number"] > 1
    }


def _kill(pid: int) -> None:
    """As a machine that loses power: the task's process and whoever minds it."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)


def wait(found: Callable[[], Any], every: float = 2.0) -> Any:
    """What ``found`` gives once it gives something; each look takes the API server some time, too."""
    give_up = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < give_up, f"nothing in {PATIENCE} s"
        time.sleep(every)
    return value
