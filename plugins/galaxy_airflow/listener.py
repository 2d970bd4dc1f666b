"""What Airflow's scheduler calls when it starts, and when a run begins or ends: the run's note is written."""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl

from galaxy_airflow import notes


@hookimpl
def on_starting(component: Any) -> None:  # noqa: ARG001 - Airflow names its arguments
    """The scheduler starts: from now on it writes the notes of runs that miss their deadlines."""
    notes.keep_lateness()


@hookimpl
def on_dag_run_running(dag_run: Any) -> None:
    """A run begins: its note says of what it is."""
    _write(dag_run)


@hookimpl
def on_dag_run_success(dag_run: Any) -> None:
    """A run has ended well: what was said while it waited is over."""
    _write(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any) -> None:
    """A run has failed: its note says why."""
    _write(dag_run)


def _write(dag_run: Any) -> None:
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is not None and dag_run.dag_id.startswith(notes.PREFIX):
        notes.write_safely(session.connection(), dag_run.id)
