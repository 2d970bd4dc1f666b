"""What ingest leaves in a store is the same bytes, however many processes decode; a second scan reads nothing."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from fakes import MemoryStore
from odd_files import odd_files
from tiny import tiny_settings, tiny_workspace

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.sources import decoders
from taskgalaxy_ops.sources.kinds.folder import FolderSource


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The odd files, the same bytes under several names among them."""
    for number, (raw, _) in enumerate(odd_files().values()):
        (tmp_path / f"{number:03}.png").write_bytes(raw)
        if number % 9 == 0:
            (tmp_path / f"{300 - number // 2:03} again.png").write_bytes(raw)
    return tmp_path


def test_the_store_is_the_same_whatever_the_number_of_workers(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for workers in (1, 2, 5):
        drawn = random.Random(7)  # nonces are random: here the same ones are drawn each time
        monkeypatch.setattr(uuid, "uuid4", lambda drawn=drawn: uuid.UUID(int=drawn.getrandbits(128), version=4))
        ingest = {"workers": workers, "min_side": 8, "shard_images": 50}
        settings = tiny_settings(images, sources={"mine": {"location": str(images)}}, ingest=ingest)
        store = MemoryStore()
        receipt = pipeline.ingest(tiny_workspace(settings, store), "mine")
        assert receipt.new_shards == 4 and len(receipt.rejects) > 200
        found.append({key: raw for key, raw in store.objects.items() if "settings" not in key})
    assert found[0] == found[1] == found[2]


def test_a_second_scan_of_unchanged_files_reads_none_of_the_images(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(images, sources={"mine": {"location": str(images)}})
    workspace = tiny_workspace(settings)
    first = pipeline.ingest(workspace, "mine")
    claimed = {claim.file for claim in workspace.registry.claims()}
    read = FolderSource.open
    monkeypatch.setattr(FolderSource, "open", lambda self, place: _not_of(claimed, read, self, place))
    again = pipeline.ingest(workspace, "mine")
    assert (again.images, again.new_images, list(again.rejects)) == (first.images, 0, list(first.rejects))

    for reject in first.rejects:
        (images / reject.file).unlink()
    pipeline.ingest(workspace, "mine")
    monkeypatch.setattr(decoders, "_First", lambda *_: pytest.fail("a process was started"))
    decoders._close_spares()
    assert pipeline.ingest(workspace, "mine").images == first.images


def _not_of(claimed, read, self, place):
    assert Path(place.decode()).name not in claimed, "it was read again"
    return read(self, place)
