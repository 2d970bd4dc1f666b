"""The demo through Airflow: triggers the DAGs as the web UI does, over REST, and shows their runs while they work."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from taskgalaxy_ops.demo.airflow_stack import failure
from taskgalaxy_ops.errors import TaskGalaxyError
from taskgalaxy_ops.operations.airflow import announcements
from taskgalaxy_ops.operations.airflow.client import AirflowClient
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

_POLL_SECONDS = 2.0  # between two looks while something is at work: who only watches leaves the cores to it
_QUIET_SECONDS = 0.5  # and while nothing is
_SETTLED_SECONDS = 2.5  # without a run at work: what one announces has its run by then
_AWAITED_SECONDS = 60.0  # how long an announced source may have no run
_ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(slots=True)
class Conducted:
    """What the runs came to."""

    failures: list[str] = field(default_factory=list)  # a failed task and why, each
    ingested: dict[str, dict[str, Any]] = field(default_factory=dict)  # by source: the receipt of its task
    encoded: int = 0  # encoder passes of the tasks that embed images
    seconds_in_tasks: float = 0.0  # of all task instances together
    tasks: int = 0


class Conductor:
    """Drives one Airflow for one store."""

    def __init__(self, client: AirflowClient, workspace: Workspace) -> None:
        self._client, self._workspace = client, workspace
        self._ledger = workspace.ledger()  # one for all looks: it reads only what is new
        self._watched: set[tuple[str, str]] = set()
        self._settled: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._said: dict[str, str] = {}

    def ingest(self, max_new: int) -> None:
        """Grow the taxonomy if only the seeds are there, register what changed, and forecast what a run would cost.

        Goes on with runs that a kill left behind.
        """
        self._watched = {(run["dag_id"], run["dag_run_id"]) for run in self._client.runs() if _over(run)}
        self.settle()  # of an earlier demo
        if len(TaxonomyStore(self._workspace).versions()) == 1:
            self._client.trigger("galaxy_taxonomy", {"max_new": max_new, "then": "only publish"})
        self._client.trigger("galaxy_watch", {"then": "only register"})  # beside it: neither needs the other
        self.settle(announces=False)
        if self._workspace.registry.scans():
            self._client.trigger("galaxy_backfill", {"forecast": True})
            self.settle(announces=False)

    def generate(self) -> None:
        """Run every source, and release; what is there already asks nothing."""
        self._client.trigger("galaxy_backfill", {"dry_run": False})
        self.settle()

    def release_partial(self) -> None:
        """Release what is there, although something is pending."""
        self._client.trigger("galaxy_release", {"partial": True})
        self.settle()

    def finetune(self) -> None:
        """Train on the latest release, and score it."""
        self._client.trigger("galaxy_finetune", {})
        self.settle(announces=False)

    def settle(self, seconds: float | None = None, *, announces: bool = True) -> None:
        """Show the runs until nothing is at work, and nothing that was announced waits for its run.

        announces: whether a run may start others by what it announces; these have no run yet when it ends.
        Raises TaskGalaxyError where that takes longer than ``seconds``.
        """
        with _board(self._said) as board:
            settled = _SETTLED_SECONDS if announces else 0.0
            self._follow(board, settled, None if seconds is None else time.monotonic() + seconds)

    def _follow(self, board: _Board, settled: float, give_up: float | None) -> None:
        quiet_since = time.monotonic()
        while True:
            if give_up is not None and time.monotonic() > give_up:
                raise TaskGalaxyError("airflow: runs are still at work. See its web UI.")
            at_work = self._look(board)
            now = time.monotonic()
            if at_work or (announcements.awaited(self._workspace) and now - quiet_since < _AWAITED_SECONDS):
                quiet_since = now if at_work else quiet_since
            elif now - quiet_since >= (settled if self._settled else 0):
                return
            time.sleep(_POLL_SECONDS if at_work else _QUIET_SECONDS)

    def _look(self, board: _Board) -> bool:
        """Look at all runs of ours; whether one is at work."""
        at_work = False
        rows = []
        for run in self._client.runs():
            key = (run["dag_id"], run["dag_run_id"])
            if key in self._watched:
                continue
            tasks = self._settled.get(key)
            if tasks is None:
                tasks = self._client.tasks(*key)
                if _over(run):
                    self._settled[key] = tasks
                else:
                    at_work = True
            rows.append((run, tasks))
        board.show(rows, self._spent)
        return at_work

    def _spent(self) -> str:
        spent = self._ledger.spent()
        return f"{spent.calls:,} calls taken from the budget, ${spent.cost / 1e9:.4f}"

    def conducted(self) -> Conducted:
        """What came of the runs so far."""
        found = Conducted()
        for tasks in self._settled.values():
            for task in tasks:
                found.tasks += 1
                found.seconds_in_tasks += task["duration"] or 0.0
                if task["state"] == "failed":
                    found.failures.append(f"{task['dag_id']}.{task['task_id']}: {failure(self._client, task)}")
                if task["state"] != "success":
                    continue
                if task["task_id"].endswith(".embed_match") or task["task_id"] == "forecast":
                    found.encoded += (self._client.xcom(task) or {}).get("encoded", 0)
                elif task["task_id"] == "register":
                    receipt = self._client.xcom(task)
                    found.ingested[receipt["source"]] = receipt
        return found


def _over(run: Mapping[str, Any]) -> bool:
    return run["state"] in {"success", "failed"}


class _Board(Protocol):
    def show(self, rows: list[tuple[dict[str, Any], list[dict[str, Any]]]], footer: Callable[[], str]) -> None:
        """Show runs with their tasks. ``footer`` asks the store: only for what is new to say."""


class _LiveBoard:
    """A table that is drawn anew when a run has come on."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._shown: list[tuple[str, ...]] = []

    def show(self, rows: list[tuple[dict[str, Any], list[dict[str, Any]]]], footer: Callable[[], str]) -> None:
        lines: list[tuple[str, ...]] = [
            (run["dag_id"], run.get("partition_key") or "", *_stand(run, tasks)) for run, tasks in rows
        ]
        if lines == self._shown:
            return
        self._shown = lines
        table = Table("DAG", "source", "tasks", "now", caption=footer(), expand=False, show_edge=False)
        for line in lines:
            table.add_row(*line)
        self._live.update(table, refresh=True)


