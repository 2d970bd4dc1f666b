"""The DAGs as they are parsed: complete, documented, wired as written down here, and cheap to parse."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from dags.bag import bag, fresh, table
from dags.conftest import SETTINGS_FILE, write_settings
from taskgalaxy_ops.demo.airflow_stack import ROOT, dag_ids
from taskgalaxy_ops.generation.stages import STAGES
from taskgalaxy_ops.operations.airflow import provision
from taskgalaxy_ops.settings import EXAMPLE, QUESTION_FORMS, load_settings, offered_forms
from taskgalaxy_ops.sources.builtin import BUILTIN

REGISTERING = {
    "look": ["complete", "register"],
    "register": ["announce", "complete", "plan"],
    "plan": ["announce"],
    "announce": ["complete"],
    "complete": [],
}
EDGES = {
    "galaxy_backfill": {"plan": ["announce", "forecast"], "forecast": ["announce"], "announce": []},
    "galaxy_doctor": {"store": [], "models": [], "encoder": [], "machine": []},
    "galaxy_finetune": {"check": ["evaluate", "train"], "train": ["evaluate"], "evaluate": []},
    "galaxy_generate": {
        "lanes": [
            *("announce", "complete", "lane_of_shards.embed_match", "lane_of_shards.filter"),
            *("lane_of_shards.vote", "lane_of_shards.write"),
        ],
        "lane_of_shards.embed_match": ["lane_of_shards.filter", "lane_of_shards.vote", "lane_of_shards.write"],
        "lane_of_shards.filter": ["lane_of_shards.write"],
        "lane_of_shards.write": ["lane_of_shards.vote"],
        "lane_of_shards.vote": ["announce", "complete"],
        "announce": ["complete"],
        "complete": [],
    },
    "galaxy_ingest": REGISTERING,
    "galaxy_release": {"ready": ["release"], "release": ["announce"], "announce": []},
    "galaxy_taxonomy": {
        "propose": ["approve", "publish"],
        "approve": ["publish"],
        "publish": ["announce", "plan"],
        "plan": ["announce"],
        "announce": [],
    },
    "galaxy_upkeep": {"verify": ["compact"], "compact": [], "takedowns": ["unreferenced"], "unreferenced": []},
    "galaxy_watch": REGISTERING,
}
DOCS = ROOT / "docs" / "airflow.md"
BEGIN, END = "<!-- dags: made from the DAGs -->\n", "\n<!-- /dags -->"


def dags() -> list[Any]:
    return [dag for _, dag in sorted(bag().dags.items())]


def tasks() -> list[Any]:
    return [task for dag in dags() for task in dag.tasks]


def test_the_bag_holds_what_the_repository_brings() -> None:
    assert bag().import_errors == {}
    assert sorted(bag().dags) == dag_ids() == sorted(EDGES)


def test_a_lane_runs_the_stages_of_the_table_each_in_the_pool_of_whom_it_asks() -> None:
    """The DAG file spells them out, since it holds wiring alone; the table is what they must be."""
    lane = {
        task.task_id.removeprefix("lane_of_shards."): task
        for task in bag().dags["galaxy_generate"].tasks
        if task.task_id.startswith("lane_of_shards.")
    }
    pools = {"teacher": "galaxy_teacher", "judges": "galaxy_judges"}
    asked = {stage.name: pools[stage.role] for stage in STAGES if stage.asks}
    assert {name: task.pool for name, task in lane.items()} == {"embed_match": "galaxy_encoders", **asked}
    for name, after in pairwise(["embed_match", *asked]):
        assert f"lane_of_shards.{after}" in lane[name].downstream_task_ids


@pytest.mark.parametrize("name", sorted(EDGES))
def test_a_dag_is_wired_as_written_down(name: str) -> None:
    assert {task.task_id: sorted(task.downstream_task_ids) for task in bag().dags[name].tasks} == EDGES[name]


@pytest.mark.parametrize("name", sorted(EDGES))
def test_a_dag_tells_what_it_is_for(name: str) -> None:
    dag = bag().dags[name]
    assert dag.doc_md.strip().startswith("# ")
    for lead in ("**Reads**", "**Writes**", "**A re-run**"):
        assert lead in dag.doc_md, f"{name} does not say what it {lead}"
    assert dag.description and "\n" not in dag.description, "the list of DAGs shows it"
    assert "galaxy" in dag.tags
    assert len(dag.tags) > 1
    assert dag.max_active_runs <= 8
    assert not dag.catchup
    for param_name, param in dag.params.items():
        schema = dag.params.get_param(param_name).schema
        assert schema.get("title"), f"{name}: the form's {param_name} has no title"
        assert len(dag.params.get_param(param_name).description or "") > 10, f"{name}: {param_name} explains nothing"
        assert schema.get("type"), f"{name}: {param_name} has no type"
        assert param is None or param != {}


def test_every_task_has_an_owner_retries_by_kind_and_an_end() -> None:
    from galaxy_airflow.alerts import failed

    for task in tasks():
        assert task.owner == "taskgalaxy"
        assert task.retry_policy is not None
        callbacks = task.on_failure_callback
        assert failed in ([callbacks] if callable(callbacks) else callbacks)
        # A person takes as long as he takes.
        assert task.execution_timeout is not None or task.task_type in ("PlanApproval", "TaxonomyApproval")


def test_every_pool_and_connection_is_provisioned() -> None:
    """A missing pool would leave a task queued for ever, and dag.test() would not tell."""
    there = {pool.name for pool in provision.pools(load_settings(SETTINGS_FILE))}
    assert {task.pool for task in tasks()} == there
    named = {
        node.value
        for path in [*(ROOT / "dags").glob("*.py"), *(ROOT / "plugins").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("galaxy_store")
    }
    assert named == {"galaxy_store"} <= there | {provision.STORE_CONNECTION}
    variables = [path.name for path in (ROOT / "plugins").rglob("*.py") if "Variable" in path.read_text("utf-8")]
    assert variables == ["known.py"], "provisioning brings no Airflow variables: tasks write the only one"


def test_what_the_forms_offer_is_names_and_nothing_else() -> None:
    bag()  # puts the plugins on the path
    from galaxy_airflow.known import offered

    assert offered({"sources": ["a", "b"], "releases": []}, "sources", "releases") == [{"examples": ["a", "b"]}, {}]
    for odd in (None, [], "x", {"sources": "a"}, {"sources": {"a": 1}}, {"sources": [1, None]}):
        assert offered(odd, "sources") == [{}]


def test_queues_are_those_that_workers_listen_to() -> None:
    assert {task.queue for task in tasks()} == {"default", "models", "encoders"}


def test_retries_follow_the_kind_of_error() -> None:
    from airflow.sdk import RetryAction

    from taskgalaxy_ops import errors

    policy = tasks()[0].retry_policy

    def decided(error: Exception) -> Any:
        return policy.evaluate(error, 1, 5).action

    for worth in (errors.StoreError, errors.LeaseLostError, errors.UnansweredError):
        assert decided(worth("…")) is RetryAction.RETRY
    for lost in (errors.SettingsError, errors.SourceError, errors.BudgetError, errors.PendingError, errors.DamageError):
        assert decided(lost("…")) is RetryAction.FAIL
    assert decided(errors.NotFoundError("…")) is RetryAction.FAIL
    assert decided(OSError("a worker's network")) is RetryAction.DEFAULT


CHOSEN = {"watch": "5 * * * *", "taxonomy": "@daily", "release": "30 4 * * *", "upkeep": None}
# A fork for each settings file: Airflow itself is paid for once.
_PARSE = """
import json, os, socket, sys
import airflow.dag_processing.dagbag

