"""The plugin that Airflow loads: TaskGalaxy's schedules, its pages, and the link to them in the navigation."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from galaxy_airflow.timetables import ByHand, CronWithRuntimePartitions, PartitionsOrCron


def _pages() -> list[dict[str, Any]]:
    """The pages, if this process is the API server; other processes would import their packages in vain."""
    import sys

    if not any("api-server" in argument or "api_server" in argument for argument in sys.argv):
        return []
    from galaxy_airflow.pages import app

    return [{"app": app, "url_prefix": "/galaxy", "name": "TaskGalaxy"}]


class GalaxyPlugin(AirflowPlugin):
    """TaskGalaxy in Airflow."""

    name = "taskgalaxy"
    timetables: ClassVar[list[Any]] = [ByHand, CronWithRuntimePartitions, PartitionsOrCron]
    fastapi_apps = _pages()
    external_views: ClassVar[list[Any]] = [
        {"name": "Galaxy", "href": "/galaxy/", "destination": "nav", "category": "browse", "url_route": "galaxy"}
    ]
