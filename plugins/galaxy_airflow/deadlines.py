"""Deadlines of runs: from when their hours count, and who is told of a run that is late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AsyncCallback, BaseDeadlineReference, DeadlineAlert

from galaxy_airflow.alerts import late


class QueuedAt(BaseDeadlineReference):
    """When a run was queued: announced by a DAG, scheduled, or triggered by a person.

    In place of Airflow's ``DAGRUN_QUEUED_AT``: no task of a run that has such a deadline can be cleared, since Airflow
    3.3 then fails to compute the deadline anew (apache/airflow#70368). A deadline of ours stays where it was.
    """

    required_kwargs = frozenset({"dag_id", "run_id"})  # what Airflow hands to _evaluate_with

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> Any:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        return session.scalar(select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))


def after(hours: float | None) -> DeadlineAlert | None:
    """The deadline of a DAG whose runs are late if they have not ended so many hours after they were queued.

    The callback runs in the triggerer: of executors, those of Celery and of one machine alone take callbacks, and with
    any other one the first late run would end the scheduler.
    """
    if hours is None:
        return None
    return DeadlineAlert(
        reference=QueuedAt(),
        interval=timedelta(hours=hours),
        callback=AsyncCallback(late, {"hours": hours}),
        name=f"{hours:g} h after it was queued",
    )
