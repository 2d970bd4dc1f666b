"""Images that models get by URL: stored once, readable by who has the URL alone, and gone with a take-down."""

from __future__ import annotations

import asyncio
import io
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.demo.services import SeaweedFS
from taskgalaxy_ops.errors import StoreError
from taskgalaxy_ops.generation.stages.filter import filter_template
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.operations import gc, takedown
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.storage import keys, link
from taskgalaxy_ops.storage.s3 import S3Store
from taskgalaxy_ops.workspace import Workspace


class _Looking(Gateway):
    """Notes each request's image, and replies nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    async def ask(self, question: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        self.urls.append(await asyncio.to_thread(context.image_url, str(units[0].image)))


@pytest.fixture
def workspace(seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two photographs of 1,200 by 900 pixels, with EXIF, and a teacher that gets images by URL, 600 pixels long."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        exif = Image.Exif()
        exif[0x010E] = "at home"
        picture = Image.effect_noise((1200, 900), 20 + number).convert("RGB")
        picture.save(tmp_path / "photos" / f"{number}.jpg", exif=exif)
    model = {"name": "m", "base_url": "http://127.0.0.1:9/v1", "model": "m", "simulated": True}
    raw = {
        "store": f"s3://{seaweedfs.bucket}/ü {uuid.uuid4().hex}",
        "sources": {"photos": {"location": str(tmp_path / "photos")}},
        "teacher": {**model, "name": "t", "images": "url", "image_side": 600},
        "judges": [model],
        "vote": {"quorum": 1},
    }
    found = Workspace.open(parse_settings(raw))
    pipeline.ingest(found, "photos")
    return found


def ids(workspace: Workspace) -> list[str]:
    (shard,) = workspace.registry.shards()
    return list(workspace.registry.image_ids(shard))


def urls(workspace: Workspace, images: Sequence[str]) -> list[str]:
    """What a run that asks the teacher about these images sends."""
    question, gateway = filter_template("Decide.", workspace.settings.teacher), _Looking()

    async def ask() -> None:
        (shard,) = workspace.registry.shards()
        async with InferenceSession(
            workspace.store, workspace.settings.run, gateway, workspace.run_budget(), AskedShard(id=shard.id)
        ) as session:
            await session.ask(lambda _: [(question, [question.unit(image, {"task_type": "a~b"}) for image in images])])

    asyncio.run(ask())
    return gateway.urls


def test_who_has_the_url_gets_the_image_as_it_would_be_sent(workspace: Workspace) -> None:
    (url,) = urls(workspace, ids(workspace)[:1])
    with urllib.request.urlopen(url, timeout=20) as reply:
        raw = reply.read()
        assert reply.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(raw)) as image:
        assert (image.format, image.size) == ("JPEG", (600, 450))
    assert b"at home" not in raw
    assert "X-Amz-Expires=86400" in url
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.partition("?")[0], timeout=20)
    other = url.replace(ids(workspace)[0], ids(workspace)[1])
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(other, timeout=20)


def test_an_image_is_rendered_once_for_all_runs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = Counter[str](), S3Store.get

    def get(self: S3Store, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        read[key.split("/")[0]] += 1
        return real(self, key, start=start, length=length)

    monkeypatch.setattr(S3Store, "get", get)
    first, second = urls(workspace, ids(workspace)), urls(workspace, ids(workspace))
    assert read["blobs"] == 2
    assert {url.partition("?")[0] for url in first} == {url.partition("?")[0] for url in second}
    assert len(list(workspace.store.list(keys.RENDERED))) == 2


def test_a_take_down_erases_what_was_sent(workspace: Workspace) -> None:
    gone, stays = ids(workspace)
    (url,) = urls(workspace, [gone])
    urls(workspace, [stays])
    (before,) = workspace.store.list(keys.renderings(gone))
    takedown.take_down(workspace, [gone])
    assert list(takedown.left(workspace)) == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url, timeout=20)
    assert len(list(workspace.store.list(keys.RENDERED))) == 1
    workspace.store.replace(before.key, b"by a worker that was at work on it")
    assert list(takedown.left(workspace)) == [f"{before.key}: the image as it was sent by URL"]
    takedown.finish(workspace)
    assert list(takedown.left(workspace)) == []


def test_renderings_of_images_that_no_image_shard_has_are_garbage(workspace: Workspace) -> None:
    urls(workspace, ids(workspace))
    lost = keys.rendering("ab" * 32, "cd" * 16)
    workspace.store.replace(lost, b"x")
    assert gc.collect(workspace, grace_seconds=-1, delete=True).first == (lost,)
    assert len(list(workspace.store.list(keys.RENDERED))) == 2


def test_a_folder_has_no_urls(folder_store: S3Store) -> None:
    with pytest.raises(StoreError, match="has no URLs that others could read"):
        link(folder_store, "k", seconds=60, content_type="image/jpeg")
