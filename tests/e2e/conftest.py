"""A galaxy in a real S3 server, with simulated models as processes of their own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from encoded_once import encoded_once

from e2e.galaxies import Commands, Models
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.workspace import Workspace

JUDGES = ("a", "b", "c")


@pytest.fixture(scope="module", autouse=True)
def _encoded_once() -> Iterator[None]:
    with encoded_once():
        yield


@pytest.fixture
def settings(
    seaweedfs: SeaweedFS, models: Models, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """Makes settings for a new store prefix; what is named replaces whole fields."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    prefix = uuid.uuid4().hex

    def make(**changes: Any) -> Settings:
        def model(name: str) -> dict[str, Any]:
            return {
                "name": name,
                "base_url": models.base_url,
                "model": name,
                "simulated": True,
                "list_price": {"input": 2.5, "output": 10},
            }

        raw: dict[str, Any] = {
            "store": f"s3://{seaweedfs.bucket}/{prefix}",
            "sources": {"mixed": {"location": str(pictures)}},
            "ingest": {"shard_images": 4},
            "match": {"k": 24},
            "teacher": model("sim-teacher"),
            "judges": [model(f"sim-judge-{letter}") for letter in JUDGES],
            "run": {"lease_seconds": 3},
        }
        return parse_settings({**raw, **changes})

    return make


@pytest.fixture
def workspace(settings: Callable[..., Settings]) -> Workspace:
    return Workspace.open(settings())


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)