class _LineBoard:
    """A line for each run whenever it has come on."""

    def __init__(self, said: dict[str, str]) -> None:
        self._said = said  # by run: its last line

    def show(self, rows: list[tuple[dict[str, Any], list[dict[str, Any]]]], footer: Callable[[], str]) -> None:
        said = ""
        for run, tasks in rows:
            done, now = _stand(run, tasks)
            line = f"{run['dag_id']} {run.get('partition_key') or ''}: {now}"
            if self._said.get(run["dag_run_id"]) != line:
                self._said[run["dag_run_id"]] = line
                said = said or footer()
                print(f"{line} ({done} tasks; {said})", file=sys.stderr, flush=True)


def _stand(run: Mapping[str, Any], tasks: list[dict[str, Any]]) -> tuple[str, str]:
    """How many tasks have ended, and what is at work (or how it ended)."""
    ended = sum(task["state"] in _ENDED for task in tasks)
    running = Counter(task["task_id"].rpartition(".")[2] for task in tasks if task["state"] == "running")
    retried = sum(task["state"] in {"up_for_retry", "restarting"} for task in tasks)
    now = ", ".join(f"{name} ×{number}" if number > 1 else name for name, number in sorted(running.items()))
    waiting = next((task for task in tasks if task["state"] == "awaiting_input"), None)
    if waiting:
        now = f"{waiting['task_id']}: waits for a person (Browse, Required Actions)"
    if not now and any(task["state"] == "up_for_reschedule" for task in tasks):
        now = "training goes on outside Airflow"
    if retried:
        now += f"{', ' if now else ''}{retried} to be tried again"
    state = str(run["state"])
    if _over(run):
        skipped = tasks and all(task["state"] == "skipped" for task in tasks)
        now = "nothing to do" if skipped else {"success": "done", "failed": "FAILED"}[state]
    return f"{ended} of {len(tasks)}", now or state


@contextmanager
def _board(said: dict[str, str]) -> Iterator[_Board]:
    if sys.stderr.isatty():
        with Live(console=Console(stderr=True), auto_refresh=False) as live:
            yield _LiveBoard(live)
    else:
        yield _LineBoard(said)
