"""Pages in Airflow's UI for users who may read DAGs: the store's state, runs, and the pages that tasks wrote.

The API server reads the store with the keys of the Airflow connection, as tasks do. The pages that tasks wrote contain
models' text and scripts of ours: each is served in a sandbox, so that a script which got into one could not use the
reader's Airflow session. The others hold no script but the few lines that follow Airflow's choice of light or dark.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from galaxy_airflow.links import PAGE_NAME, root

log = logging.getLogger("taskgalaxy")
app = FastAPI(title="TaskGalaxy", docs_url=None, redoc_url=None, openapi_url=None)

_MAY_READ = [Depends(requires_access_dag("GET", param_dag_id="galaxy_generate"))]
_MAY_READ_DAG = [Depends(requires_access_dag("GET"))]  # the one in the path
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "private, no-store"}
_SANDBOXED = {**_HEADERS, "Content-Security-Policy": "sandbox allow-scripts allow-popups"}
_Dag = Annotated[str, Path(pattern="^galaxy_[a-z]{1,40}$")]
_THEMES = ("dark", "light")
_RED_SHOWN = 10
_SIDE = 40  # pixels of a picture in a form


@app.get("/", dependencies=_MAY_READ)
def overview() -> HTMLResponse:
    """The store's state: models, sources, spending, announcements and releases, and the runs about them."""
    from galaxy_airflow import run_pages
    from taskgalaxy_ops.reports.pages import status as status_pages

    with _workspace() as workspace, _session() as session:
        red = run_pages.latest(session, states=("failed",), limit=_RED_SHOWN)
        at_work = run_pages.latest(session, states=("running", "queued"))
        generated = run_pages.latest(session, "galaxy_generate")
        page = status_pages.status_page(
            workspace,
            runs=[("At work", *run_pages.runs_table(at_work)), ("Red, latest", *run_pages.runs_table(red))],
            run_of={each.of.removeprefix("source "): each.link for each in reversed(generated)},
            root=root(),
        )
        return HTMLResponse(page, headers=_HEADERS)


def prepare() -> None:
    """Make that page once for nobody, so that its first reader does not wait for what it imports and connects to."""
    try:
        overview()
    except Exception as error:  # noqa: BLE001 - whoever opens the page is told
        log.debug("the page Galaxy cannot be made yet: %s", error)


@app.get("/dags/{dag_id}", dependencies=_MAY_READ_DAG)
def dag(dag_id: _Dag) -> HTMLResponse:
    """The latest runs of a DAG of ours."""
    from galaxy_airflow import run_pages

    with _session() as session:
        return HTMLResponse(run_pages.dag_page(session, dag_id), headers=_HEADERS)


@app.get("/dags/{dag_id}/{run_id}", dependencies=_MAY_READ_DAG)
def run(dag_id: _Dag, run_id: str) -> HTMLResponse:
    """A run: why it is not green, and the pages that its tasks wrote."""
    from galaxy_airflow import run_pages

    with _session() as session:
        return _found(run_pages.run_page(session, dag_id, run_id), f"{dag_id} has no run {run_id}.")


@app.get("/dags/{dag_id}/{run_id}/{task_id}/{map_index}", dependencies=_MAY_READ_DAG)
def task(dag_id: _Dag, run_id: str, task_id: str, map_index: int) -> HTMLResponse:
    """A task of a run: what it says, what it did, and its page."""
    from galaxy_airflow import run_pages

    with _session() as session:
        page = run_pages.task_page(session, dag_id, run_id, task_id, map_index)
        return _found(page, f"{dag_id} has no run {run_id}.")


def _found(page: str | None, otherwise: str) -> HTMLResponse:
    if page is None:
        raise HTTPException(404, otherwise)
    return HTMLResponse(page, headers=_HEADERS)


@app.get("/reports/{name}", dependencies=_MAY_READ)
def report(name: Annotated[str, Path(pattern=f"^{PAGE_NAME.pattern}$")], theme: str = "") -> HTMLResponse:
    """A page that a task wrote; 404 where there is none of this name. theme: dark or light, as Airflow is."""
    from taskgalaxy_ops.errors import NotFoundError
    from taskgalaxy_ops.storage import keys

    with _workspace() as workspace:
        try:
            page = workspace.store.get(keys.report(name))
        except NotFoundError as error:
            raise HTTPException(404, f"There is no page {name}.") from error
    if theme in _THEMES:  # within its sandbox it cannot know
        page = page.replace(b"<html ", f'<html data-theme="{theme}" '.encode(), 1)
    return HTMLResponse(page, headers=_SANDBOXED)


@app.get("/images/{image}", dependencies=_MAY_READ)
def picture(image: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> Response:
    """A small JPEG of a registered image, for the form by which a person approves task types; 404 if it is gone."""
    from taskgalaxy_ops.errors import NotFoundError
    from taskgalaxy_ops.reports.html import thumbnail
    from taskgalaxy_ops.sources.originals import read_image

    with _workspace() as workspace:
        try:
            raw = read_image(workspace, image)
        except NotFoundError as error:
            raise HTTPException(404, f"There is no image {image}.") from error
    return Response(thumbnail(raw, _SIDE), media_type="image/jpeg", headers=_HEADERS)


@app.get("/healthz")
def health() -> PlainTextResponse:
    """Answers "ok": the plugin is loaded."""
    return PlainTextResponse("ok")


@app.exception_handler(HTTPException)
def refused(_: Any, error: HTTPException) -> HTMLResponse:
    """An error as a page of sentences."""
    from taskgalaxy_ops.reports.html import table_page

    said = {401: "Log in to Airflow first.", 403: "Your role in Airflow may not read these DAGs."}
    lines = said.get(error.status_code, str(error.detail)).splitlines()
    title = {404: "Not there", 503: "TaskGalaxy cannot show its store"}.get(error.status_code, "Not allowed")
    return HTMLResponse(table_page(title, lines, []), error.status_code, {**_HEADERS, **(error.headers or {})})


@contextmanager
def _session() -> Iterator[Any]:
    """Open a session with Airflow's database, for reading."""
    from airflow.utils.session import create_session

    with create_session() as session:
        yield session


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
