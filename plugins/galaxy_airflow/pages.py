"""Pages in Airflow's UI for users who may read DAGs: the store's state, and the pages that tasks wrote.

The API server reads the store with the keys of the Airflow connection, as tasks do. The pages contain models' text:
each is served in a sandbox, so that a script which got into one could not use the reader's Airflow session.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse, PlainTextResponse

from galaxy_airflow.links import PAGE_NAME

app = FastAPI(title="TaskGalaxy", docs_url=None, redoc_url=None, openapi_url=None)

_MAY_READ = [Depends(requires_access_dag("GET", param_dag_id="galaxy_generate"))]
_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


@app.get("/", dependencies=_MAY_READ)
def overview() -> HTMLResponse:
    """The store's state: sources, spending, announcements and releases."""
    from taskgalaxy_ops.reports.pages import status as status_pages

    with _workspace() as workspace:
        return HTMLResponse(status_pages.status_page(workspace), headers=_HEADERS)


@app.get("/reports/{name}", dependencies=_MAY_READ)
def report(name: Annotated[str, Path(pattern=f"^{PAGE_NAME.pattern}$")]) -> HTMLResponse:
    """A page that a task wrote; 404 where there is none of this name."""
    from taskgalaxy_ops.errors import NotFoundError
    from taskgalaxy_ops.storage import keys

    with _workspace() as workspace:
        try:
            return HTMLResponse(workspace.store.get(keys.report(name)), headers=_HEADERS)
        except NotFoundError as error:
            raise HTTPException(404, f"There is no page {name}.") from error


@app.get("/healthz")
def health() -> PlainTextResponse:
    """Answers "ok": the plugin is loaded."""
    return PlainTextResponse("ok")


@contextmanager
def _workspace() -> Iterator[Any]:
    """Open the workspace for reading. An error of the settings or the store becomes HTTP 503 with its message."""
    from taskgalaxy_ops.errors import TaskGalaxyError
    from taskgalaxy_ops.operations.airflow.provision import environment_of
    from taskgalaxy_ops.settings import load_settings, settings_path
    from taskgalaxy_ops.workspace import Workspace

    try:
        settings = load_settings(settings_path())
        os.environ.update(environment_of(settings, _connections()))
        yield Workspace.open(settings)
    except TaskGalaxyError as error:
        raise HTTPException(503, str(error)) from error


def _connections() -> dict[str, Any]:
    """The store's connection only: the API server needs no model's key."""
    from airflow.exceptions import AirflowNotFoundException
    from airflow.models.connection import Connection

    from galaxy_airflow.runtime import spec_of
    from taskgalaxy_ops.operations.airflow.provision import STORE_CONNECTION

    try:
        connection = Connection.get_connection_from_secrets(STORE_CONNECTION)
    except AirflowNotFoundException:
        return {}
    return {STORE_CONNECTION: spec_of(STORE_CONNECTION, connection)}
