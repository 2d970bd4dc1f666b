"""Waiting for a model that serves nothing: who is looked at, how often, and until when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from serving import Quiet, served

from taskgalaxy_ops.inference import model_wait
from taskgalaxy_ops.settings import Model


@pytest.fixture
def looks() -> list[tuple[str, str]]:
    """Path and authorization of every look at the server."""
    return []


@pytest.fixture
def server(looks: list[tuple[str, str]]) -> Iterator[tuple[str, list[int]]]:
    """A server's URL, and the statuses with which it replies, in turn, the last one for good."""
    statuses = [503, 200]

    class Handler(Quiet):
        def handle_it(self) -> None:
            looks.append((self.path, self.headers["Authorization"]))
            self.answer(statuses.pop(0) if len(statuses) > 1 else statuses[0], b"{}")

    with served(Handler) as url:
        yield f"{url}/v1", statuses


def model(url: str, **more: object) -> Model:
    return Model.model_validate({"name": "t", "model": "m", "base_url": url, "api_key_env": "OF_TESTS", **more})


def waited(models: list[Model], seconds: float, keys: dict[str, str]) -> bool:
    return asyncio.run(model_wait.until_one_is_back(models, keys, 0.01, time.time() + seconds))


@pytest.mark.parametrize("status", [200, 404, 401])
def test_a_server_that_replies_is_back(
    server: tuple[str, list[int]], looks: list[tuple[str, str]], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_wait, "LOOK_SECONDS", 0.01)
    url, statuses = server
    statuses[:] = [503, 429, status]
    assert waited([model(url)], 30, {"OF_TESTS": "sk-1"})
    assert looks == 3 * [("/v1/models", "Bearer sk-1")]


def test_a_server_that_fails_is_waited_for_until_the_time_is_over(
    server: tuple[str, list[int]], looks: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_wait, "LOOK_SECONDS", 0.05)
    url, statuses = server
    statuses[:] = [500]
    gone = model("http://127.0.0.1:9/v1", name="gone")
    assert not waited([model(url), gone], 0.4, {"OF_TESTS": "sk-1"})
    assert looks
    assert not waited([model(url)], -5, {"OF_TESTS": "sk-1"})


def test_without_a_key_the_run_says_what_is_missing(
    server: tuple[str, list[int]], looks: list[tuple[str, str]]
) -> None:
    assert waited([model(server[0])], 30, {})
    assert looks == []


def test_models_are_handed_on_without_their_keys() -> None:
    those = [model("http://127.0.0.1:9/v1", patience_seconds=5), model("http://127.0.0.1:9/v1", name="u")]
    assert model_wait.read(model_wait.to_json(those)) == those


def test_the_longer_it_is_away_the_longer_is_the_first_wait() -> None:
    """A server may reply while its model serves nothing: whoever comes back each time must not come too often."""
    assert [model_wait.first_wait(away) for away in (0, 70, 400, 10_000)] == [15, 17.5, 100, 300]
