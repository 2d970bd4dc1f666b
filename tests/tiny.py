"""A whole workspace in one process, for tests that run hundreds of them.

It has a store in memory, an encoder that hashes, and models behind the real client, whose answers are drawn from the
hash of what they are shown.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fakes import MemoryStore
from PIL import Image as Pillow

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.hashing import draw, sha256_hex
from taskgalaxy_ops.models.encoders.base import Vectors, normalise
from taskgalaxy_ops.models.http import Sender
from taskgalaxy_ops.settings import Model, Settings, parse_settings
from taskgalaxy_ops.workspace import Workspace

TYPES = tuple(f"{top}~{top} {letter}" for top in ("ocr", "colour", "counting") for letter in ("a", "b", "c"))


class TinyEncoder:
    """Encodes each image and text as a point that is drawn from its hash."""

    dim = 8
    identity = {"name": "tiny", "weights": "none", "revision": "1"}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.passes = 0

    def _points(self, raws: Sequence[bytes]) -> Vectors:
        self.passes += len(raws)
        seeds = [int(sha256_hex(raw)[:8], 16) for raw in raws]
        return normalise(
            np.array([np.random.default_rng(seed).normal(size=self.dim) for seed in seeds]).reshape(-1, self.dim)
        )

    def encode_images(self, images: Sequence[Pillow.Image]) -> Vectors:
        return self._points([image.tobytes() for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self._points([text.encode() for text in texts])


class TinyModels:
    """The teacher and the judges behind the real client, without a socket."""

    def __init__(self) -> None:
        self.most_images, self.too_many_images = 4, ""  # in a request, and what is said to more
        self.start(None)

    def start(self, replies: int | None) -> None:
        """Set all counts to 0. ``replies``: the number of replies before the models fail; None: they never fail."""
        # How often each unit was asked for, by model, stage, prompt, item and image.
        self.seen: Counter[tuple[str, ...]] = Counter()
        self.requests = 0
        self.replies = replies

    def distinct(self, stage: str) -> int:
        """The number of different units of a stage that were asked for."""
        kinds = {"write": {"write", "answer"}, "vote": {"vote", "blind"}}.get(stage, {stage})
        return sum(unit[1] in kinds for unit in self.seen)

    async def post(self, model: Model, raw: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Replaces ``Sender.post``: returns the reply's status, headers and body."""
        reply = await self._answer(httpx.Request("POST", f"{model.base_url}/chat/completions", content=raw))
        return reply.status_code, reply.headers, reply.content

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        self.requests += 1
        if self.replies is not None and self.requests > self.replies:
            return httpx.Response(503, json={"error": {"message": "no"}})
        body = json.loads(request.content)
        text, *parts = body["messages"][-1]["content"]
        images = [part for part in parts if part["type"] == "image_url"]  # after a repair there is a text, too
        block = json.loads(text["text"].split("```json\n")[1].split("\n```")[0])
        image = " ".join(part["image_url"]["url"] for part in images)
        if len(images) > self.most_images:
            return httpx.Response(400, json={"error": {"message": self.too_many_images}})
        if block["request"] == "blind":
            self.seen[body["model"], "blind", "", json.dumps(block, sort_keys=True), image] += 1
            said = f"{int(draw(body['model'], block['question'], block['try']) * 2)}"
            return _completion(self.requests, {"answers": [said]}, 1)
        stages = block["request"].split(" and ")
        items = block[{"vote": "pairs", "answer": "questions"}.get(stages[0], "task_types")]
        replies = []
        for item in items:
            reply = {"index": item.pop("index")}
            for stage in stages if item.pop("part_2", True) else stages[:1]:
                head = {"variant": None if stage == "filter" else block.get("variant")}
                head |= {"number": block["number"]} if stage == "answer" else {}
                shown = json.dumps({**item, **head}, sort_keys=True)
                unit = (body["model"], stage, text["text"].split("```json")[0], shown, image)
                if reply.get("fits", True):
                    self.seen[unit] += 1
                    drawn_from = (*unit[:2], *unit[3:])  # the prompt's words do not change the reply
                    reply |= _reply(stage, draw(*drawn_from), sha256_hex(repr(drawn_from).encode())[:6])
                if head["variant"] == "multi_turn" and reply.get("question"):
                    reply |= {"question_2": f"After {reply['question']}", "answer_2": reply["answer"] * 2}
            replies.append(reply)
        name = {"filter": "verdicts", "write": "pairs", "answer": "answers", "vote": "votes"}[stages[0]]
        return _completion(self.requests, {name: replies}, len(items))


