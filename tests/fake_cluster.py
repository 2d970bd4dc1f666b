"""A cluster's batch API on 127.0.0.1, as far as training jobs need it. It rejects Jobs that Kubernetes would."""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kubernetes_validate

TOKEN = "a-token"


class FakeCluster:
    """Keeps Jobs by name; a test sets their status."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.refuses: tuple[int, str] | None = None  # status and message of the reply to every request
        self.slow_deletion = False  # a deleted Job stays until `end_deletions`, as it does while its pods end
        self.lock = threading.Lock()
        cluster = self

        class Handler(_Handler):
            fake = cluster

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def kubeconfig(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": TOKEN}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }

    def set(self, name: str, condition: str | None = None) -> None:
        """Set a Job's status to a condition that is true; None: active."""
        conditions = [{"type": condition, "status": "True"}] if condition else []
        self.jobs[name]["status"] = {"conditions": conditions} if condition else {"active": 1}

    def end_deletions(self) -> None:
        with self.lock:
            gone = [name for name, job in self.jobs.items() if job["metadata"].get("deletionTimestamp")]
            for name in gone:
                del self.jobs[name]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeCluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _refuse(self, code: int, reason: str, message: str) -> None:
        self._answer(
            code,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": reason,
                "message": message,
                "code": code,
            },
        )

    def _begin(self) -> tuple[Any, str] | None:
        """The request's body and the Job's name; None: the request was refused, and has its reply."""
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.fake.requests.append((self.command, self.path, body))
        if self.headers.get("Authorization") not in {TOKEN, f"Bearer {TOKEN}"}:
            self._refuse(401, "Unauthorized", "Unauthorized")
            return None
        if self.fake.refuses:
            code, message = self.fake.refuses
            self._refuse(code, "Refused", message)
            return None
        prefix = "/apis/batch/v1/namespaces/training/jobs"
        path = self.path.partition("?")[0]
        if not path.startswith(prefix):
            self._refuse(403, "Forbidden", f"{path} is forbidden")
            return None
        return body, path.removeprefix(prefix).strip("/")

    def do_POST(self) -> None:
        if (request := self._begin()) is None:
            return
        body, _ = request
        try:
            kubernetes_validate.validate(body, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            self._refuse(422, "Invalid", error.message)
            return
        with self.fake.lock:
            name = body["metadata"]["name"]
            if name in self.fake.jobs:
                self._refuse(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
                return
            metadata = {**body["metadata"], "uid": str(uuid.uuid4())}
            self.fake.jobs[name] = {**body, "metadata": metadata, "status": {}}
        self._answer(201, self.fake.jobs[name])

    def do_GET(self) -> None:
        if (request := self._begin()) is None:
            return
        if (job := self.fake.jobs.get(request[1])) is None:
            self._refuse(404, "NotFound", f'jobs.batch "{request[1]}" not found')
            return
        self._answer(200, job)

    def do_DELETE(self) -> None:
        if (request := self._begin()) is None:
            return
        options, name = request
        with self.fake.lock:
            if (job := self.fake.jobs.get(name)) is None:
                self._refuse(404, "NotFound", f'jobs.batch "{name}" not found')
                return
            if options["preconditions"]["uid"] != job["metadata"]["uid"]:
                self._refuse(409, "Conflict", "the UID in the precondition does not match")
                return
            job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            if not self.fake.slow_deletion:
                del self.fake.jobs[name]
        self._answer(200, job)
