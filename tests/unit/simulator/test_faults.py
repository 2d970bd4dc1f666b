"""How the simulated models' server fails a client's connections and its start, seen by the official client."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import openai
import pytest

from taskgalaxy_ops.simulator.config import Faults, SimulatorConfig
from taskgalaxy_ops.simulator.faults import Start
from taskgalaxy_ops.simulator.serve import running

BLOCK = {"request": "expand", "kind": "level1", "path": "", "existing": [], "count": 4, "round": 1}


def ask(url: str, retries: int = 0) -> Any:
    messages: Any = [{"role": "user", "content": f"```json\n{json.dumps(BLOCK)}\n```"}]
    with openai.OpenAI(base_url=url, api_key="key", max_retries=retries, timeout=60) as client:
        return client.chat.completions.create(model="sim-teacher", messages=messages)


def read(url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    where = url.removesuffix("/v1") + path
    with urllib.request.urlopen(where, body and json.dumps(body).encode(), timeout=60) as reply:
        told: dict[str, Any] = json.load(reply)
    return told


@pytest.mark.parametrize(("fault", "paid_for"), [("reset", {}), ("half_body", {"sim-teacher": 1})])
def test_a_broken_connection_is_an_error_once_and_the_server_goes_on(fault: str, paid_for: dict[str, int]) -> None:
    with running(SimulatorConfig(faults=Faults(**{fault: 1}))) as url:
        with pytest.raises(openai.APIConnectionError):
            ask(url)
        told = read(url, "/stats")
        assert told["faults"] == {fault: 1} and told["calls"] == paid_for
        assert told["units"]["answered"] == 0 and told["traffic"]["statuses"] == {"broken": 1}
        read(url, "/control", {"faults": {fault: 0}})
        assert ask(url).choices[0].finish_reason == "stop"


def test_the_official_client_s_retries_get_through_broken_connections() -> None:
    with running(SimulatorConfig(seed=1, faults=Faults(reset=0.4, half_body=0.4))) as url:
        assert ask(url, retries=30).choices[0].finish_reason == "stop"
        assert read(url, "/stats")["units"]["answered"] == 1


def test_a_duplicated_reply_says_everything_twice() -> None:
    with running(SimulatorConfig(faults=Faults(duplicated=1))) as url:
        children = json.loads(ask(url).choices[0].message.content)["children"]
        assert len(children) == 8 and children[:4] == children[4:]


def test_a_starting_server_refuses_or_takes_longer_until_it_has_started() -> None:
    now = 100.0
    start = Start(lambda: now)
    refusing, slow = Faults(slow_start=10), Faults(slow_start=10, slow_start_latency=2)
    assert (start.delay(refusing), start.delay(slow), start.delay(Faults())) == (None, 2, 0)
    now = 110.0
    assert (start.delay(refusing), start.delay(slow)) == (0, 0)
    start.again()
    assert start.delay(refusing) is None


def test_a_start_is_a_503_over_http_and_control_begins_and_ends_it() -> None:
    with running(SimulatorConfig()) as url:
        assert ask(url).choices
        read(url, "/control", {"faults": {"slow_start": 3600}})
        with pytest.raises(openai.InternalServerError) as refused:
            ask(url)
        assert refused.value.status_code == 503
        read(url, "/control", {"faults": {"slow_start_latency": 0}})
        assert ask(url).choices
        told = read(url, "/stats")
        assert told["traffic"]["statuses"] == {"200": 2, "503": 1} and told["requests"] == 2
