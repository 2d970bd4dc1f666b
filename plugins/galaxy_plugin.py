"""The plugin that Airflow loads: TaskGalaxy's schedules, its pages, and the link to them in the navigation."""

from __future__ import annotations

from threading import Timer
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from galaxy_airflow import timetables as own
from galaxy_airflow.deadlines import QueuedAt

_SERVER_STARTS_SECONDS = 5.0  # before that, the server has enough to do


def _pages() -> list[dict[str, Any]]:
    """The pages, if this process is the API server; other processes would import their packages in vain."""
    if not _is("api-server", "api_server"):
        return []
    from galaxy_airflow.notes import keep_notes
    from galaxy_airflow.pages import app, prepare

    keep_notes()
    preparing = Timer(_SERVER_STARTS_SECONDS, prepare)
    preparing.daemon = True
    preparing.start()
    return [{"app": app, "url_prefix": "/galaxy", "name": "TaskGalaxy"}]


def _listeners() -> list[Any]:
    """What writes the runs' notes, if this process is the scheduler."""
    if not _is("scheduler", "standalone"):
        return []
    from galaxy_airflow import listener

    return [listener]


def _is(*names: str) -> bool:
    import sys

    return any(name in argument for argument in sys.argv for name in names)


class GalaxyPlugin(AirflowPlugin):
    """TaskGalaxy in Airflow."""

    name = "taskgalaxy"
    timetables: ClassVar[list[Any]] = [
        *(own.Announced, own.ByHand, own.ByHandWithRuntimePartitions, own.Cron, own.CronWithRuntimePartitions)
    ]
    deadline_references: ClassVar[list[Any]] = [QueuedAt]
    fastapi_apps = _pages()
    listeners = _listeners()
    external_views: ClassVar[list[Any]] = [
        {"name": "Galaxy", "href": "/galaxy/", "destination": "nav", "url_route": "galaxy", "nav_top_level": True},
        *(
            {"name": "Galaxy", "href": f"/galaxy/dags/{path}", "destination": where, "url_route": f"galaxy_{where}"}
            for where, path in (
                ("dag", "{DAG_ID}"),
                ("dag_run", "{DAG_ID}/{RUN_ID}"),
                ("task_instance", "{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"),
            )
        ),
    ]
