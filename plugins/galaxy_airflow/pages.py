"""The pages that the UI gains, for whoever may read DAGs: what the store holds, and what tasks wrote.

The API server reads the store with the keys of the connection, as tasks do. Pages hold models' text: each is served in
a sandbox, so that even a script that got into one could not use the reader's Airflow session.
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
    """Sources, stages, spending and releases."""
    from taskgalaxy_ops.reports.pages import status as status_pages

    with _workspace() as workspace:
        return HTMLResponse(status_pages.status_page(workspace), headers=_HEADERS)


@app.get("/reports/{name}", dependencies=_MAY_READ)
def report(name: Annotated[str, Path(pattern=f"^{PAGE_NAME.pattern}$")]) -> HTMLResponse:
    """A page that a task wrote."""
    from taskgalaxy_ops.errors import NotFoundError
    from taskgalaxy_ops.storage import keys

    with _workspace() as workspace:
        try:
            return HTMLResponse(workspace.store.get(keys.report(name)), headers=_HEADERS)
        except NotFoundError as error:
            raise HTTPException(404, f"There is no page {name}.") from error


@app.get("/healthz")
def health() -> PlainTextResponse:
    """Whether the plugin was loaded; says nothing else."""
    return PlainTextResponse("ok")


@contextmanager
def _workspace() -> Iterator[Any]:
    """The store, for reading. What is wrong with settings or store is told to the reader."""
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
    """The store's connection; models' keys have no business in the API server."""
    from airflow.exceptions import AirflowNotFoundException
    from airflow.models.connection import Connection

    from galaxy_airflow.runtime import spec_of
    from taskgalaxy_ops.operations.airflow.provision import STORE_CONNECTION

    try:
        there = Connection.get_connection_from_secrets(STORE_CONNECTION)
    except AirflowNotFoundException:
        return {}
    return {STORE_CONNECTION: spec_of(STORE_CONNECTION, there)}
