"""Batch mode: what a run through the Batch API leaves is what chats leave, and nothing is submitted twice."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import MemoryStore
from tiny import tiny_galaxy, tiny_images, tiny_seeds, tiny_settings

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.models.simulated.config import Batches, Faults, SimulatorConfig
from taskgalaxy_ops.models.simulated.serve import running
from taskgalaxy_ops.pipeline import RunResult
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.storage.budget import Caps, Ledger
from taskgalaxy_ops.storage.journal import Answer, Journal

PRICE = {"input": 1.0, "output": 2.0}
QUICK = {"poll_seconds": 0.02, "lookup_seconds": 0}


class Provider:
    """The simulated models, and their counts."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _ask(self, path: str, method: str = "GET", data: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(self.url.removesuffix("/v1") + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            told: dict[str, Any] = json.load(reply)
        return told

    def control(self, **changes: Any) -> None:
        self._ask("/control", "POST", json.dumps(changes).encode())

    def anew(self) -> None:
        """Well, and with counts of nothing."""
        self.control(batches=Batches().model_dump(), faults=Faults().model_dump())
        self._ask("/stats", "DELETE")

    def stats(self) -> dict[str, Any]:
        return self._ask("/stats")


@pytest.fixture(scope="module")
def server() -> Iterator[Provider]:
    with running(SimulatorConfig()) as url:
        yield Provider(url)


@pytest.fixture
def provider(server: Provider) -> Provider:
    server.anew()
    return server


class Place:
    """A store and the images that it holds, asked by batch or by chat."""

    def __init__(self, folder: Path, url: str, images: int = 3, **run: Any) -> None:
        self.folder = tiny_images(folder / "images", images)
        self.url = url
        self.store = MemoryStore()
        galaxy = self.open("chat")
        pipeline.ingest(galaxy, "mine")

    def settings(self, mode: str, run: Mapping[str, Any] | None = None, **changes: Any) -> Settings:
        def model(name: str) -> dict[str, Any]:
            told = {"name": name, "base_url": self.url, "model": name, "simulated": True, "price": PRICE}
            return {**told, "mode": mode, "image_side": 64, "retries": 1}

        return tiny_settings(
            self.folder,
            teacher=model("sim-teacher"),
            judges=[model(f"sim-judge-{letter}") for letter in "abc"],
            taxonomy={"seeds": str(tiny_seeds(self.folder.parent / "seeds.yaml"))},
            budget={"max_cost": 100.0, "max_calls": None},
            run={"batch": {**QUICK, **(run or {})}, "lease_seconds": 5, "homes_at_once": 1},
            **changes,
        )

    def open(self, mode: str = "batch", **run: Any) -> Galaxy:
        return tiny_galaxy(self.settings(mode, run), self.store)

    def run(self, mode: str = "batch", last_stage: str = "vote", **run: Any) -> RunResult:
        return pipeline.generate(self.open(mode, **run), last_stage=last_stage)

    def answers(self) -> dict[str, Answer]:
        galaxy = self.open()
        return {
            unit: answer for home in galaxy.journals() for unit, answer in Journal(self.store, home).answers.items()
        }

    def spent(self) -> tuple[int, int, int]:
        return Ledger(self.store, Caps()).spent().plain()

    def billed(self) -> tuple[int, int]:
        """What the journals say that replies cost, and how many tokens they took."""
        found = [reply for home in self.open().journals() for reply in Journal(self.store, home).replies()]
        return sum(r["cost"] for r in found), sum(
            r["usage"].get("prompt_tokens", 0) + r["usage"].get("completion_tokens", 0) for r in found
        )


@pytest.fixture
def place(tmp_path: Path, provider: Provider) -> Place:
    return Place(tmp_path / "batch", provider.url)


def chatted(tmp_path: Path, provider: Provider, **options: Any) -> Place:
    """The same by chat, on a provider that counts anew afterwards."""
    other = Place(tmp_path / "chat", provider.url)
    assert other.run("chat", **options).pending == 0
    return other


def test_a_run_by_batch_comes_to_what_chats_come_to_at_half_the_price(
    place: Place, provider: Provider, tmp_path: Path
) -> None:
    result = place.run()
    assert result.pending == 0, result.reasons
    stats = provider.stats()
    assert stats["batches"]["requests"] == stats["requests"] == result.usage.calls
    assert stats["asked_again"] == []
    other = chatted(tmp_path, provider)
    assert place.answers() == other.answers()
    assert place.billed()[1] == other.billed()[1]
    assert place.billed()[0] == pytest.approx(other.billed()[0] / 2, abs=result.usage.calls)
    assert place.spent() == (place.billed()[0], result.usage.calls, place.billed()[1])
    before = provider.stats()["requests"]
    assert place.run().pending == 0
    assert provider.stats()["requests"] == before
