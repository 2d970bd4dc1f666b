"""A real vLLM, in a venv of its own: these tests take minutes, and run where they are asked for (`make test-vllm`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read when this file is loaded: the suite takes all TASKGALAXY_ variables away before it begins.
_PYTHON = os.environ.get("TASKGALAXY_VLLM")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _PYTHON:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="make test-vllm runs it (TASKGALAXY_VLLM names vLLM's Python)"))


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python that has vLLM."""
    assert _PYTHON is not None
    return Path(_PYTHON).absolute()
