"""Ingest against the full decoding of the same files alone, on all cores. ``make bench-ingest``.

``of_limit`` is given where a source lies, so that sources of other kinds are measured by it too. Both sides take turns
in one run, so that a machine that slows down slows both; ``SCALE=0.5`` takes half of the images.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks import material, running
from benchmarks.figures import Book, Figure
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.sources.decoders import cores
from taskgalaxy_ops.workspace import Workspace

IMAGES = 600
SIZE = (1152, 896)  # pixels, about a megapixel
ROUNDS = 5
GOAL = 0.8
_KINDS = 60  # pictures that are made; the others are these, moved sideways
_AT_ONCE = 8  # files that a process of the limit is given at once


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of a megapixel and about 260 kB: soft patches under noise; the same ones each time."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = SIZE
    noise = np.random.default_rng(0).normal(0, 6, (height, width, 3)).astype(np.float32)
    made, files = [], []
    for number in range(count):
        if number < _KINDS:
            patches = Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8))
            soft = np.asarray(patches.resize(SIZE, Image.Resampling.BICUBIC), np.float32)
            made.append((soft + noise).clip(0, 255).astype(np.uint8))
        pixels = np.roll(made[number % _KINDS], 16 * (number // _KINDS), axis=1)
        files.append(folder / f"{number:06d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=88)
    return files


def decode(file: str) -> int:
    """Decode every pixel of a file with Pillow; returns how many there are."""
    with Image.open(file) as image:
        image.load()
        return image.width * image.height


def decoded_alone(files: Sequence[Path], pool: ProcessPoolExecutor) -> float:
    """Images a second."""
    begin = time.perf_counter()
    pixels = sum(pool.map(decode, map(str, files), chunksize=_AT_ONCE))
    took = time.perf_counter() - begin
    assert pixels == len(files) * SIZE[0] * SIZE[1]
    return len(files) / took


def ingested(location: str, folder: Path, count: int) -> float:
    """Images a second of a source's scan into a new store, from opening the store to the last registration."""
    store, nobody = (folder / uuid.uuid4().hex).as_uri(), "http://127.0.0.1:9/v1"
    settings = material.settings(store, folder, nobody, sources={"images": {"location": location}})
    begin = time.perf_counter()
    receipt = pipeline.ingest(Workspace.open(settings), "images")
    took = time.perf_counter() - begin
    assert receipt.new_images == count, receipt
    return count / took


def of_limit(book: Book, files: Sequence[Path], location: str, folder: Path) -> None:
    """Compare a source's ingest with decoding the same images, as files, alone.

    location: of a source with the images of ``files``. folder: for the stores.
    """
    allowed = cores()
    load = os.getloadavg()[0]
    rates: list[tuple[float, float]] = []
    with ProcessPoolExecutor(allowed, multiprocessing.get_context("spawn")) as pool:
        decoded_alone(files, pool)  # starts the processes, and brings the files into the page cache
        ingested(location, folder, len(files))  # imports what it needs
        for _ in range(ROUNDS):
            rates.append((ingested(location, folder, len(files)), decoded_alone(files, pool)))
    ratios = [ours / alone for ours, alone in rates]
    detail = {
        "images": len(files),
        "images_a_second": round(median(ours for ours, _ in rates), 1),
        "decoded_alone_a_second": round(median(alone for _, alone in rates), 1),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "processes": allowed,
        "load_before": round(load, 1),
    }
    book.add(Figure("ingest.of_limit", round(median(ratios), 3), GOAL, "higher", detail))


def main() -> None:
    """Measure, and append to build/bench/ingest.jsonl."""
    with running.folder("ingest", {"of_limit": of_limit}, sys.argv[1:]) as folder:
        files = photographs(folder / "images", max(60, round(IMAGES * running.scale())))
        of_limit(Book("ingest"), files, str(folder / "images"), folder / "stores")


if __name__ == "__main__":
    main()
