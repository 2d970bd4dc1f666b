"""The simulated models' rate limits: what is admitted, what a refusal and the headers say, and /control."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from taskgalaxy_ops.simulator.config import Faults, Limits, SimulatorConfig
from taskgalaxy_ops.simulator.limits import Gate, Refused, Slot, duration
from taskgalaxy_ops.simulator.serve import running

EXPAND = {"request": "expand", "kind": "level1", "path": "", "existing": [], "count": 4, "round": 1}
MESSAGES: Any = [{"role": "user", "content": f"```json\n{json.dumps(EXPAND)}\n```"}]


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(**limits: Any) -> tuple[Gate, Clock]:
    clock = Clock()
    return Gate(Limits(**limits), clock), clock


def admit(gate: Gate, key: str = "key", model: str = "model", tokens: int = 0) -> Slot:
    slot = gate.admit(key, model, tokens)
    assert isinstance(slot, Slot), slot
    return slot


def refuse(gate: Gate, key: str = "key", model: str = "model", tokens: int = 0) -> Refused:
    refused = gate.admit(key, model, tokens)
    assert isinstance(refused, Refused)
    return refused


def test_without_limits_everything_is_admitted_and_no_header_sent() -> None:
    free, _ = gate()
    for _ in range(1000):
        admit(free, tokens=10**6)
    assert free.headers("key", "model") == {}


def test_so_many_are_in_flight_and_one_more_when_one_has_left() -> None:
    limited, _ = gate(concurrency=2, busy_seconds=3)
    first = admit(limited)
    admit(limited)
    assert refuse(limited).seconds == 3
    first.release(None)
    admit(limited)
    refuse(limited)


def test_a_key_has_limits_of_its_own_and_its_models_share_them_unless_told_otherwise() -> None:
    shared, _ = gate(concurrency=1)
    admit(shared, "a", "x")
    refuse(shared, "a", "y")
    admit(shared, "b", "x")
    apart, _ = gate(concurrency=1, by="model")
    admit(apart, "a", "x")
    admit(apart, "a", "y")
    refuse(apart, "a", "x")


def test_requests_a_second_fill_steadily_and_what_is_refused_takes_nothing() -> None:
    limited, clock = gate(requests_per_second=4)
    for _ in range(4):
        admit(limited)
    for _ in range(10):
        assert refuse(limited).seconds == 0.25
    clock.now = 0.5
    admit(limited)
    admit(limited)
    refuse(limited)
    clock.now = 100
    for _ in range(4):
        admit(limited)
    refuse(limited)


def test_of_two_rates_both_hold() -> None:
    limited, clock = gate(requests_per_second=2, requests_per_minute=3)
    admit(limited)
    admit(limited)
    clock.now = 1
    admit(limited)
    assert refuse(limited).seconds == pytest.approx(19)  # the fourth of three a minute, from 0 s
    assert limited.headers("key", "model")["x-ratelimit-limit-requests"] == "3"


def test_tokens_are_estimated_first_and_settled_with_what_was_used() -> None:
    limited, clock = gate(tokens_per_minute=600)
    slot = admit(limited, tokens=500)
    assert refuse(limited, tokens=200).kind == "tokens"
    slot.release(100)
    admit(limited, tokens=500).release(1100)  # used more than was thought: owed
    assert refuse(limited, tokens=1).seconds == pytest.approx(60.1)
    clock.now = 61
    admit(limited, tokens=10).release(None)
    clock.now = 1000
    assert limited.headers("key", "model")["x-ratelimit-remaining-tokens"] == "600"
    admit(limited, tokens=10_000)  # more than ever fits: admitted when the bucket is full


def test_headers_are_openai_s() -> None:
    limited, _ = gate(requests_per_second=2, tokens_per_minute=6000)
    admit(limited, tokens=1000)
    assert limited.headers("key", "model") == {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-tokens": "10s",
    }
    admit(limited)
    refused = refuse(limited)
    told = limited.headers("key", "model", refused)
    assert (told["retry-after"], told["retry-after-ms"]) == ("1", "500")
    silent, _ = gate(requests_per_second=1, headers=False)
    admit(silent)
    assert set(silent.headers("key", "model", refuse(silent))) == {"retry-after", "retry-after-ms"}
    mute, _ = gate(requests_per_second=1, headers=False, retry_after=False)
    admit(mute)
    assert mute.headers("key", "model", refuse(mute)) == {}


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0ms"), (0.0121, "13ms"), (1.2, "1.2s"), (59.9999, "1m0s"), (372.5, "6m12.5s")]
)
def test_a_duration_is_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


# Through the server, with the official client


def client(url: str, key: str = "key") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)


async def statuses(url: str, count: int, key: str = "key") -> list[int]:
    async with client(url, key) as models:

        async def ask() -> int:
            try:
                await models.chat.completions.create(model="sim-teacher", messages=MESSAGES)
            except openai.RateLimitError as error:
                assert error.code == "rate_limit_exceeded"
                return error.status_code
            return 200

        return sorted(await asyncio.gather(*(ask() for _ in range(count))))


async def traffic(url: str) -> dict[str, Any]:
    async with client(url.removesuffix("/v1")) as server:
        told: dict[str, Any] = await server.get("/stats", cast_to=dict[str, Any])
        return dict(told["traffic"])


async def control(url: str, **changes: Any) -> None:
    async with client(url.removesuffix("/v1")) as server:
        await server.post("/control", cast_to=dict[str, Any], body=changes)


def test_above_the_concurrency_there_are_429s_and_stats_counts_them() -> None:
    # A reply that hangs is in flight until its client gives up: no clock decides who comes in.
    config = SimulatorConfig(faults=Faults(hang=1), limits=Limits(concurrency=2))

    async def run() -> None:
        with running(config) as url:
            async with client(url) as models:
                body: Any = {"model": "sim-teacher", "messages": MESSAGES, "timeout": 60}
                hanging = [asyncio.create_task(models.chat.completions.create(**body)) for _ in range(2)]
                while (await traffic(url))["in_flight_max"] < 2:
                    await asyncio.sleep(0.01)
                with pytest.raises(openai.RateLimitError) as refused:
                    await models.chat.completions.create(**body)
                assert refused.value.response.headers["retry-after"] == "1"
                for task in hanging:
                    task.cancel()
            told = await traffic(url)
            assert (told["rate_limited"], told["in_flight_max"]) == (1, 3)
            assert told["first_arrival"] <= told["last_reply"]

    asyncio.run(run())


def test_limits_hold_for_a_key_and_change_while_the_server_runs() -> None:
    async def run() -> None:
        with running(SimulatorConfig(limits=Limits(requests_per_minute=3, headers=False))) as url:
            assert await statuses(url, 5) == [200] * 3 + [429] * 2
            assert await statuses(url, 4, key="other") == [200] * 3 + [429]
            await control(url, limits={"requests_per_minute": 4})
            assert await statuses(url, 5) == [200] * 4 + [429]
            await control(url, limits={"requests_per_minute": None, "tokens_per_minute": 1})
            async with client(url) as models:
                raw = await models.chat.completions.with_raw_response.create(model="sim-teacher", messages=MESSAGES)
                assert not any(name.startswith("x-ratelimit") for name in raw.headers)
                await control(url, limits={"headers": True})
                raw = await models.chat.completions.with_raw_response.create(model="sim-teacher", messages=MESSAGES)
                assert raw.headers["x-ratelimit-remaining-tokens"] == "0"
                with pytest.raises(openai.RateLimitError) as refused:
                    await models.chat.completions.create(model="sim-teacher", messages=MESSAGES)
                assert refused.value.type == "tokens"

    asyncio.run(run())


def test_a_refused_request_is_no_attempt() -> None:
    async def run() -> None:
        with running(SimulatorConfig(limits=Limits(requests_per_minute=1))) as url:
            assert await statuses(url, 3) == [200, 429, 429]
            async with client(url.removesuffix("/v1")) as server:
                told: dict[str, Any] = await server.get("/stats", cast_to=dict[str, Any])
            assert (told["requests"], told["units"]["asked"]) == (1, 1)

    asyncio.run(run())
