"""What waits in the triggerer: fires for what there is to do, holds no key, and is light."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from pkgutil import resolve_name
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from dags.bag import bag
from dags.conftest import write_settings
from taskgalaxy_ops.demo.airflow_stack import ROOT
from taskgalaxy_ops.inference import batch_wait
from taskgalaxy_ops.inference.batch_wait import PendingBatch
from taskgalaxy_ops.operations.airflow.provision import environment_of
from taskgalaxy_ops.settings import BatchSettings, Model, parse_settings

KEY = "sk-of-a-connection"
SETTINGS = BatchSettings(poll_seconds=0.01, lookup_seconds=600)


def asked_of(name: str, url: str) -> Model:
    return Model.model_validate(
        {"name": name, "model": "m", "base_url": url, "api_key_env": "OF_TESTS", "retries": 1, "patience_seconds": 5}
    )


class Provider:
    """Batches of a provider that knows one key; ``told``: what it says of each, in turn, the last one for good."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.looks = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, status = provider.told[min(provider.looks, len(provider.told) - 1)]
                provider.looks += 1
                if self.headers["Authorization"] != f"Bearer {KEY}":
                    code = 401
                batch = {"id": "batch_1", "object": "batch", "status": status, "created_at": 1, "input_file_id": "f"}
                batch |= {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
                batch |= {"metadata": {"taskgalaxy": "nonce"}}
                listed = {"object": "list", "data": [batch] if status else [], "has_more": False}
                body = {"error": {"message": "no"}} if code != 200 else batch if "batch_" in self.path else listed
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def fired(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a trigger as Airflow does, out of what it wrote down; gives what it fired with.

    The model's key is in Airflow's connection alone; ``seconds``: until waiting is over.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.serde import deserialize, serialize

    bag()  # puts the plugins on the path
    from galaxy_airflow.triggers import BatchEnd

    async def connection(name: str) -> Any:
        if name != "galaxy_model_teacher":
            raise AirflowNotFoundException(name)
        return SimpleNamespace(password=KEY)

    monkeypatch.setattr(Connection, "async_get", connection)
    monkeypatch.delenv("OF_TESTS", raising=False)

    def run(seconds: float = 60, name: str = "teacher", id: str | None = "batch_1", age: float = 0) -> Any:
        those = [PendingBatch(nonce="nonce", id=id, model=asked_of(name, provider.url), units=3, at=time.time() - age)]
        assert batch_wait.read(batch_wait.to_json(those)) == those
        path, kwargs = BatchEnd(
            batch_wait.to_json(those), SETTINGS.model_dump(mode="json"), time.time() + seconds
        ).serialize()
        written = json.dumps(serialize(kwargs))
        assert KEY not in written
        again = resolve_name(path)(**deserialize(json.loads(written)))

        async def first() -> Any:
            return await anext(again.run())

        return asyncio.run(first()).payload

    return run


def test_it_fires_once_a_batch_has_ended(fired: Callable[..., Any], provider: Provider) -> None:
    provider.told = [(200, "in_progress"), (200, "in_progress"), (200, "completed")]
    assert fired() is True
    assert provider.looks == 3


def test_it_fires_once_waiting_is_over(fired: Callable[..., Any], provider: Provider) -> None:
    provider.told = [(200, "in_progress")]
    assert fired(seconds=0.1) is False
    assert fired(seconds=-5) is False


def test_a_provider_that_is_away_is_waited_for(fired: Callable[..., Any], provider: Provider) -> None:
    provider.told = [(503, ""), (503, ""), (200, "completed")]
    assert fired() is True
    assert provider.looks == 3


def test_one_that_may_not_have_been_made_is_looked_for_as_long_as_the_settings_say(
    fired: Callable[..., Any], provider: Provider
) -> None:
    provider.told = [(200, ""), (200, ""), (200, "in_progress")]
    assert fired(id=None) is True  # the list shows it
    assert provider.looks == 3
    provider.told = [(200, "")]
    assert fired(id=None, age=601) is True  # the task makes it anew
    assert provider.looks == 4


def test_without_a_key_it_says_why_and_leaves_it_to_the_task(
    fired: Callable[..., Any], provider: Provider, said: Callable[[], str]
) -> None:
    provider.told = [(200, "completed")]
    assert fired(name="another") is False
    assert "OF_TESTS holds no key" in said()
    assert provider.looks == 0


@pytest.mark.parametrize(
    ("wait_seconds", "hours", "began", "left"),
    [
        (None, 2, timedelta(), 7200),
        (None, 2, timedelta(hours=1), 3600),
        (3600, 2, timedelta(minutes=30), 1800),
        (3600, 2, timedelta(hours=1), None),
        (None, 2, timedelta(hours=2), None),
        (0, 2, timedelta(), None),
    ],
)
def test_a_task_waits_as_long_as_the_settings_say(
    wait_seconds: float | None, hours: float, began: timedelta, left: float | None
) -> None:
    """``left``: seconds that it waits from now on; None: it does not."""
    from airflow.sdk.exceptions import TaskDeferred

    bag()  # puts the plugins on the path
    from galaxy_airflow.tasks.common import defer

    settings = write_settings(airflow={"lane_hours": hours}, run={"batch": {"wait_seconds": wait_seconds}})
    now = datetime.now(UTC)
    those = [
        PendingBatch(nonce="nonce", id="batch_1", model=asked_of("teacher", "http://127.0.0.1:9/v1"), units=3, at=0.0)
    ]
    defer([], settings, now)
    if left is None:
        defer(those, settings, now - began)
        return
    with pytest.raises(TaskDeferred) as raised:
        defer(those, settings, now - began)
    assert raised.value.trigger.until - now.timestamp() == pytest.approx(left)
    assert raised.value.trigger.settings["poll_seconds"] == 30


def test_it_loads_little() -> None:
    code = (
        "import asyncio, json, sys; from galaxy_airflow import triggers; before = set(sys.modules)\n"
        "trigger = triggers.BatchEnd([], {}, 0.0)\n"
        "async def first(): return await anext(trigger.run())\n"
        "assert asyncio.run(first()).payload is False\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "plugins")
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "openai" in loaded
    assert not {"torch", "boto3", "pyarrow", "pandas", "transformers", "onnxruntime"}.intersection(loaded)


def test_each_model_s_key_comes_from_its_connection(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of the model that answers blind, which is waited for as the others are."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    bag()
    from galaxy_airflow import runtime
    from galaxy_airflow.operators import Waiting
    from galaxy_airflow.tasks.common import defer_until_back

    def connection(name: str) -> Any:
        if name.startswith("galaxy_model_"):
            return SimpleNamespace(host="", login="", password=f"{KEY}-{name}", extra_dejson={})
        raise AirflowNotFoundException(name)

    monkeypatch.setattr(Connection, "get", connection)
    names = ("teacher", "a", "b", "c", "blind")
    models = [{"name": name, "model": name, "base_url": provider.url, "api_key_env": f"OF_{name}"} for name in names]
    settings = parse_settings(
        {
            "store": tmp_path.as_uri(),
            "sources": {"images": {"location": str(tmp_path)}},
            "teacher": models[0],
            "judges": models[1:4],
            "vote": {"blind": {"model": models[4]}},
        }
    )
    assert environment_of(settings, runtime._connections(settings)) == {
        f"OF_{name}": f"{KEY}-galaxy_model_{name}" for name in names
    }
    with pytest.raises(Waiting) as waiting:
        defer_until_back({"blind": time.time()}, {"blind": "HTTP 503"}, settings, None)
    assert "blind has served nothing" in waiting.value.why
