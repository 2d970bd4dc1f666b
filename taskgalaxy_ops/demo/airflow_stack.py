"""Airflow on loopback for the demo, ``make up`` and the tests: API server, scheduler, DAG processor and triggerer.

All on SQLite. The same four commands run in the containers. They are one service each, in a session of its own, so that
each is stopped with all that it started. Heartbeats are short, so that tasks which a kill left "running" are noticed,
and tried again, within half a minute.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from taskgalaxy_ops.demo.services import LOOPBACK, Service, ServiceError
from taskgalaxy_ops.operations.airflow.client import AirflowClient, AirflowError
from taskgalaxy_ops.operations.airflow.dag_files import checkout, dag_ids, dags_folder, plugins_folder

__all__ = ["ROOT", "USER", "AirflowStack", "dag_ids", "failure"]

USER = "admin"
ROOT = Path(__file__).resolve().parents[2]  # of the repository, in a checkout
# Airflow imports this at the start of each of its processes. LocalExecutor's tasks are forks of the scheduler, and each
# parse of a DAG file is a fork of the DAG processor. galaxy_defaults is not imported here: it reads the settings anew.
_LOCAL_SETTINGS = """# Made by TaskGalaxy: what tasks and DAG files need is imported once, in the process that forks.
import sys

if {"scheduler", "dag-processor"} & set(sys.argv):
    import airflow.providers.standard.decorators.python, airflow.providers.standard.decorators.sensor
    import airflow.providers.standard.operators.hitl
    import airflow.sdk.definitions.decorators, airflow.sdk.execution_time.task_runner
    import taskgalaxy_ops.finetune.recipes, taskgalaxy_ops.settings, taskgalaxy_ops.sources.builtin
if "scheduler" in sys.argv:
    import airflow.dag_processing.dagbag, airflow.sdk.execution_time.supervisor
    import taskgalaxy_ops.cli

    from taskgalaxy_ops.operations.airflow.preload import preload

    preload()
"""
# Airflow 3.3.2's scheduler ends where a task's death is reported to it and to the API server at one instant (both
# write the same row of history). Deployments start it again; so does this, a few times in a row.
_AGAIN = """
trap 'stopped=1' TERM  # looked at once the scheduler has ended
tries=0
until [ "$stopped" ] || { began=$(date +%s); "$@"; } || [ "$stopped" ]; do
  [ $(($(date +%s) - began)) -lt 60 ] || tries=0  # it had worked
  tries=$((tries + 1)); [ $tries -lt 5 ] || exit 1
  echo "The scheduler ended, and is started again ($tries)."; sleep 1
done
"""
# The API server's own start, with the database made first: Airflow is imported once for both.
_MIGRATE_AND_SERVE = """
import os, pathlib, sys
from airflow.__main__ import main

