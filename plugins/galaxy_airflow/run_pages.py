"""Pages about our runs, from Airflow's database: how a run is, why it is not green, and the pages that its tasks wrote.

They are shown as the tab *Galaxy* of a DAG, a run and a task. They hold no script of a model's making, and all text in
them is escaped. Airflow shows them in a frame, from which its own pages cannot be opened: links lead to pages of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from galaxy_airflow import notes
from galaxy_airflow.links import page_of, root
from taskgalaxy_ops.reports.html import Link, table_page
from taskgalaxy_ops.text import moment

_RUNS = 50  # of a DAG, the latest
_RED = ("failed", "upstream_failed")
_WAITS = ("up_for_retry", "deferred", "up_for_reschedule", "awaiting_input", "restarting")
_PAGES = {  # by the task that writes it: what its page is called
    "plan": "Plan",
    "forecast": "Forecast",
    "propose": "Proposal",
    "release": "Contact sheet",
    "evaluate": "Result card",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as the pages show it."""

    dag: str
    run: str
    of: str  # its source or release
    state: str
    began: datetime | None
    ended: datetime | None
    note: str

    @property
    def link(self) -> Link:
        return Link(self.of or self.dag.removeprefix(notes.PREFIX), f"{_path(self.dag, self.run)}")


def latest(session: Any, dag: str | None = None, *, states: Sequence[str] = (), limit: int = _RUNS) -> list[RunRow]:
    """The latest runs of a DAG (None: of all of ours), newest first. states: only these."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    query = select(DagRun).order_by(DagRun.id.desc()).limit(limit)
    query = query.where(DagRun.dag_id == dag) if dag else query.where(DagRun.dag_id.startswith(notes.PREFIX))
    if states:
        query = query.where(DagRun.state.in_(states))
    return [_row(run) for run in session.scalars(query)]


def _row(run: Any) -> RunRow:
    return RunRow(
        dag=run.dag_id,
        run=run.run_id,
        of=notes.about(run.dag_id, run.partition_key, run.conf),
        state=str(getattr(run.state, "value", run.state)),
        began=run.start_date or run.queued_at,
        ended=run.end_date,
        note=run.note or "",
    )


def runs_table(runs: Iterable[RunRow]) -> tuple[Sequence[str], list[Sequence[str | Link]]]:
    """Header and rows of a table of runs."""
    rows: list[Sequence[str | Link]] = []
    for each in runs:
        said = each.note.removeprefix(each.of).strip()
        rows.append((each.link, each.dag, each.state, _moment(each.began), _took(each.began, each.ended), said))
    return ("run", "DAG", "state", "began (UTC)", "took", "says"), rows


def dag_page(session: Any, dag: str) -> str:
    """The latest runs of a DAG (HTML)."""
    header, rows = runs_table(latest(session, dag))
    return table_page(dag, [Link("Galaxy", f"{root()}/")], [("Latest runs", header, rows)])


def run_page(session: Any, dag: str, run: str) -> str | None:
    """A run: its tasks, what they say, and the pages that they wrote (HTML); None if there is no such run."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    found = session.scalars(select(DagRun).where(DagRun.dag_id == dag, DagRun.run_id == run)).one_or_none()
    if found is None:
        return None
    row = _row(found)
    said = {(task, index): text for task, index, text in notes.told(session.connection(), found.id)}
    tasks = sorted(found.get_task_instances(session=session), key=_order)
    lead: list[str | Link] = [f"{row.of or dag}: {row.state}, began {_moment(row.began)} UTC"]
    receipts = _receipts(session, found.id).items()
    lead += [Link(_PAGES.get(task, task), page) for (task, _), receipt in receipts if (page := page_of(receipt))]
    lead.append(Link("All runs of this DAG", _path(dag)))
    rows = [
        (
            Link(_name(each), _path(dag, run, each.task_id, str(each.map_index))),
            str(each.state or "waits for its turn"),
            str(each.try_number),
            _moment(each.start_date),
            _took(each.start_date, each.end_date),
            said.get((each.task_id, each.map_index), ""),
        )
        for each in tasks
    ]
    return table_page(f"{dag}, {row.of}" if row.of else dag, lead, [("Tasks", _TASK_HEADER, rows)])


_TASK_HEADER = ("task", "state", "try", "began (UTC)", "took", "says")


def task_page(session: Any, dag: str, run: str, task: str, index: int) -> str | None:
    """A task of a run: what it says, its receipt, and its page (HTML); None if there is no such run."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    number = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag, DagRun.run_id == run))
    if number is None:
        return None
    said = [text for name, at, text in notes.told(session.connection(), number) if (name, at) == (task, index)]
    receipt = _receipts(session, number).get((task, index)) or {}
    lead: list[str | Link] = [line for text in said for line in text.splitlines()]
    lead += [Link(_PAGES.get(task, "Its page"), page)] if (page := page_of(receipt)) else []
    lead.append(Link("The whole run", _path(dag, run)))
    rows = [(name, _shown(value)) for name, value in receipt.items() if name != "page"]
    return table_page(f"{dag}.{task}", lead, [("What it did", ("what", "value"), rows)])


def _receipts(session: Any, run: int) -> dict[tuple[str, int], Mapping[str, Any]]:
    """The receipts of a run's tasks, by task id and map index."""
    from airflow.models.xcom import XCOM_RETURN_KEY

    found = notes.xcoms(session.connection(), run, XCOM_RETURN_KEY)
    return {(task, index): receipt for task, index, receipt in found if isinstance(receipt, dict)}


def _order(task: Any) -> tuple[bool, datetime, str, int]:
    """Red ones first, then in the order in which they began."""
    began = task.start_date or datetime.max.replace(tzinfo=UTC)
    return str(task.state) not in (*_RED, *_WAITS), began, task.task_id, task.map_index


def _name(task: Any) -> str:
    name = task.task_id.rpartition(".")[2]
    label = str(task.rendered_map_index or task.map_index)
    label = str(task.map_index + 1) if label.isdecimal() else label  # it has not begun, and so has no label yet
    return name if task.map_index < 0 else f"{name}, {label}"


def _moment(at: datetime | None) -> str:
    return "" if at is None else moment(at.timestamp())


def _took(began: datetime | None, ended: datetime | None) -> str:
    if began is None:
        return ""
    seconds = int(((ended or datetime.now(UTC)) - began).total_seconds())
    number, unit = (seconds, "s") if seconds < 120 else (seconds // 60, "min")
    if seconds >= 7200:
        number, unit = seconds // 3600, "h"
    return f"{number}\N{NO-BREAK SPACE}{unit}"


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _path(*parts: str) -> str:
    return "/".join([root(), "dags", *(quote(part, safe="") for part in parts)])
