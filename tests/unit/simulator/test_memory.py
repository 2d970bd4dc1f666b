"""What was read in an image outlives the server that read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from taskgalaxy_ops.simulator import memory, perception, reading
from taskgalaxy_ops.simulator.judges import readers, views


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where it is kept."""
    memory.keep_in(tmp_path / "readings")
    yield tmp_path / "readings"
    memory.keep_in(None)


def read_by_all(image: Image.Image, key: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What teacher and judges read in an image, as a server that has just started."""
    monkeypatch.setattr(perception, "_readings", memory.Memory(9))
    monkeypatch.setattr(views, "_readings", memory.Memory(9))
    teacher = perception.Scene(image, key)
    return [*teacher._read, *(views.View(judge, image, key).pieces for judge in views.JUDGES)]


def never(*_: object) -> Any:
    raise AssertionError("it is read again")


def test_the_next_server_reads_nothing_again(folder: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Image.open(min((pictures / "documents").glob("*.png"))) as opened:
        image = opened.convert("RGB")
    first = read_by_all(image, "ab", monkeypatch)
    assert all(first[number] for number in (0, 2, 3, 4))
    assert len(list(folder.glob("*.json"))) == len(list(folder.iterdir())) == 4  # each reads in a way of its own
    monkeypatch.setattr(reading, "read", never)
    monkeypatch.setattr(readers, "read", never)
    assert read_by_all(image, "ab", monkeypatch) == first
    with pytest.raises(AssertionError, match="again"):
        read_by_all(image, "cd", monkeypatch)


def test_what_is_damaged_or_of_other_code_is_read_again(folder: Path, tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("1")
    assert memory.kept("teacher", str(code), "ab", lambda: [1]) == [1]
    assert memory.kept("teacher", str(code), "ab", lambda: [2]) == [1]
    (file,) = folder.iterdir()
    file.write_text("[")
    assert memory.kept("teacher", str(code), "ab", lambda: [2]) == [2]
    code.write_text("2")
    memory._code.cache_clear()
    assert memory.kept("teacher", str(code), "ab", lambda: [3]) == [3]
    memory.keep_in(None)
    assert memory.kept("teacher", str(code), "ab", lambda: [4]) == [4]
