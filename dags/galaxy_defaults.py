"""Shared by the DAGs: defaults of tasks, retries by kind of error, pools, assets, schedules.

Imports nothing heavy, because every parse of every DAG imports this module. Tasks import the library when they run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, RetryAction, RetryRule, TriggerRule

from galaxy_airflow.alerts import failed
from galaxy_airflow.deadlines import after
from galaxy_airflow.known import offered, recall
from galaxy_airflow.operators import PlanApproval, RetryByError
from galaxy_airflow.timetables import ByHand, ByHandWithRuntimePartitions, Cron, CronWithRuntimePartitions
from taskgalaxy_ops.settings import airflow_settings

SETTINGS = airflow_settings()

# What the forms offer; others can be typed all the same, since this is read only when DAG files are parsed.
OFFERED_SOURCES, OFFERED_RELEASES, OFFERED_SETTINGS, OFFERED_TAXONOMIES = offered(
    recall(), "sources", "releases", "settings", "taxonomies"
)

# Assets. Partition keys: a source's name; of releases, the version.
SOURCES = Asset(name="galaxy_sources", uri="galaxy://sources", extra={"partition": "source"})
SAMPLES = Asset(name="galaxy_samples", uri="galaxy://samples", extra={"partition": "source"})
RELEASES = Asset(name="galaxy_releases", uri="galaxy://releases", extra={"partition": "version"})

ENCODERS, TEACHER, JUDGES, STORE = "galaxy_encoders", "galaxy_teacher", "galaxy_judges", "galaxy_store"

# What a task returns: a dict of numbers and names. Declared as a dict, each field would become an XCom of its own.
Receipt = Any

_ERRORS = "taskgalaxy_ops.errors"
RETRIES = RetryByError(
    rules=[
        RetryRule(
            exception=[f"{_ERRORS}.{name}" for name in ("LeaseLostError", "UnansweredError", "SchedulerError")],
            action=RetryAction.RETRY,
            reason="another run works on it, or a model or scheduler gives no reply for now: trying again can help",
        ),
        RetryRule(
            exception=f"{_ERRORS}.NotFoundError",
            action=RetryAction.FAIL,
            reason="an object is gone: trying again would not find it. See galaxy_upkeep",
        ),
        RetryRule(exception=f"{_ERRORS}.StoreError", action=RetryAction.RETRY, reason="the store is out of reach"),
        RetryRule(
            exception=f"{_ERRORS}.TaskGalaxyError",
            action=RetryAction.FAIL,
            reason="trying again would end in the same error: mend what the message names, then clear the task",
        ),
    ]
)

DEFAULTS: dict[str, Any] = {
    "owner": "taskgalaxy",
    "retries": SETTINGS.retries,
    "retry_delay": timedelta(seconds=SETTINGS.retry_seconds),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
    "retry_policy": RETRIES,
    "execution_timeout": timedelta(hours=12),
    "on_failure_callback": failed,
    "pool": STORE,
}
LANE_TIMEOUT = timedelta(hours=SETTINGS.lane_hours)


def common(name: str) -> dict[str, Any]:
    """What a DAG has in common with the others, and its deadline, if the settings give it one.

    name: the DAG's id without galaxy_, as in `airflow.deadline_hours`.
    """
    return {
        "catchup": False,
        "default_args": DEFAULTS,
        "render_template_as_native_obj": False,
        "deadline": after(getattr(SETTINGS.deadline_hours, name)),
    }


def planned_first(registered: Any) -> PlanApproval:
    """The task that plans a run of what was registered and asks a person, if the form chose to plan first.

    It waits for no encoder's slot, since announcements wait for it, and it encodes labels alone.
    """
    return PlanApproval(
        task_id="plan",
        about=registered,
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        execution_timeout=None,
    )


def by_cron(cron: str | None) -> Any:
    """The schedule of a DAG that runs by cron. cron: None for a DAG that runs only by hand."""
    return Cron(cron, timezone="UTC") if cron else ByHand()


def announcing(cron: str | None) -> Any:
    """As `by_cron`, for a DAG whose tasks name the sources that they announce."""
    return CronWithRuntimePartitions(cron, timezone="UTC") if cron else ByHandWithRuntimePartitions()


def by_hand(dag_run: Any) -> bool:
    """Whether this run was started by hand: with the form, or by the REST API."""
    return str(dag_run.run_type.value if hasattr(dag_run.run_type, "value") else dag_run.run_type) == "manual"
