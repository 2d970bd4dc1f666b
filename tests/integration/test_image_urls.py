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
from taskgalaxy_ops.generation.stages.filter import filter_question
from taskgalaxy_ops.inference.gateway import Desk, Gateway
from taskgalaxy_ops.inference.session import Asker
from taskgalaxy_ops.models.request import Question, Unit
from taskgalaxy_ops.operations import gc, takedown
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.storage import keys, link
from taskgalaxy_ops.storage.s3 import S3Store
from taskgalaxy_ops.workspace import Galaxy


class _Looking(Gateway):
    """Notes each request's image, and replies nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    async def ask(self, question: Question, units: Sequence[Unit], desk: Desk) -> None:
        self.urls.append(await asyncio.to_thread(desk.image_url, str(units[0].image)))


@pytest.fixture
def galaxy(seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Galaxy:
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
    found = Galaxy.open(parse_settings(raw))
    pipeline.ingest(found, "photos")
    return found


def ids(galaxy: Galaxy) -> list[str]:
    (home,) = galaxy.registry.homes()
    return list(galaxy.registry.image_ids(home))


def urls(galaxy: Galaxy, images: Sequence[str]) -> list[str]:
    """What a run that asks the teacher about these images sends."""
    question, gateway = filter_question("Decide.", galaxy.settings.teacher), _Looking()

    async def ask() -> None:
        (home,) = galaxy.registry.homes()
        async with Asker(galaxy.store, galaxy.settings.run, gateway, galaxy.till(), home.home) as asker:
            await asker.ask(lambda _: [(question, [question.unit(image, {"task_type": "a~b"}) for image in images])])

    asyncio.run(ask())
    return gateway.urls


def test_who_has_the_url_gets_the_image_as_it_would_be_sent(galaxy: Galaxy) -> None:
    (url,) = urls(galaxy, ids(galaxy)[:1])
    with urllib.request.urlopen(url, timeout=20) as reply:
        raw = reply.read()
        assert reply.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(raw)) as image:
        assert (image.format, image.size) == ("JPEG", (600, 450))
    assert b"at home" not in raw
    assert "X-Amz-Expires=86400" in url
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.partition("?")[0], timeout=20)
    other = url.replace(ids(galaxy)[0], ids(galaxy)[1])
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(other, timeout=20)


def test_an_image_is_rendered_once_for_all_runs(galaxy: Galaxy, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = Counter[str](), S3Store.get

    def get(self: S3Store, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        read[key.split("/")[0]] += 1
        return real(self, key, start=start, length=length)

    monkeypatch.setattr(S3Store, "get", get)
    first, second = urls(galaxy, ids(galaxy)), urls(galaxy, ids(galaxy))
    assert read["blobs"] == 2
    assert {url.partition("?")[0] for url in first} == {url.partition("?")[0] for url in second}
    assert len(list(galaxy.store.list(keys.RENDERED))) == 2


def test_a_take_down_erases_what_was_sent(galaxy: Galaxy) -> None:
    gone, stays = ids(galaxy)
    (url,) = urls(galaxy, [gone])
    urls(galaxy, [stays])
    (before,) = galaxy.store.list(keys.renderings(gone))
    takedown.take_down(galaxy, [gone])
    assert list(takedown.left(galaxy)) == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url, timeout=20)
    assert len(list(galaxy.store.list(keys.RENDERED))) == 1
    galaxy.store.replace(before.key, b"by a worker that was at work on it")
    assert list(takedown.left(galaxy)) == [f"{before.key}: the image as it was sent by URL"]
    takedown.finish(galaxy)
    assert list(takedown.left(galaxy)) == []


def test_renderings_of_images_that_no_home_has_are_garbage(galaxy: Galaxy) -> None:
    urls(galaxy, ids(galaxy))
    lost = keys.rendering("ab" * 32, "cd" * 16)
    galaxy.store.replace(lost, b"x")
    assert gc.collect(galaxy, grace_seconds=-1, delete=True).first == (lost,)
    assert len(list(galaxy.store.list(keys.RENDERED))) == 2


def test_a_folder_has_no_urls(folder_store: S3Store) -> None:
    with pytest.raises(StoreError, match="has no URLs that others could read"):
        link(folder_store, "k", seconds=60, content_type="image/jpeg")
