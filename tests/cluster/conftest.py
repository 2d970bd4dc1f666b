"""The cluster's test takes minutes, and Debian's Postgres and Redis: it runs when asked for (`make test-cluster`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ASKED = "TASKGALAXY_CLUSTER"  # read before tests/conftest.py takes such variables away
_ASKED_FOR = os.environ.get(ASKED) == "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: the composed stack without Docker; takes minutes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _ASKED_FOR:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"make test-cluster runs it ({ASKED}=1)"))
