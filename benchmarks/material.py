"""Material of the benchmarks: tiny images, task types, settings, an encoder of almost no cost, a store that counts."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taskgalaxy_ops.models.encoders.base import Encoder, Vectors, normalise
from taskgalaxy_ops.settings import Settings, parse_settings
from taskgalaxy_ops.storage import Listed, Store
from taskgalaxy_ops.storage.base import Content
from taskgalaxy_ops.workspace import Workspace

SIDE = 16  # pixels
PHOTOGRAPH = 400  # pixels a side
_PAGE = 1000  # objects a page of S3's listing
_DIM = 64
_GROUPS = 40  # nodes above the task types


def images(folder: Path, start: int, stop: int) -> None:
    """PNG files of noise, numbers ``start`` to ``stop``; the same ones each time."""
    for number in range(start, stop):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:07d}.png", compress_level=1)


def photographs(folder: Path, start: int, stop: int) -> None:
    """JPEG files of about 30 kB, numbers ``start`` to ``stop``: patches under grain; the same ones each time."""
    folder.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(0).integers(-12, 13, (PHOTOGRAPH, PHOTOGRAPH, 3), np.int16)
    for number in range(start, stop):
        patches = Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8))
        smooth = np.asarray(patches.resize(grain.shape[:2], Image.Resampling.BICUBIC), np.int16)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:07d}.jpg", quality=68)


def task_types(start: int, stop: int) -> list[str]:
    """Paths of task types, numbers ``start`` to ``stop``."""
    return [f"group {n % _GROUPS:02d}~kind {n // _GROUPS % 25:02d}~task type {n:06d}" for n in range(start, stop)]


def settings(store: str, folder: Path, base_url: str, **changes: Any) -> Settings:
    """The default settings with one source, all models at the canned server ``base_url``, and no budget cap."""
    model = {"base_url": base_url, "simulated": True}
    judges = [{**model, "name": f"judge {letter}", "model": f"judge-{letter}"} for letter in "abc"]
    return parse_settings(
        {
            "store": store,
            "sources": {"images": {"location": str(folder)}},
            "ingest": {"min_side": SIDE},
            "teacher": {**model, "name": "teacher", "model": "teacher"},
            "judges": judges,
            "budget": {"max_cost": None, "max_calls": None},
            **changes,
        }
    )


class HashEncoder:
    """Unit vectors from a fixed projection of the pixels, and from the hash of a text. It costs almost nothing, so that
    the engine is measured and not a model."""

    dim = _DIM
    identity: dict[str, Any] = {"name": "benchmark", "weights": "none", "backend": "numpy", "dim": _DIM}  # noqa: RUF012

    def __init__(self) -> None:
        self.passes = 0
        self._projection = np.random.default_rng(0).standard_normal((SIDE * SIDE * 3, _DIM)).astype(np.float32)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        self.passes += len(images)
        pixels = [np.asarray(image.resize((SIDE, SIDE)), np.float32).reshape(-1) - 127.5 for image in images]
        return normalise(np.stack(pixels) @ self._projection)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.passes += len(texts)
        return normalise(np.stack([np.random.default_rng(zlib.crc32(t.encode())).standard_normal(_DIM) for t in texts]))


class BenchWorkspace(Workspace):
    """A workspace with `HashEncoder`."""

    @cached_property
    def encoder(self) -> Encoder:
        return HashEncoder()

    @property
    def passes(self) -> int:
        """Images and texts encoded so far."""
        return self.encoder.passes if "encoder" in self.__dict__ else 0


class CountingStore:
    """A store that counts the requests that S3 would get; a listing is one request a page."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return self._store.url

    def put_if_absent(self, key: str, data: Content) -> bool:
        self.requests["put"] += 1
        self.bytes["put"] += len(data) if isinstance(data, bytes) else data.seek(0, 2)
        return self._store.put_if_absent(key, data)

    def replace(self, key: str, data: bytes) -> None:
        self.requests["put"] += 1
        self.bytes["put"] += len(data)
        self._store.replace(key, data)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.requests["get"] += 1
        raw = self._store.get(key, start=start, length=length)
        self.bytes["get"] += len(raw)
        return raw

    def copy(self, key: str, to: str) -> None:
        self.requests["copy"] += 1
        self._store.copy(key, to)

    def list(self, prefix: str, *, after: str = "", ordered: bool = True) -> Iterator[Listed]:
        self.requests["list"] += 1
        for number, listed in enumerate(self._store.list(prefix, after=after, ordered=ordered), 1):
            if number > 1 and number % _PAGE == 1:
                self.requests["list"] += 1
            yield listed

    def delete(self, key: str) -> None:
        self.requests["delete"] += 1
        self._store.delete(key)

    def age(self, key: str) -> float:
        self.requests["head"] += 1
        return self._store.age(key)