def forbidden(*_, **__): raise AssertionError("parsing opened a socket")

def parse():
    before = set(sys.modules)
    socket.socket.connect = socket.create_connection = forbidden
    bag = airflow.dag_processing.dagbag.DagBag(sys.argv[1])
    print(json.dumps({
        "errors": bag.import_errors,
        "schedules": {n: getattr(d.timetable, "summary", type(d.timetable).__name__) for n, d in bag.dags.items()},
        "modules": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
    }), flush=True)

dags, plugins, *settings = sys.argv[1:]
sys.path[:0] = [plugins, dags]
for file in settings:
    os.environ["TASKGALAXY_SETTINGS"] = file
    if not (child := os.fork()):
        parse()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(file)
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process found that parsed the DAGs under the tests' settings, ``broken`` ones, and ``chosen`` ones."""
    folder = tmp_path_factory.mktemp("settings")
    broken, chosen = folder / "broken.yaml", folder / "chosen.yaml"
    broken.write_text("airflow: {lanes: -1}\nstore: [", encoding="utf-8")
    write_settings(airflow={"schedules": CHOSEN, "finetune_on_release": True})
    chosen.write_bytes(SETTINGS_FILE.read_bytes())
    write_settings()
    settings = [str(SETTINGS_FILE), str(broken), str(chosen)]
    command = [sys.executable, "-c", _PARSE, str(ROOT / "dags"), str(ROOT / "plugins"), *settings]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(("ours", "broken", "chosen"), found, strict=True))


