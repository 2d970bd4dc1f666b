"""What every task does: load settings and keys, log its progress, and return a receipt that it logs in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from taskgalaxy_ops.operations.airflow.provision import (
    STORE_CONNECTION,
    ConnectionSpec,
    environment_of,
    model_connection,
)
from taskgalaxy_ops.progress import Progress
from taskgalaxy_ops.reports.console import Lines
from taskgalaxy_ops.settings import Settings, load_settings, settings_path
from taskgalaxy_ops.workspace import Workspace

log = logging.getLogger("taskgalaxy")
logging.getLogger("botocore.credentials").setLevel(logging.WARNING)  # it says in each task where it found the keys


def opened(settings_version: int | None = None, max_cost: float | None = None, run: str | None = None) -> Workspace:
    """Open the workspace of the mounted settings, with the keys of Airflow's connections in the environment.

    settings_version: one of the versions that the store has published; None: the mounted file. max_cost: USD; lowers
    the settings' cap on the store's spending to this. run: the name under which its calls are booked; None: a new one
    for this task.
    Raises SettingsError, StoreError.
    """
    settings = ready_settings()
    if settings_version is None and max_cost is None:
        return Workspace.open(settings, run)
    if settings_version is not None:
        settings = Workspace.open(settings).settings_version(settings_version)
        os.environ.update(environment_of(settings, _connections(settings)))
    if max_cost is not None:
        cap = settings.budget.max_cost
        lower = settings.budget.model_copy(update={"max_cost": max_cost if cap is None else min(cap, max_cost)})
        settings = settings.model_copy(update={"budget": lower})
    return Workspace.open(settings, run)


def ready_settings() -> Settings:
    """Load the mounted settings, and put the keys of their connections into the environment. Raises SettingsError."""
    settings = load_settings(settings_path())
    os.environ.update(environment_of(settings, _connections(settings)))
    return settings


def _connections(settings: Settings) -> dict[str, ConnectionSpec]:
    """The settings' connections that Airflow has, by id; for others the worker's own environment has the keys."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    wanted = {STORE_CONNECTION, *(model_connection(model) for model in settings.models)}
    specs = {}
    for name in sorted(wanted):
        try:
            connection = Connection.get(name)
        except (AirflowNotFoundException, AirflowRuntimeError):
            continue
        specs[name] = spec_of(name, connection)
    return specs


def spec_of(name: str, there: Any) -> ConnectionSpec:
    """The library's record of an Airflow connection. there: the SDK's ``Connection`` (tasks) or the API server's."""
    return ConnectionSpec(
        connection_id=name,
        description="",
        host=there.host or "",
        login=there.login or "",
        password=there.password or "",
        extra=there.extra_dejson,
    )


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Yield a progress display that writes lines into the task's log."""
    yield Lines(log.info)


def receipt(what: str, began: float, **counts: Any) -> dict[str, Any]:
    """Log the task's last line, and return its counts with the seconds since ``began`` for XCom.

    counts: numbers and names only, since XCom stores them as JSON.
    """
    result = {**counts, "seconds": round(time.monotonic() - began, 1)}
    log.info("%s: %s", what, ", ".join(f"{name} {_shown(value)}" for name, value in result.items()))
    return result


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) + ")"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
