"""The notes of our runs: of what source a run is, and what its tasks have to say while they fail, wait or are skipped.

A task says it by an XCom (`SAYS`). The API server, which stores XComs, writes the run's note in the same transaction,
so that it is there while the run is at work; the scheduler writes it when a run begins, misses its deadline, and ends.
A note that a person has written is left alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from galaxy_airflow.forms import EACH_FOLDER

log = logging.getLogger("taskgalaxy")

SAYS = "galaxy_says"  # the XCom's key
PREFIX = "galaxy_"  # of the ids of our DAGs
_LONGEST = 1000  # characters that Airflow keeps of a note
_OF = {"galaxy_finetune": "release", "galaxy_release": ""}  # what a run's partition is; of others, its source


def about(dag_id: str, partition: str | None, conf: Mapping[str, Any] | None) -> str:
    """What a run is of, in a line: its source or sources, or its release; "" if nothing says so."""
    what = _OF.get(dag_id, "source")
    if partition and what:
        return f"{what} {partition}"
    form = conf or {}
    if form.get("name") == EACH_FOLDER:
        return f"each folder below {form.get('location') or 'airflow.watch_parents'}"
    for name, shown in (("source", "source"), ("name", "source"), ("release", "release")):
        if isinstance(form.get(name), str) and form[name]:
            return f"{shown} {form[name]}"
    several = [each for each in form.get("sources") or () if isinstance(each, str)]
    return f"sources {', '.join(several)}" if several else ""


def composed(first: str, said: Sequence[tuple[str, int, str]]) -> str:
    """A note: what the run is of, then what its tasks say (task id, map index, text), each text once."""
    lines: dict[str, list[str]] = {}
    for task, index, text in said:
        name = task.rpartition(".")[2] + (f" {index + 1}" if index >= 0 else "")
        lines.setdefault(text, []).append(name)
    told = [f"{', '.join(names)}: {text}" for text, names in lines.items()]
    note = "\n\n".join(filter(None, [first, *told]))
    return note if len(note) <= _LONGEST else f"{note[: _LONGEST - 2]} …"


def xcoms(connection: Any, run: int, key: str) -> list[tuple[str, int, Any]]:
    """A run's XComs of this key: task id, map index and value, oldest first. run: the DAG run's number."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    wanted = (XComModel.task_id, XComModel.map_index, XComModel.value)
    query = select(*wanted).where(XComModel.dag_run_id == run, XComModel.key == key).order_by(XComModel.timestamp)
    return [(task, index, _read(value)) for task, index, value in connection.execute(query)]


def _read(value: Any) -> Any:
    with suppress(ValueError, TypeError):  # stored as the task serialised it
        return json.loads(value)
    return value


def told(connection: Any, run: int) -> list[tuple[str, int, str]]:
    """What the tasks of a run have to say: task id, map index and text, oldest first. run: the DAG run's number."""
    return [each for each in xcoms(connection, run, SAYS) if isinstance(each[2], str) and each[2]]


def lateness(connection: Any, run: int, ended: datetime | None) -> list[str]:
    """That a run missed its deadline, in a sentence; nothing if it has none, or had ended by then."""
    from airflow.models.deadline import Deadline
    from sqlalchemy import select

    due = connection.scalar(select(Deadline.deadline_time).where(Deadline.dagrun_id == run, Deadline.missed).limit(1))
    return [f"late: was due {due:%Y-%m-%d %H:%M} UTC"] if due and not (ended and ended <= due) else []


def write(connection: Any, run: int) -> None:
    """Write the note of one of our runs anew."""
    from airflow.models.dagrun import DagRun, DagRunNote
    from sqlalchemy import insert, select, update

    row = connection.execute(
        select(DagRun.dag_id, DagRun.partition_key, DagRun.conf, DagRun.end_date).where(DagRun.id == run)
    ).one_or_none()
    if row is None or not row.dag_id.startswith(PREFIX):
        return
    first = [about(row.dag_id, row.partition_key, row.conf), *lateness(connection, run, row.end_date)]
    text = composed("\n\n".join(filter(None, first)), told(connection, run))
    there = connection.execute(
        select(DagRunNote.user_id, DagRunNote.content).where(DagRunNote.dag_run_id == run)
    ).one_or_none()
    if there is None and text:
        now = datetime.now(UTC)
        connection.execute(insert(DagRunNote).values(dag_run_id=run, content=text, created_at=now, updated_at=now))
    elif there is not None and there.user_id is None and there.content != text:
        connection.execute(update(DagRunNote).where(DagRunNote.dag_run_id == run).values(content=text))


def said(_: Any, connection: Any, xcom: Any) -> None:
    """Called by SQLAlchemy when an XCom is stored: writes the run's note if it is what a task says."""
    if xcom.key == SAYS and xcom.dag_id.startswith(PREFIX):
        write_safely(connection, xcom.dag_run_id)


def keep_notes() -> None:
    """In the API server: write a run's note whenever one of its tasks says something."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import event

    event.listen(XComModel, "after_insert", said)


def missed(_: Any, connection: Any, deadline: Any) -> None:
    """Called by SQLAlchemy when a deadline is changed: writes the run's note if the run has missed it."""
    if deadline.missed and deadline.dagrun_id is not None:
        write_safely(connection, deadline.dagrun_id)


def keep_lateness() -> None:
    """In the scheduler: write a run's note when it misses its deadline."""
    from airflow.models.deadline import Deadline
    from sqlalchemy import event

    if not event.contains(Deadline, "after_update", missed):
        event.listen(Deadline, "after_update", missed)


def write_safely(connection: Any, run: int) -> None:
    """As `write`, but what goes wrong is logged: a note must not keep a task or a run from going on."""
    try:
        with connection.begin_nested():
            write(connection, run)
    except Exception:
        log.exception("the note of a run could not be written")
