"""What every task does first and last: settings and keys in, progress into the log, a one-line receipt out."""

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


def opened(settings_version: int | None = None, max_cost: float | None = None, run: str | None = None) -> Workspace:
    """The store of the mounted settings, with the keys that Airflow's connections hold.

    settings_version: of the versions that the store has published; None: the mounted file as it is. max_cost: USD; the
    store's budget ends there if it does not end before. run: what its calls are made for; None: for this task alone.
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
    """The mounted settings; the keys of their connections are in the environment afterwards. Raises SettingsError."""
    settings = load_settings(settings_path())
    os.environ.update(environment_of(settings, _connections(settings)))
    return settings


def _connections(settings: Settings) -> dict[str, ConnectionSpec]:
    """Those of the settings' connections that Airflow has; for another, the worker's own environment counts."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    wanted = {STORE_CONNECTION, *(model_connection(model) for model in (settings.teacher, *settings.judges))}
    found = {}
    for name in sorted(wanted):
        try:
            there = Connection.get(name)
        except (AirflowNotFoundException, AirflowRuntimeError):
            continue
        found[name] = spec_of(name, there)
    return found


def spec_of(name: str, there: Any) -> ConnectionSpec:
    """An Airflow connection, of a task's kind or the API server's, as the library knows it."""
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
    """The library's progress, as lines of the task's log."""
    yield Lines(log.info)


def receipt(what: str, began: float, **counts: Any) -> dict[str, Any]:
    """The task's last line; gives the counts, with seconds, for XCom: numbers and names alone."""
    found = {**counts, "seconds": round(time.monotonic() - began, 1)}
    log.info("%s: %s", what, ", ".join(f"{name} {_shown(value)}" for name, value in found.items()))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) + ")"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
