"""Where a store lies, as people write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgalaxy_ops.errors import StoreError
from taskgalaxy_ops.storage import connect


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file://./galaxy", "galaxy"),
        ("file://galaxy/one", "galaxy/one"),
        ("file:///{here}/galaxy", "galaxy"),
        ("file://localhost/{here}/galaxy", "galaxy"),
        ("file:///{here}/my%20galaxy", "my galaxy"),
        ("galaxy", "galaxy"),
    ],
)
def test_a_folder_is_where_one_means_it(url: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = connect(url.replace("/{here}", str(tmp_path)))
    assert store.put_if_absent("a/b", b"x")
    assert (tmp_path / folder / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("url", ["s3:///prefix", "gs://bucket/prefix"])
def test_what_is_no_store_is_named(url: str) -> None:
    with pytest.raises(StoreError, match="store"):
        connect(url)
