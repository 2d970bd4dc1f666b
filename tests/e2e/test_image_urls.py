"""Whole runs in which models get images by signed URL: the same release, and nothing lost or told where one fails."""

from __future__ import annotations

import gzip
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from e2e.galaxies import Commands, Models
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.generation.run import RunResult
from taskgalaxy_ops.inference import session
from taskgalaxy_ops.release import publish
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.simulator.config import parse_config
from taskgalaxy_ops.simulator.serve import running
from taskgalaxy_ops.storage import Store, link
from taskgalaxy_ops.storage.log import zstd
from taskgalaxy_ops.workspace import Workspace

BATCH = {"mode": "batch"}
WAITING = {"batch": {"poll_seconds": 0.2, "wait_seconds": 60}, "lease_seconds": 3}


@pytest.fixture(scope="module")
def fetching(seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory, readings: Path) -> Iterator[Models]:
    """Simulated models that may read from the store."""
    origin = f"image_origin={seaweedfs.s3_options['endpoint_url']}"
    server = Models(tmp_path_factory.mktemp("fetching models"), arguments=["--set", origin], readings=readings)
    try:
        yield server.start()
    finally:
        server.stop(grace=0)


@pytest.fixture
def by(settings: Callable[..., Settings], pictures: Path, fetching: Models) -> Callable[..., Settings]:
    """Settings with three images: by ``data`` or ``url``, in a store of this name."""
    fetching.count_anew()

    def make(images: str, name: str, base_url: str = fetching.base_url, **changes: Any) -> Settings:
        own = settings()
        bucket, _, prefix = own.store.rpartition("/")

        def shown(model: Any) -> dict[str, Any]:
            return {
                **model.model_dump(mode="json"),
                **{"images": images, "base_url": base_url, "retries": 1, "patience_seconds": 5},
                **changes,
            }

        return settings(
            store=f"{bucket}/{prefix[:6]}{name}",  # short: messages are cut, and a URL is to stand in them whole
            sources={"documents": {"location": str(pictures / "documents"), "limit": 3}},
            teacher=shown(own.teacher),
            judges=[shown(judge) for judge in own.judges],
            run=WAITING,
        )

    return make


def ingested(settings: Settings) -> Workspace:
    workspace = Workspace.open(settings)
    pipeline.ingest(workspace, "documents")
    return workspace


def generated(settings: Settings) -> RunResult:
    return pipeline.generate(Workspace.open(settings))


def released(settings: Settings) -> str:
    """The release's hash, of a run in which everything is answered."""
    result = generated(settings)
    assert result.pending == 0, result.reasons
    return publish.publish(Workspace.open(settings)).release.manifest_sha256


@pytest.fixture(scope="module")
def hashes() -> list[str]:
    """What ``release`` has found."""
    return []


@pytest.fixture
def release(by: Callable[..., Settings], hashes: list[str]) -> str:
    """What it is by data URLs, in whichever store; the run is made once."""
    if not hashes:
        chosen = by("data", "d")
        ingested(chosen)
        hashes.append(released(chosen))
    return hashes[0]


@pytest.mark.parametrize("mode", [{}, BATCH], ids=["chat", "batch"])
def test_a_run_by_url_makes_the_same_release_and_switching_asks_nothing(
    by: Callable[..., Settings], release: str, fetching: Models, mode: dict[str, str]
) -> None:
    chosen = by("data", "d")
    ingested(chosen)
    assert released(chosen) == release
    assert generated(by("url", "d", **mode)).usage.requests == 0
    before = fetching.stats()["requests"]
    chosen = by("url", "u", **mode)
    assert len(list(ingested(chosen).store.list("rendered/"))) == 0
    assert released(chosen) == release
    assert len(list(Workspace.open(chosen).store.list("rendered/"))) == 3
    assert fetching.stats()["requests"] - before == before, "as many requests as by data URLs"
    assert generated(by("data", "u")).usage.requests == 0


@pytest.mark.parametrize("mode", [{}, BATCH], ids=["chat", "batch"])
def test_a_url_that_has_run_out_is_said_and_loses_no_unit(
    by: Callable[..., Settings], release: str, monkeypatch: pytest.MonkeyPatch, mode: dict[str, str]
) -> None:
    chosen = by("url", "u", **mode)
    workspace = ingested(chosen)
    late = max(image for shard in workspace.registry.shards() for image in workspace.registry.image_ids(shard))

    hours = set()

    def over(store: Store, key: str, *, seconds: float, content_type: str) -> str:
        hours.add(seconds / 3600)
        url = link(store, key, seconds=1 if late in key else seconds, content_type=content_type)
        time.sleep(2.5 if late in key else 0)
        return url

    with monkeypatch.context() as patched:
        patched.setattr(session, "link", over)
        found = generated(chosen)
    assert hours == {48 if mode else 24}, "a batch may take a day"
    assert found.pending == 24, "the matches of this image"
    assert any("Error while downloading" in reason for reason in found.reasons), found.reasons
    assert released(chosen) == release


def test_what_cannot_be_fetched_is_said_without_the_signature_and_loses_no_unit(
    by: Callable[..., Settings], release: str, commands: Commands
) -> None:
    """A provider that cannot reach the store; it tells the whole URL in its error, as OpenAI does."""
    with running(parse_config({"image_origin": "http://127.0.0.1:1"})) as blind:
        chosen = by("url", "u", blind)
        ingested(chosen)
        process = commands.start(chosen, "generate")
        said = "".join(process.communicate(timeout=300))
    assert process.returncode == 3
    assert "rendered/" in said and ".jpg?…" in said
    assert_unsigned(said.encode())
    assert released(by("url", "u", **BATCH)) == release
    workspace = Workspace.open(chosen)
    objects = [listed.key for listed in workspace.store.list("")]
    assert any(key.startswith("rendered/") for key in objects)
    assert any(key.endswith(".parquet") for key in objects)
    for key in objects:
        assert_unsigned(unpacked(workspace.store.get(key)))


def unpacked(raw: bytes) -> bytes:
    """An object of the store as one can search it."""
    if raw.startswith(b"PAR1"):
        return repr(pq.read_table(io.BytesIO(raw)).to_pylist()).encode()
    if raw.startswith(b"\x28\xb5\x2f\xfd"):
        return bytes(zstd.decompress(raw))
    return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


def assert_unsigned(raw: bytes) -> None:
    """Nothing of what is signed (its first field, too: the rest may be cut), nor the store's keys, is in it."""
    keys = [os.environ[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    for secret in (b"X-Amz-", b"response-content-", *keys):
        assert secret not in raw