def _completion(number: int, said: Mapping[str, Any], items: int) -> httpx.Response:
    message = {"role": "assistant", "content": json.dumps(said)}
    completion = {
        "id": f"tiny-{number}",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 100 + 10 * items, "completion_tokens": 20 * items},
    }
    return httpx.Response(200, json=completion)


def _reply(stage: str, drawn: float, token: str) -> dict[str, Any]:
    if stage == "filter":
        return {"fits": drawn < 0.6, "reason": f"reason {token}"}
    if stage == "answer":
        return {"answer": f"{int(drawn * 5)}", "reasoning": f"since {token}"}
    if stage == "write":  # few different questions, so that two pairs sometimes ask judges the same
        if drawn < 0.15:
            return {"question": "", "answer": "", "reasoning": ""}
        return {"question": f"Question {int(drawn * 4)}?", "answer": f"{int(drawn * 2)}", "reasoning": f"since {token}"}
    return {"vote": int(drawn < 0.6), "reason": f"reason {token}"}


def tiny_settings(location: Path | str, **changes: Any) -> Settings:
    """Settings of a tiny workspace; ``changes`` replaces whole top-level fields."""

    def model(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "base_url": "http://tiny/v1",
            "model": name,
            "simulated": True,
            "retries": 0,
            "patience_seconds": 0,
            "image_side": 64,
            "list_price": {"input": 1, "output": 2},
        }

    raw: dict[str, Any] = {
        "store": "memory://",
        "sources": {"mine": {"location": str(location)}},
        "ingest": {"shard_images": 2, "min_side": 8},
        "match": {"k": 3},
        "teacher": model("teacher"),
        "judges": [model(name) for name in "abc"],
        "release": {"validation": 0, "test": 0, "near_duplicate_bits": -1},
    }
    return parse_settings({**raw, **changes})


def tiny_workspace(settings: Settings, store: MemoryStore | None = None) -> Workspace:
    """A new workspace with a ``TinyEncoder``, on ``store`` or on an empty one."""
    workspace = Workspace(settings, store or MemoryStore())
    workspace.__dict__["encoder"] = TinyEncoder()
    return workspace


def tiny_images(folder: Path, count: int, first: int = 0) -> Path:
    """Add ``count`` small pictures to a folder, no two alike, numbered from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Pillow.fromarray(pixels).resize((16, 16)).save(folder / f"{number:03d}.png")
    return folder


def tiny_seeds(file: Path, types: Sequence[str] = TYPES) -> Path:
    """Write a seed file of these task types."""
    file.write_text(json.dumps(list(types)), encoding="utf-8")  # JSON is YAML, too
    return file


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> TinyModels:
    """The models that answer every gateway of the test."""
    models = TinyModels()
    monkeypatch.setattr(Sender, "post", lambda _, model, raw, seconds: models.post(model, raw))
    return models


@pytest.fixture(name="workspace")
def tiny_voted(tmp_path: Path, tiny_models: TinyModels) -> Workspace:
    """Two dozen images, whose judges vote as coins do."""
    found = tiny_workspace(tiny_settings(tiny_images(tmp_path / "images", 24)))
    pipeline.ingest(found, "mine")
    pipeline.generate(found)
    return found
