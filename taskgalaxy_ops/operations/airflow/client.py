"""A client of Airflow's REST API (v2), as far as the demo, provisioning and tests need it; needs no Airflow package."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from taskgalaxy_ops.errors import TaskGalaxyError

_TOKEN_SECONDS = 600.0  # after that a new token is fetched; Airflow's tokens are valid for a day by default
_TIMEOUT = 30.0
_PAGE = 100
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each retry after a 5xx: all requests here can be repeated safely


class AirflowError(TaskGalaxyError):
    """An Airflow cannot be reached, or refuses a request; the message contains its reply. status: HTTP's, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AirflowClient:
    """Calls one Airflow as one user. All methods raise AirflowError."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._user, self._password = user, password
        self._token, self._since = "", 0.0
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}) if "127.0.0.1" in url else _same())

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send one request below ``/api/v2/``, and return the reply's JSON, or None if it is empty."""
        if time.monotonic() - self._since > _TOKEN_SECONDS or not self._token:
            self._log_in()
        url = f"{self.url}/api/v2/{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
        return self._send(method, url, body, {"Authorization": f"Bearer {self._token}"})

    def _log_in(self) -> None:
        body = {"username": self._user, "password": self._password}
        self._token = self._send("POST", f"{self.url}/auth/token", body, {})["access_token"]
        self._since = time.monotonic()

    def _send(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        own = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(url, data, {**own, **headers}, method=method)
        for wait in (*_WAITS, None):
            try:
                with self._open.open(request, timeout=_TIMEOUT) as reply:
                    raw = reply.read()
                return json.loads(raw) if raw else None
            except urllib.error.HTTPError as error:
                if error.code >= 500 and wait is not None:  # a busy database, most likely
                    time.sleep(wait)
                    continue
                said = error.read().decode("utf-8", "replace")[:500]
                raise AirflowError(f"airflow {method} {url}: {error.code}, {said}", error.code) from error
            except TimeoutError as error:  # Airflow runs, but is busy
                if wait is None:
                    raise AirflowError(f"airflow at {self.url} does not answer {method} {url} ({error}).") from error
            except OSError as error:
                raise AirflowError(f"airflow at {self.url} cannot be reached ({error}). Is it running?") from error
        raise AssertionError("unreachable")

    def pages(self, path: str, name: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a listing, page by page. name: the field of the reply that holds the items."""
        offset = 0
        while True:
            page = self.call("GET", path, limit=_PAGE, offset=offset, **query)
            yield from page[name]
            offset += len(page[name])
            if not page[name] or offset >= page["total_entries"]:
                return

    def put(self, kind: str, name: str, body: Mapping[str, Any]) -> str:
        """Create or change a pool or a connection; returns "created", "set" or "as it was"."""
        path = f"{kind}/{quote(name, safe='')}"
        try:
            existing = self.call("GET", path)
        except AirflowError as error:
            if error.status != 404:
                raise
            try:
                self.call("POST", kind, body)
            except AirflowError as raced:
                if raced.status != 409:
                    raise
            return "created"
        if "password" not in body and all(existing.get(each) == value for each, value in body.items()):
            return "as it was"  # not with a password, which Airflow does not return: it is always set again
        self.call("PATCH", path, body, update_mask=list(body))
        return "set"

    def health(self) -> dict[str, Any]:
        """Each component's status and last heartbeat; needs no user."""
        found: dict[str, Any] = self._send("GET", f"{self.url}/api/v2/monitor/health", None, {})
        return found

    def dags(self) -> dict[str, dict[str, Any]]:
        """The DAGs by id, paused ones included."""
        return {dag["dag_id"]: dag for dag in self.pages("dags", "dags", exclude_stale=True)}

    def unpause(self, dag: str) -> None:
        self.call("PATCH", f"dags/{dag}", {"is_paused": False})

    def trigger(self, dag: str, params: Mapping[str, Any], **more: Any) -> str:
        """Start a run with these params, as the form does, and return its id."""
        run = f"manual__{datetime.now(UTC).isoformat(timespec='seconds')}_{uuid.uuid4().hex[:8]}"
        body = {"dag_run_id": run, "logical_date": None, "conf": dict(params), **more}
        try:
            self.call("POST", f"dags/{dag}/dagRuns", body)
        except AirflowError as error:
            if error.status != 409:  # 409: a first try created the run, although its reply was a 5xx
                raise
        return run

    def runs(self, dag: str = "~", **query: Any) -> list[dict[str, Any]]:
        """The runs of a DAG ("~": of all DAGs), oldest first."""
        return list(self.pages(f"dags/{dag}/dagRuns", "dag_runs", order_by="id", **query))

    def run(self, dag: str, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"dags/{dag}/dagRuns/{quote(run, safe='')}")
        return found

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        return list(self.pages(f"dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances", "task_instances"))

    def log(self, task: Mapping[str, Any], *, tries: int | None = None) -> list[str]:
        """The lines of a task instance's log. tries: the number of the try; None: the last."""
        run = quote(task["dag_run_id"], safe="")
        path = f"dags/{task['dag_id']}/dagRuns/{run}/taskInstances/{task['task_id']}/logs/{tries or task['try_number']}"
        reply = self.call("GET", path, map_index=task["map_index"], full_content=True)
        return [_line(entry) for entry in reply["content"]]

    def xcom(self, task: Mapping[str, Any], key: str = "return_value") -> Any:
        """A task instance's XCom value under a key; None: there is none."""
        run = quote(task["dag_run_id"], safe="")
        path = f"dags/{task['dag_id']}/dagRuns/{run}/taskInstances/{task['task_id']}/xcomEntries/{key}"
        try:
            return self.call("GET", path, map_index=task["map_index"], deserialize=False)["value"]
        except AirflowError as error:
            if error.status == 404:
                return None
            raise


def _same() -> urllib.request.BaseHandler:
    return urllib.request.ProxyHandler()


def _line(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    text = str(entry.get("event", ""))
    for each in entry.get("error_detail") or ():
        text += f" {each.get('exc_type')}: {each.get('exc_value')}"
    return text
