"""Local copies of S3 objects: downloaded once a version, and never taken for what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import NotFoundError, StoreError
from taskgalaxy_ops.storage import connect, downloads
from taskgalaxy_ops.storage.s3 import S3Store
from taskgalaxy_ops.workspace import Workspace

NAME = "wéights one.pt"


@pytest.fixture
def prefix(seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where objects may be put; copies lie below a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "_PART", 1000)
    return f"s3://{seaweedfs.bucket}/{uuid4().hex}"


def test_each_version_is_downloaded_once(seaweedfs: SeaweedFS, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, gets, raw = connect(prefix, **seaweedfs.s3_options), [], bytes(range(256)) * 17
    plain = S3Store.get

    def counted(self: S3Store, key: str, **options: Any) -> bytes:
        gets.append(key)
        return plain(self, key, **options)

    monkeypatch.setattr(S3Store, "get", counted)
    store.replace(NAME, raw)
    store.replace(f"{NAME}.other", b"another")
    file = downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options)
    assert (file.read_bytes(), file.suffix, gets) == (raw, ".pt", [NAME] * 5)
    assert downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options) == file
    assert len(gets) == 5
    store.replace(NAME, raw[::-1])
    newer = downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options)
    assert (newer.read_bytes(), file.read_bytes()) == (raw[::-1], raw)
    assert {each.suffix for each in downloads.cache_folder().iterdir()} == {".pt", ".sha256"}, "no part is left"


def test_a_copy_that_was_damaged_is_downloaded_anew(seaweedfs: SeaweedFS, prefix: str) -> None:
    connect(prefix, **seaweedfs.s3_options).replace(NAME, b"as it is")
    file = downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options)
    file.write_bytes(b"as it's not")
    assert downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options).read_bytes() == b"as it is"


def test_what_is_not_there_or_changes_meanwhile_is_an_error(
    seaweedfs: SeaweedFS, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(prefix, **seaweedfs.s3_options)
    store.replace(f"{NAME}.other", b"another")
    with pytest.raises(NotFoundError, match=r"wéights one\.pt: no such object"):
        downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options)
    store.replace(NAME, b"x" * 1500)
    plain, parts = S3Store.get, []

    def replaced(self: S3Store, key: str, **options: Any) -> bytes:
        raw = plain(self, key, **options)
        if not parts:
            store.replace(NAME, b"y" * 1500)
        parts.append(raw)
        return raw

    monkeypatch.setattr(S3Store, "get", replaced)
    with pytest.raises(StoreError, match="replaced while it was downloaded"):
        downloads.downloaded(f"{prefix}/{NAME}", **seaweedfs.s3_options)
    assert not list(downloads.cache_folder().iterdir())


def test_an_encoder_s_weights_may_lie_in_s3(seaweedfs: SeaweedFS, prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    from fakes import MemoryStore
    from tiny import tiny_settings
    from tiny_clip import tiny_clip

    model, file = tiny_clip(tmp_path)
    connect(prefix, **seaweedfs.s3_options).replace("clip.pt", Path(file).read_bytes())
    opened = []
    for pretrained in (file, f"{prefix}/clip.pt"):
        encoder = {"name": "open_clip", "model": model, "pretrained": pretrained}
        workspace = Workspace(tiny_settings(tmp_path, encoder=encoder), MemoryStore())
        workspace.__dict__["s3_options"] = seaweedfs.s3_options
        opened.append(workspace.checked_encoder().identity)
    assert opened[0] == opened[1], "known by the hash of the weights, wherever they lie"