def test_parsing_is_cheap_and_reaches_nothing(parsed: dict[str, dict[str, Any]]) -> None:
    found = parsed["ours"]
    assert (found["errors"], sorted(found["schedules"])) == ({}, sorted(EDGES))
    heavy = {"torch", "boto3", "openai", "open_clip", "transformers", "pyarrow", "pandas", "onnxruntime", "fastapi"}
    assert not heavy.intersection(found["modules"]), "a DAG's parsing loads what only its tasks need"


def test_a_settings_file_with_mistakes_leaves_every_dag_in_the_ui(parsed: dict[str, dict[str, Any]]) -> None:
    assert sorted(parsed["broken"]["schedules"]) == sorted(EDGES)


def test_schedules_come_from_the_settings(parsed: dict[str, dict[str, Any]]) -> None:
    assert load_settings(SETTINGS_FILE).airflow.schedules.watch != CHOSEN["watch"]
    found = parsed["chosen"]["schedules"]
    assert found["galaxy_watch"] == "At 5 minutes past the hour"
    assert found["galaxy_taxonomy"] == "At 00:00"
    assert found["galaxy_release"] == "When samples are announced, or: At 04:30"
    assert found["galaxy_ingest"] == "By hand"
    assert found["galaxy_finetune"] == "When a release is announced"


def test_library_and_airflow_are_apart() -> None:
    """The library imports no airflow; a DAG file holds wiring alone, and imports the library when a task runs."""
    for path in (ROOT / "taskgalaxy_ops").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in {"airflow", "galaxy_airflow", "dags"}], path
    for path in (ROOT / "dags").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        heavy = {name for name in imported if name and name.startswith("taskgalaxy_ops")} - {"taskgalaxy_ops.settings"}
        assert not heavy, f"{path.name} imports {heavy} when it is parsed"
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.Try)]
        assert not loops, f"{path.name} holds logic"


def test_the_docs_table_is_the_bags() -> None:
    text = DOCS.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    shown, _, after = rest.partition(END)
    assert after, "docs/airflow.md has lost its marks"
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
        return
    assert shown == table(), "docs/airflow.md: run `UPDATE_DOCS=1 pytest tests/dags -k docs`"


def test_ruffs_airflow_rules_are_clean() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "AIR", "--preview", "dags", "plugins"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_form_of_release_offers_question_forms_those_in_the_settings_languages_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    file = tmp_path / "taskgalaxy.yaml"
    file.write_text(yaml.safe_dump({**raw, "write": {"variants": ["plain", "plain-de"]}}), "utf-8")
    monkeypatch.setenv("TASKGALAXY_SETTINGS", str(file))
    field = fresh("galaxy_release.py").dags["galaxy_release"].params.get_param("variants")
    assert field.schema["examples"] == [*QUESTION_FORMS.names(), "plain-de"]
    assert field.resolve(["plain", "plain-de"]) == ["plain", "plain-de"]
    file.write_text("nonsense: true")
    assert offered_forms() == QUESTION_FORMS.names()


def test_the_form_of_ingest_names_every_source_that_ships() -> None:
    offered = bag().dags["galaxy_ingest"].params.get_param("location").schema["examples"]
    assert offered == [f"builtin:{name}" for name in BUILTIN]
