"""Label Studio itself, of the Python that TASKGALAXY_LABEL_STUDIO names: tasks go in, votes come out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from taskgalaxy_ops.operations.review import Drawn, Filled
from taskgalaxy_ops.operations.review_files import LABELS, read_reviews, to_label_studio
from taskgalaxy_ops.records import Pair, Vote

# As this process was started: tests/conftest.py takes such variables away.
PYTHON = psutil.Process().environ().get("TASKGALAXY_LABEL_STUDIO", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="TASKGALAXY_LABEL_STUDIO names no Python with label-studio"),
]

_TOKEN = "0123456789abcdef" * 2 + "01234567"
_STARTS_IN = 600.0  # seconds: it makes its database first
Api = Callable[..., Any]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Calls a Label Studio that was just started: method, path, JSON body; returns JSON."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    told = {
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    }
    command = [str(Path(PYTHON).parent / "label-studio"), "start", "--no-browser", "--port", str(port)]
    command += ["--internal-host", "127.0.0.1", "--data-dir", str(tmp_path / "data")]
    command += ["--username", "reviewer@example.org", "--password", "not-a-secret-1", "--user-token", _TOKEN]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **told}, stdout=log, stderr=log, start_new_session=True
        )
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Token {_TOKEN}"}, timeout=60, trust_env=False
    ) as client:

        def call(method: str, path: str, body: Any = None) -> Any:
            reply = client.request(method, path, json=body)
            assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
            return reply.json()

        try:
            until = time.monotonic() + _STARTS_IN
            while not _is_up(client):
                assert server.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()[-2000:]
                time.sleep(1)
            yield call
        finally:
            for child in [*psutil.Process(server.pid).children(recursive=True), server]:
                child.terminate()
            server.wait(30)


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/api/projects").is_success
    except httpx.TransportError:
        return False


def test_tasks_go_in_and_votes_come_out(api: Api, tmp_path: Path) -> None:
    pairs = [
        Pair(f"{number:064x}", "cd" * 32, "ocr~ocr a", "plain", f"<b>{number}</b>?", "<script>", "since")
        for number in range(3)
    ]
    drawn = [
        Drawn(pair=pair, accepted=True, votes=[Vote(pair.pair, "anna", 1, "", False)], stratum={}, of=3)
        for pair in pairs
    ]
    project = api("POST", "/api/projects", {"title": "review", "label_config": LABELS})["id"]
    tasks = json.loads(to_label_studio(drawn, ["/data/local-files/?d=x.jpg"] * 3))
    assert api("POST", f"/api/projects/{project}/import", tasks)["prediction_count"] == 3
    shown = api("GET", f"/api/tasks?project={project}&fields=all")["tasks"]
    number = {task["data"]["pair"]: task["id"] for task in shown}
    assert [task["predictions"][0]["result"][0]["value"]["choices"] for task in shown] == [["right"]] * 3
    for pair, verdict, texts in (
        (pairs[0], "wrong", {"corrected_answer": "three", "reason": "=count them"}),
        (pairs[1], "right", {}),
    ):
        result = [
            {"from_name": "verdict", "to_name": "image", "type": "choices", "value": {"choices": [verdict]}},
            *(
                {"from_name": name, "to_name": "image", "type": "textarea", "value": {"text": [text]}}
                for name, text in texts.items()
            ),
        ]
        api("POST", f"/api/tasks/{number[pair.pair]}/annotations/", {"result": result})
    file = tmp_path / "export.json"
    file.write_text(json.dumps(api("GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true")))
    one, other = read_reviews(file)
    assert one.reviewer.startswith("label-studio-")
    said = {"reviewer": one.reviewer, "verdict": "wrong", "reason": "=count them", "answer": "three"}
    assert one == Filled(place=f"task {number[pairs[0].pair]}", pair=pairs[0].pair, **said)
    assert (other.pair, other.verdict, other.answer) == (pairs[1].pair, "right", "")
