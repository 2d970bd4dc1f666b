"""Ingest against the full decoding of the same files alone, on all cores; tars and tables against a folder.

A figure of ``make bench-matching``; ``make bench-ingest`` measures it alone. All sides take turns in one run, so that a
machine that slows down slows all; ``SCALE=0.5`` takes half of the images.
"""

from __future__ import annotations

import multiprocessing
import os
import tarfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from benchmarks import material
from benchmarks.figures import Book, Figure
from taskgalaxy_ops import pipeline
from taskgalaxy_ops.sources.decoders import cores
from taskgalaxy_ops.workspace import Workspace

IMAGES = 600
SIZE = (1152, 896)  # pixels, about a megapixel
ROUNDS = 5
GOALS = {"of_limit": 0.8, "webdataset": 0.9, "parquet": 0.9}
_KINDS = 60  # pictures that are made; the others are these, moved sideways
_A_CONTAINER = 200  # images in a tar or a Parquet file
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


def tars(files: Sequence[Path], folder: Path) -> str:
    """The files in WebDataset tars. Returns their location."""
    folder.mkdir(parents=True)
    for number, part in enumerate(_parts(files)):
        with tarfile.open(folder / f"{number:04d}.tar", "w") as tar:
            for file in part:
                tar.add(file, file.name)
    return f"webdataset:{folder}"


def tables(files: Sequence[Path], folder: Path) -> str:
    """The files in a column of Parquet files, in row groups of a hundred as the hub's. Returns their location."""
    folder.mkdir()
    for number, part in enumerate(_parts(files)):
        rows = [{"bytes": file.read_bytes(), "path": file.name} for file in part]
        parquet.write_table(pyarrow.table({"image": rows}), folder / f"{number:04d}.parquet", row_group_size=100)
    return f"parquet:{folder}"


def _parts(files: Sequence[Path]) -> list[Sequence[Path]]:
    return [files[at : at + _A_CONTAINER] for at in range(0, len(files), _A_CONTAINER)]


def measure(book: Book, folder: Path, scale: float) -> None:
    """Compare ingest of a folder with decoding the same images alone, and ingest of containers with that of a folder.

    All sides take turns. folder: for images and stores.
    """
    files = photographs(folder / "images", max(60, round(IMAGES * scale)))
    where = {"folder": str(folder / "images")}
    where |= {"webdataset": tars(files, folder / "tars"), "parquet": tables(files, folder / "tables")}
    allowed, load = cores(), os.getloadavg()[0]
    rates: dict[str, list[float]] = {name: [] for name in (*where, "alone")}
    with ProcessPoolExecutor(allowed, multiprocessing.get_context("spawn")) as pool:
        decoded_alone(files, pool)  # starts the processes, and brings the files into the page cache
        for location in where.values():
            ingested(location, folder, len(files))  # imports what it needs
        for _ in range(ROUNDS):
            for name, location in where.items():
                rates[name].append(ingested(location, folder, len(files)))
            rates["alone"].append(decoded_alone(files, pool))
    detail = {"images": len(files), "processes": allowed, "load_before": round(load, 1)}
    detail |= {f"{name}_a_second": round(median(each), 1) for name, each in rates.items()}
    compared = {
        "of_limit": ("folder", "alone"),
        "webdataset": ("webdataset", "folder"),
        "parquet": ("parquet", "folder"),
    }
    for figure, (ours, other) in compared.items():
        ratios = [one / two for one, two in zip(rates[ours], rates[other], strict=True)]
        told = detail | {"lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}
        book.add(Figure(f"ingest.{figure}", round(median(ratios), 3), GOALS[figure], "higher", told))
