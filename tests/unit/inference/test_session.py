"""Asking for an image shard: an image is read and rendered once for all the models of a round."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Sequence

from fakes import MemoryStore
from PIL import Image

from taskgalaxy_ops.generation.stages.vote import vote_template
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.inference.gateway import CallContext, Gateway
from taskgalaxy_ops.inference.session import AskedShard, InferenceSession
from taskgalaxy_ops.inference.spending import RunBudget
from taskgalaxy_ops.models.request import RequestItem, RequestTemplate
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.workspace import Workspace

_JUDGES = [{"name": f"j{n}", "model": f"j{n}", "base_url": "http://127.0.0.1:1", "simulated": True} for n in range(3)]
SETTINGS = parse_settings({"teacher": {**_JUDGES[0], "name": "t"}, "judges": _JUDGES})
IMAGES = 100


class _Looking(Gateway):
    """Looks at each request's image, and replies nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.urls: dict[str, set[str]] = {}

    async def ask(self, question: RequestTemplate, units: Sequence[RequestItem], context: CallContext) -> None:
        image = str(units[0].image)
        self.asked.append(image)
        self.urls.setdefault(image, set()).add(await asyncio.to_thread(context.image_url, image))


def _picture(number: int) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", (40 + number, 30)).save(raw, "PNG")
    return raw.getvalue()


def test_an_image_is_rendered_once_for_three_judges() -> None:
    store = MemoryStore()
    images = {sha256_hex(raw): raw for raw in map(_picture, range(IMAGES))}
    for image, raw in images.items():
        store.put_if_absent(keys.blob(image), raw)
    read: Counter[str] = Counter()
    store.before = lambda operation, key: read.update([key] if operation == "get" and key.startswith("blobs/") else [])
    workspace, gateway = Workspace(SETTINGS, store), _Looking()
    questions = [vote_template("Vote.", judge, True) for judge in SETTINGS.judges]
    item = {"task_type": "a~b", "question": "?", "answer": "!"}

    async def ask() -> int:
        async with InferenceSession(
            workspace.store, workspace.settings.run, gateway, RunBudget(workspace.ledger()), AskedShard(id="h")
        ) as session:
            return await session.ask(lambda _: [(q, [q.unit(image, item) for image in images]) for q in questions])

    assert asyncio.run(ask()) == 3 * IMAGES
    assert gateway.asked == sorted(3 * list(images))
    assert all(len(urls) == 1 for urls in gateway.urls.values())
    assert len({url for urls in gateway.urls.values() for url in urls}) == IMAGES
    assert read == {keys.blob(image): 1 for image in images}
