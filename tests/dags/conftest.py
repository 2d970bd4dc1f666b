"""An Airflow of the tests' own.

An image shard, a database, and settings that the DAGs read when they are parsed and run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.galaxies import Models
from encoded_once import encoded_once
from serving import Quiet, served

from dags.bag import bag
from taskgalaxy_ops.demo.airflow_stack import ROOT, dag_ids
from taskgalaxy_ops.settings import Settings, load_settings

_SHARD_ID = Path(tempfile.mkdtemp(prefix="taskgalaxy-airflow-"))
SETTINGS_FILE = _SHARD_ID / "taskgalaxy.yaml"


def _bundles() -> str:
    """A bundle for each DAG, as Airflow's option: at each run ``dag.test`` reads all files of the DAG's bundle anew."""
    folders = {name: _SHARD_ID / "bundles" / name for name in dag_ids()}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / f"{name}.py").symlink_to(ROOT / "dags" / f"{name}.py")
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return json.dumps(
        [{"name": name, "classpath": local, "kwargs": {"path": str(folder)}} for name, folder in folders.items()]
    )


# Before Airflow is imported: it reads its configuration once.
os.environ.update(
    AIRFLOW_HOME=str(_SHARD_ID),
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=_bundles(),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL="0",  # a test's settings count at once
    AIRFLOW__CORE__HOSTNAME_CALLABLE="socket.gethostname",  # no look-up of names
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_SHARD_ID / 'airflow.db'}",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    TASKGALAXY_SETTINGS=str(SETTINGS_FILE),
)


def model(name: str, base_url: str) -> dict[str, Any]:
    return {"name": name, "base_url": base_url, "model": name, "simulated": True, "retries": 0, "patience_seconds": 0}


def write_settings(base_url: str = "http://127.0.0.1:9/v1", **changes: Any) -> Settings:
    """Settings where the DAGs look for them."""
    raw: dict[str, Any] = {
        "store": (_SHARD_ID / "store").as_uri(),
        "ingest": {"shard_images": 2},
        "match": {"k": 12},
        "teacher": model("sim-teacher", base_url),
        "judges": [model(f"sim-judge-{letter}", base_url) for letter in "abc"],
        "taxonomy": {"approval": "off"},
        "run": {"lease_seconds": 3},
        "airflow": {"lanes": 2, "retries": 0},
        **changes,
    }
    SETTINGS_FILE.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return load_settings(SETTINGS_FILE)


write_settings()


@pytest.fixture(scope="session")
def database() -> Iterator[Path]:
    """Airflow's database, which knows every DAG: what one announces is heard by the others."""
    bag()  # puts the plugins on the path
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.utils.db import upgradedb

    upgradedb()
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        parsed = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        sync_bag_to_db(parsed, bundle.name, bundle.version)
    with pytest.MonkeyPatch.context() as patch:
        _validated_once(patch)
        _looked_for_once(patch)
        yield _SHARD_ID


def _validated_once(patch: pytest.MonkeyPatch) -> None:
    """Each form of a DAG is held against Airflow's schema once; ``dag.test`` does it twice a run, for half a second."""
    from airflow.serialization.serialized_objects import BaseSerialization

    validate = BaseSerialization.validate_schema.__func__
    known: set[tuple[type, str]] = set()

    def once(of: type, serialized: Any) -> None:
        key = (of, json.dumps(serialized, sort_keys=True))
        if key not in known:
            validate(of, serialized)
            known.add(key)

    patch.setattr(BaseSerialization, "validate_schema", classmethod(once))


def _looked_for_once(patch: pytest.MonkeyPatch) -> None:
    """Each task asks for a connection of the store and of every model; no test here makes one."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    get = Connection.get.__func__
    absent: set[str] = set()

    def remembered(of: type, name: str) -> Any:
        if name in absent:
            raise AirflowNotFoundException(name)
        try:
            return get(of, name)
        except AirflowNotFoundException:
            absent.add(name)
            raise

    patch.setattr(Connection, "get", classmethod(remembered))


_sleep = time.sleep


@pytest.fixture(scope="session", autouse=True)
def _soon_again() -> Iterator[None]:
    """``dag.test`` looks again soon where it would wait a second, also after each step that skips what follows it."""

    def shorter(seconds: float) -> None:
        waits = sys._getframe(1).f_globals.get("__name__") == "airflow.sdk.definitions.dag"
        _sleep(seconds / 20 if waits else seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", shorter)
        yield


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """``dag.test`` waits as ever, for tests that wait for a process: looking again takes the core from that process."""
    monkeypatch.setattr(time, "sleep", _sleep)


@pytest.fixture(scope="module", autouse=True)
def _encoded_once() -> Iterator[None]:
    with encoded_once():
        yield


@pytest.fixture
def settings_of(models: Models, tmp_path: Path) -> Callable[..., Settings]:
    """Writes settings for a new store with simulated models; what is named replaces whole fields."""

    def make(**changes: Any) -> Settings:
        return write_settings(models.base_url, **{"store": (tmp_path / "store").as_uri(), **changes})

    return make


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was logged since the last call; where to depends on whether a run in this process was the first."""

    def read() -> str:
        text = caplog.text + capsys.readouterr().out
        caplog.clear()
        return text

    return read


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it was sent."""
    sent: list[dict[str, Any]] = []

    class Handler(Quiet):
        def handle_it(self) -> None:
            sent.append(json.loads(self.body()))
            self.answer(200)

    with served(Handler) as url:
        yield url, sent
