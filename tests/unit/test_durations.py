"""The order of the suite's files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import conftest
import pytest
from durations import SECONDS


def test_the_longest_files_come_first_and_tests_keep_their_order(pytestconfig: pytest.Config) -> None:
    longest, shortest = max(SECONDS, key=SECONDS.__getitem__), min(SECONDS, key=SECONDS.__getitem__)
    names = ["tests/a.py::one", f"{shortest}::two", f"{longest}::z", f"{longest}::a", "tests/b.py::one"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]
    conftest.pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [names[2], names[3], names[1], names[0], names[4]]
    assert [name for name in SECONDS if not Path(pytestconfig.rootpath, name).is_file()] == []