serve = sys.argv[1:]
sys.argv = ["airflow", "db", "migrate"]
main()
pathlib.Path(os.environ["AIRFLOW_HOME"], "migrated").touch()
sys.argv = ["airflow", *serve]
main()
"""
_DAGS_FOLDER = {
    "name": "dags-folder",
    "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
    "kwargs": {},
}
# How long a statement waits for another process's write: by default it fails after five seconds, which a busy machine
# can take, and the scheduler ends.
_LOCKED_SECONDS = 30
_HEARTBEAT_LOST = 20  # seconds after which a task whose process is gone counts as such


class _Part(Service):
    start_seconds = 180.0  # imports take a while on a busy machine
    stop_seconds = 10.0
    look_seconds = 0.5  # the API server is asked, which starts, too
    port_names: tuple[str, ...] = ()

    def __init__(self, stack: AirflowStack, command: Sequence[str]) -> None:
        super().__init__(stack.folder)
        self._stack, self.arguments = stack, command
        self._since = datetime.now(UTC)

    def command(self) -> Sequence[str]:
        self._since = datetime.now(UTC)
        return [sys.executable, "-m", "airflow", *self.arguments]

    def child_environment(self) -> dict[str, str]:
        return self._stack.environment()

    def healthy(self) -> bool:
        try:
            found = self._stack.client().health()
        except (AirflowError, KeyError):
            return False
        beat = found[self.health_name].get(f"latest_{self.health_name}_heartbeat")
        return beat is not None and datetime.fromisoformat(beat) >= self._since

    @property
    def health_name(self) -> str:
        return self.name.removeprefix("airflow-").replace("-", "_")


class _Scheduler(_Part):
    name = "airflow-scheduler"

    def command(self) -> Sequence[str]:
        return ["/bin/sh", "-c", _AGAIN, "sh", *super().command()]


class _DagProcessor(_Part):
    name = "airflow-dag-processor"


class _Triggerer(_Part):
    name = "airflow-triggerer"


class _ApiServer(_Part):
    name = "airflow-api-server"
    port_names = ("http",)

    def new_keys(self) -> dict[str, str]:
        return {
            "password": secrets.token_urlsafe(12),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "jwt": secrets.token_hex(32),
            "session": secrets.token_hex(32),
        }

    def command(self) -> Sequence[str]:
        served = ("--host", LOOPBACK, "--port", str(self.ports["http"]), "--workers", "1")
        return [sys.executable, "-c", _MIGRATE_AND_SERVE, *self.arguments, *served]

    def healthy(self) -> bool:
        try:
            return bool(self._stack.client().health())
        except AirflowError:
            return False


class AirflowStack:
    """One Airflow in ``<folder>``. ``with`` starts and stops it; ``start`` alone leaves it running.

    settings: the file that its tasks read. parallelism: tasks at once. parse_seconds: how often each DAG file is parsed
    anew, which costs a second of CPU; it is what a changed schedule waits for.
    """

    def __init__(
        self,
        folder: Path,
        settings: Path,
        *,
        parallelism: int = 4,
        parse_seconds: int = 600,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self._settings = settings.resolve()
        self._parallelism, self._parse_seconds = parallelism, parse_seconds
        self._more = dict(more or {})  # environment variables
        self.api = _ApiServer(self, ["api-server"])
        self.parts: list[_Part] = [
            self.api,
            _Scheduler(self, ["scheduler", "--skip-serve-logs"]),
            _DagProcessor(self, ["dag-processor"]),
            _Triggerer(self, ["triggerer", "--skip-serve-logs"]),
        ]

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.api.ports['http']}"

    @property
    def password(self) -> str:
        return self.api.keys["password"]

    @property
    def home(self) -> Path:
        return self.folder / "airflow"

    def client(self) -> AirflowClient:
        """As the one user that there is."""
        return AirflowClient(self.url, USER, self.password)

    def environment(self) -> dict[str, str]:
        """Of every process of this Airflow. Keys of store and models are not in it: they are connections."""
        keys = self.api.keys
        options = {
            "CORE__DAGS_FOLDER": str(dags_folder()),
            # Airflow's default, named since the caller's environment may have another.
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([_DAGS_FOLDER]),
            # Installed, the plugin comes by its entry point, and this folder stays empty.
            "CORE__PLUGINS_FOLDER": str(plugins_folder() or self.home / "plugins"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(self._parallelism),
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__FERNET_KEY": keys["fernet"],
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout={_LOCKED_SECONDS}",
            "API__BASE_URL": self.url,
            "API__SECRET_KEY": keys["session"],
            "API_AUTH__JWT_SECRET": keys["jwt"],
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(_HEARTBEAT_LOST),
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(self._parse_seconds),
            "LOGGING__LOGGING_LEVEL": "INFO",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        bin_folder = str(Path(sys.executable).parent)
        return {
            **{f"AIRFLOW__{name}": value for name, value in options.items()},
            "AIRFLOW_HOME": str(self.home),
            "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)]),
            "TASKGALAXY_SETTINGS": str(self._settings),
            **({"PYTHONPATH": str(root)} if (root := checkout()) else {}),
            "no_proxy": f"{LOOPBACK},localhost",
            "NO_PROXY": f"{LOOPBACK},localhost",
            **self._more,
        }

    def start(self, say: Callable[[str], None] = lambda text: None) -> Self:
        """Start all of it and wait until it schedules.

        Raises ServiceError, or DagFilesError where no DAG files are installed; then nothing is left running.
        """
        _check()
        self.home.mkdir(parents=True, exist_ok=True)
        say("starting Airflow (API server, scheduler, DAG processor, triggerer)")
        with ExitStack() as undo, ThreadPoolExecutor(len(self.parts)) as pool:
            undo.callback(self.stop)
            self.api.prepare()
            self._prepare_home()
            api = pool.submit(self.api.start)
            while not self._migrated.exists() and not api.done():
                time.sleep(0.1)
            if api.done():
                api.result()  # raises, if it has ended
            others = [pool.submit(part.start) for part in self.parts if part is not self.api]
            api.result()
            for other in others:
                other.result()
            undo.pop_all()
        return self

    def _prepare_home(self) -> None:
        self._migrated.unlink(missing_ok=True)
        passwords = self.home / "passwords.json"
        opened = os.open(passwords, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(f'{{"{USER}": "{self.password}"}}')
        local_settings = self.home / "config" / "airflow_local_settings.py"
        local_settings.parent.mkdir(exist_ok=True)
        local_settings.write_text(_LOCAL_SETTINGS, encoding="utf-8")

    @property
    def _migrated(self) -> Path:
        """A file that the API server makes once it has made or migrated the database."""
        return self.home / "migrated"

    def stop(self, *, grace: float | None = None) -> None:
        """Stop all of it, side by side."""
        threads = [threading.Thread(target=part.stop, kwargs={"grace": grace}) for part in self.parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def wait_for_dags(self, expected: Sequence[str], seconds: float = 120.0) -> None:
        """Until the DAGs are parsed. Raises ServiceError, with what is wrong with their files."""
        client, give_up = self.client(), time.monotonic() + seconds
        while missing := sorted(set(expected) - set(client.dags())):
            if time.monotonic() > give_up:
                errors = client.call("GET", "importErrors")["import_errors"]
                said = "\n".join(f"{each['filename']}: {each['stack_trace'][-500:]}" for each in errors)
                raise ServiceError(f"airflow: DAGs {', '.join(missing)} were not parsed in {seconds:.0f} s.\n{said}")
            time.sleep(1)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check() -> None:
    from importlib.util import find_spec

    if find_spec("airflow") is None:
        raise ServiceError("Airflow is not installed: pip install 'taskgalaxy-ops[airflow]', or --without-airflow.")
    dags_folder()  # raises where there is none


def failure(client: AirflowClient, task: Mapping[str, Any]) -> str:
    """Why a task instance failed: what its alert says in its log; without one, the last error there."""
    lines = [line for line in client.log(task) if not line.startswith("::")]
    for line in reversed(lines):
        if line.startswith("TaskGalaxy: ") and " failed in run " in line:
            return line.partition(" failed in run ")[2].partition(": ")[2][:2000]
    errors = [line for line in lines if "Error" in line or "rror:" in line]
    return (errors or lines or ["its log is empty"])[-1][:2000]
