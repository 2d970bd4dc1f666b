"""How quickly a release's files are made, in how much memory, and what it costs to find that nothing changed.

``make bench-release``. Rows are made up, of the paper's size: 413,648 samples of 19,227 task types, three an image. A
format's rate is over making, hashing and writing its files into a folder's store, in one process of its own; choosing
the samples is told beside. Images are referred to, but for WebDataset, which holds small ones. ``step`` is such a
process: ``python -m benchmarks.release step <format> <samples> <folder>`` prints what it took, as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from benchmarks import engine, material, running
from benchmarks.figures import Book, Figure
from benchmarks.step import peak_memory
from taskgalaxy_ops import release
from taskgalaxy_ops.demo.services import Simulator
from taskgalaxy_ops.extensions import ALWAYS_RELEASED
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.records import Claim, Image, Pair, Verdict, Vote, pair_id
from taskgalaxy_ops.release.build import entry
from taskgalaxy_ops.release.formats import FORMATS
from taskgalaxy_ops.settings import Model, ReleaseSettings
from taskgalaxy_ops.storage import connect
from taskgalaxy_ops.storage.parquet import to_table

SAMPLES, TYPES = 413_648, 19_227  # of the paper
EACH = 3  # samples an image
SHARD = 2000  # images of an image shard
SIDE = 64  # pixels of an image that is held
RATES = {"parquet": 20_000, "llava": 20_000, "sharegpt": 20_000, "webdataset": 5_000}  # goals, samples a second
TENTH = 10
STORED = 12_000  # images of the store in which nothing changes
MODEL = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
JUDGES = tuple(Model(name=name, **MODEL) for name in ("one", "two", "three"))
_REASON = "The image shows what the answer says, and nothing in it contradicts that."


class Made:
    """Rows of a release, made up shard by shard; an image's bytes are those of one picture and its number."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._types = material.task_types(0, TYPES)
        out = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Pillow.fromarray(pixels).resize((SIDE, SIDE)).save(out, "JPEG", quality=50)
        self._picture = out.getvalue()
        self._numbers: dict[str, int] = {}

    def raw(self, number: int) -> bytes:
        return self._picture + number.to_bytes(8, "big")  # behind the end of the picture

    def read(self, image: str) -> bytes:
        return self.raw(self._numbers[image])

    def shards(self) -> Iterator[release.ShardRows]:
        images = -(-self._samples // EACH)
        for first in range(0, images, SHARD):
            yield self._shard(range(first, min(first + SHARD, images)))

    def _shard(self, numbers: range) -> release.ShardRows:
        images, samples, claims = [], [], []
        for number in numbers:
            raw = self.raw(number)
            image = Image(sha256_hex(raw), SIDE, SIDE, "jpeg", len(raw), f"{number:040x}")
            self._numbers[image.image] = number
            images.append(image)
            claims.append(Claim("photos", image.image, f"{number:07d}.jpg", "https://example.org", "CC-BY-4.0", "Ann"))
            first = number * EACH
            samples += [self._pair(image.image, each) for each in range(first, min(first + EACH, self._samples))]
        votes = [Vote(pair.pair, judge.name, 1, _REASON, False) for pair in samples for judge in JUDGES]
        verdicts = [Verdict(pair.pair, True, 3, 3) for pair in samples]
        return release.ShardRows(
            samples=to_table(samples, Pair),
            votes=to_table(votes, Vote),
            verdicts=to_table(verdicts, Verdict),
            images=to_table(images, Image),
            claims=claims,
        )

    def _pair(self, image: str, number: int) -> Pair:
        task_type = self._types[number % TYPES]
        question = (
            f"Which of the {number % 97} marked things in the picture is the one that the caption {number} means?"
        )
        answer = f"It is the thing at number {number % 89}, left of the middle."
        key = pair_id(image, task_type, "plain", question, answer, None)
        return Pair(key, image, task_type, "plain", question, answer)

    def inputs(self) -> release.ReleaseInputs:
        return release.ReleaseInputs(
            shards=self.shards(),
            read_image=self.read,
            image_uri=lambda image: f"s3://bucket/rendered/{image[:2]}/{image}/x.jpg",
            rendition=lambda _, raw: raw,  # as the store holds it once the teacher was asked
            stage_counts=(),
            taxonomy=release.TaxonomySummary(1, self._types, {3: TYPES}),
            teacher=Model(name="teacher", **MODEL),
            judges=JUDGES,
            encoder={},
            prompts={},
            simulated=False,
        )


def step(name: str, samples: int, folder: Path) -> dict[str, Any]:
    """Choose the samples, and write the files of one format."""
    store = connect((folder / f"{name}-{samples}").as_uri())
    formats = ALWAYS_RELEASED if name in ALWAYS_RELEASED else (*ALWAYS_RELEASED, name)
    copied = 1 << 40 if name == "webdataset" else 0
    rules = ReleaseSettings(formats=formats, copy_images_up_to=copied, near_duplicate_bits=-1)
    began = time.monotonic()
    with release.select_samples(Made(samples).inputs(), rules) as plan:
        _, chosen = plan.content_hash, time.monotonic()
        files, size = 0, 0
        for path, content in FORMATS.get(name).files(plan):
            size += entry(content)["size"]
            store.put_if_absent(path, content)
            files += 1
        ended = time.monotonic()
        count = plan.counts["samples"]
    return {
        "samples": count,
        "select": chosen - began,
        "seconds": ended - chosen,
        "files": files,
        "gigabytes": size / 1e9,
        "peak": peak_memory(),
    }


class Bench:
    def __init__(self, folder: Path, book: Book, scale: float) -> None:
        self.folder, self.book, self.scale = folder, book, scale
        self._took: dict[tuple[str, int], dict[str, Any]] = {}

    def took(self, name: str, samples: int) -> dict[str, Any]:
        """What a format took, in a process of its own; measured once."""
        if (name, samples) not in self._took:
            found = running.process("benchmarks.release", "step", name, str(samples), str(self.folder))
            self._took[name, samples] = found
        return self._took[name, samples]

    @property
    def samples(self) -> int:
        return round(SAMPLES * self.scale)


def rates(bench: Bench) -> None:
    """Measure how many samples a second each format's files are made of."""
    for name, goal in RATES.items():
        found = bench.took(name, bench.samples)
        detail = {"samples": found["samples"], "files": found["files"], "gigabytes": round(found["gigabytes"], 3)}
        detail |= {"seconds": round(found["seconds"], 2), "select_seconds": round(found["select"], 2)}
        rate = found["samples"] / found["seconds"]
        bench.book.add(Figure(f"release.rate_{name}", round(rate), goal, "higher", detail))


def memory(bench: Bench) -> None:
    """Measure the peak memory of the formats, and how it grows with the samples."""
    whole = {name: bench.took(name, bench.samples)["peak"] / 1e9 for name in RATES}
    tenth = {name: bench.took(name, bench.samples // TENTH)["peak"] / 1e9 for name in RATES}
    growth = max(whole[name] / tenth[name] for name in RATES)
    detail = {
        "samples": bench.samples,
        "of_a_tenth": round(growth, 3),  # the goal of this is 1.2
        "whole": {name: round(peak, 3) for name, peak in whole.items()},
        "tenth": {name: round(peak, 3) for name, peak in tenth.items()},
    }
    bench.book.add(Figure("release.memory", round(max(whole.values()), 3), 1.0, "lower", detail))
    bench.book.add(Figure("release.memory_of_a_tenth", round(growth, 3), 1.2, "lower", {"samples": bench.samples}))


def no_change(bench: Bench) -> None:
    """Measure how long a release takes to find that nothing changed since the first."""
    with Simulator(bench.folder / "server", arguments=("--canned",)) as server:
        run = engine.Bench(bench.folder, server, bench.book, bench.scale)
        count = run.count(STORED)
        source = bench.folder / "stored images"
        material.images(source, 0, count)
        ingest = {"min_side": material.SIDE, "shard_images": max(8, count // 12)}
        settings = run.settings("stored", source, ingest=ingest, match={"k": 4})
        run.step(settings, "types", "0", str(engine.TYPES))
        run.run(settings, [("ingest",), ("embed",), ("generate", "match"), ("fill",), ("generate", "vote")])
        first, again = (run.step(settings, "release") for _ in range(2))
    if not first["result"]["made"] or again["result"]["made"]:
        raise SystemExit("the second release was not one without a change")
    bench.book.add(
        Figure(
            "release.no_change",
            round(again["seconds"] / first["seconds"], 4),
            0.02,
            "lower",
            {
                "samples": first["result"]["samples"],
                "first_seconds": round(first["seconds"], 2),
                "seconds": round(again["seconds"], 3),
            },
        )
    )


FIGURES = {figure.__name__: figure for figure in (rates, memory, no_change)}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    if chosen[:1] == ("step",):
        name, samples, where = chosen[1:]
        print(json.dumps(step(name, int(samples), Path(where))))
        return
    with running.folder("release", FIGURES, chosen) as folder:
        running.measure(FIGURES, chosen, Bench(folder, Book("release"), running.scale()))


if __name__ == "__main__":
    main(*sys.argv[1:])
