"""How near the library's embed and match come to what the machine can do. ``make bench-matching``.

The sides (matching_sides.py) take turns on the same images in one process, an image shard at a time, so that other
load on the machine meets all of them. A precision that the processor does not compute in is left out, and said.
``SCALE=0.1`` takes a tenth of the images; arguments choose figures: speed, conse, exact, topk,
memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import ingest as ingest_figures
from benchmarks import matching_sides as sides
from benchmarks import material, running
from benchmarks.figures import Book, Figure
from taskgalaxy_ops.generation.calibrate import recall
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import (
    CalibratingEncoder,
    EmbeddingMatrix,
    PreparingEncoder,
    Recipe,
    Vectors,
    cores,
    normalise,
    open_encoder,
)
from taskgalaxy_ops.models.encoders.runtimes import computes_bf16
from taskgalaxy_ops.models.encoders.stream import encode_files
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.settings import Settings
from taskgalaxy_ops.sources.builtin import build
from taskgalaxy_ops.taxonomy import TaxonomyVersion, label_text, load_seeds
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

IMAGES = 384
SHARDS = 3  # turns that the sides take
BATCH = 32  # a run's; image shards are multiples of it, for the last batch of a run is filled up
TYPES = 19_227
TYPE_DIM = 512  # of the network's vectors
MANY = 10  # times the images, of which the memory is compared with that of IMAGES
_GOALS = {"fp32": (None, None), "bf16": (4.0, 2.2), "int8": (6.5, 3.5)}  # of vs_reference and vs_dataloader
_EXACT = {"fp32": 1.0, "bf16": 0.97, "int8": 0.95}
_CALIBRATED = 64  # images that int8 takes its ranges from
_REAL = {"photos": None, "documents": 200}  # built-in sources of ``exact``, and how many pictures of each


class Bench:
    """One run of the benchmark: its folder and the book that it reports to."""

    def __init__(self, folder: Path, book: Book, scale: float) -> None:
        self.folder = folder
        self.book = book
        self.scale = scale
        self.images = SHARDS * BATCH * max(1, round(IMAGES * scale / SHARDS / BATCH))

    def add(self, figure: str, value: float, goal: float | None, better: Any = "higher", **detail: Any) -> None:
        """Report a figure."""
        detail |= {"images": self.images, "load": round(os.getloadavg()[0], 1)}
        self.book.add(Figure(f"matching.{figure}", round(value, 4), goal, better, detail))

    @cached_property
    def store(self) -> Workspace:
        """A store with the images in `SHARDS` image shards, and the task types."""
        return opened(self.folder, self.images, -(-self.images // SHARDS))

    @property
    def source(self) -> Path:
        """The folder of the images' files."""
        return Path(self.store.settings.sources["images"].location)

    @cached_property
    def weights(self) -> Path:
        return sides.weights(self.folder)


def opened(folder: Path, images: int, shard: int) -> Workspace:
    """A new store with that many images and all task types."""
    sides.photographs(folder / f"{images} images", images)
    settings = settings_of(folder, images, ingest={"shard_images": shard})
    workspace = Workspace.open(settings)
    sides.prepare_store(workspace, TYPES)
    return workspace


def settings_of(folder: Path, images: int, **changes: Any) -> Settings:
    """Of the store with that many images; its models are never asked."""
    store, source = (folder / f"{images} store").as_uri(), folder / f"{images} images"
    return material.settings(store, source, "http://127.0.0.1:9/v1", **changes)


def speed(bench: Bench) -> None:
    """Compare the library with the published way and with a DataLoader, and with the limit of this machine."""
    plain = sides.clip(bench.weights, Recipe())
    recipes = {"torch fp32": Recipe(), **_others()}
    encoders = {
        name: sides.clip(bench.weights, recipe) if recipe.fields() else plain for name, recipe in recipes.items()
    }
    for decode in ("quick", "device"):
        whole = sides.clip(bench.weights, Recipe(decode=decode))
        images = [whole.prepare(path.read_bytes()) for path in sorted(bench.source.iterdir())[:_CALIBRATED]]
        small = Recipe("openvino", "int8", decode, None, whole.calibrated(images))
        encoders[f"openvino int8, {decode} decode"] = sides.clip(bench.weights, small)
    stores = {name: sides.using(bench.store, encoder) for name, encoder in encoders.items()}
    types = TaxonomyStore(stores["torch fp32"]).embeddings()
    files = {claim.image: claim.file for claim in bench.store.registry.claims()}
    source = bench.source
    seconds: dict[str, list[float]] = {}
    found: dict[str, sides.Found] = {}
    exact: dict[str, Vectors] = {}
    for shard in bench.store.registry.shards():
        ids = bench.store.registry.image_ids(shard)
        listed = [source / files[image] for image in ids]
        ways: dict[str, Callable[[], sides.Found]] = {
            "reference": lambda listed=listed: sides.reference(plain, listed, types, exact),  # type: ignore[misc]
            "dataloader": lambda listed=listed: sides.dataloader(plain, listed, types),  # type: ignore[misc]
        }
        for name, workspace in stores.items():
            ways[name] = lambda workspace=workspace, shard=shard: sides.product(workspace, [shard], files)  # type: ignore[misc]
        for name, way in ways.items():
            began = time.monotonic()
            found.setdefault(name, {}).update(way())
            seconds.setdefault(name, []).append((time.monotonic() - began) / len(ids))
        raws = [file.read_bytes() for file in listed]
        for name, encoder in encoders.items():
            for part, took in _alone(encoder, raws).items():
                seconds.setdefault(f"{name}: {part}", []).append(took)
    _report(
        bench,
        {name: median(each) for name, each in seconds.items()},
        {name: sides.recall(each, exact, types) for name, each in found.items()},
    )


def _others() -> dict[str, Recipe]:
    """By name, the recipes beside the default that this processor is quick with."""
    found = {}
    for decode in ("quick", "device"):
        found[f"torch fp32, {decode} decode"] = Recipe(decode=decode)
        found[f"openvino fp32, {decode} decode"] = Recipe("openvino", None, decode)
        if computes_bf16():
            found[f"torch bf16, {decode} decode"] = Recipe(None, "bf16", decode)
            found[f"openvino bf16, {decode} decode"] = Recipe("openvino", "bf16", decode)
    return found


def _alone(encoder: PreparingEncoder, raws: Sequence[bytes]) -> dict[str, float]:
    """Seconds an image of decoding and preparing alone, and of the network alone, each on all cores."""
    with ThreadPoolExecutor(cores()) as pool:
        began = time.monotonic()
        prepared = list(pool.map(encoder.prepare, raws))
        decode = (time.monotonic() - began) / len(raws)
    began = time.monotonic()
    encoder.encode_prepared(prepared)
    return {"decode and prepare": decode, "forward": (time.monotonic() - began) / len(raws)}


def _report(bench: Bench, took: Mapping[str, float], recall: Mapping[str, float]) -> None:
    names = [name for name in recall if name not in {"reference", "dataloader"}]
    rates = {name: round(1 / seconds, 2) for name, seconds in took.items()}
    decode = min(took[f"{name}: decode and prepare"] for name in names)
    for precision, (of_reference, of_loader) in _GOALS.items():
        mine = [name for name in names if precision in name]
        if not mine:
            print(f"matching: {precision} is left out: this processor does not compute in it.", flush=True)
            continue
        best = min(mine, key=lambda name: took[name])
        limit = decode + min(took[f"{name}: forward"] for name in mine)
        shown = {"precision": precision, "best": best, "images_a_second": rates}
        bench.add("vs_reference", took["reference"] / took[best], of_reference, **shown)
        bench.add("vs_dataloader", took["dataloader"] / took[best], of_loader, **shown)
        bench.add("of_limit", limit / took[best], 0.9, **shown)
        exact = {name: round(recall[name], 4) for name in mine}
        value = exact["torch fp32"] if precision == "fp32" else exact[best]
        bench.add(f"exact_{precision}", value, _EXACT[precision], recall=exact)


def conse(bench: Bench) -> None:
    """Compare the default encoder's run with what decoding and its network take alone."""
    encoder = sides.Conse()
    workspace = sides.using(bench.store, encoder)
    files = {claim.image: claim.file for claim in bench.store.registry.claims()}
    source = bench.source
    shards = bench.store.registry.shards()
    raws = [(source / file).read_bytes() for file in files.values()]
    ratios, took = [], []
    for _ in range(3):
        began = time.monotonic()
        sides.product(workspace, shards, files)
        took.append((time.monotonic() - began) / len(raws))
        ratios.append(sum(_alone(encoder, raws).values()) / took[-1])
    bench.add("conse_of_limit", median(ratios), 0.9, images_a_second=round(1 / median(took), 2))


def exact(bench: Bench) -> None:
    """Recall by the default encoder on real pictures, with the task types that ship: random weights share few types."""
    built = [build(name, bench.folder / name, limit) for name, limit in _REAL.items()]
    files = sorted(file for folder in built for file in folder.iterdir() if file.suffix in {".jpg", ".png"})
    raws = [file.read_bytes() for file in files]
    plain = open_encoder("conse")
    assert isinstance(plain, CalibratingEncoder)
    one_at_a_time = np.concatenate([plain.encode_images([upright(raw)]) for raw in raws])
    paths = sorted(leaf.path for leaf in TaxonomyVersion(0, None, tuple(load_seeds(None))).leaves())
    types = EmbeddingMatrix(tuple(paths), plain.encode_texts([label_text(path) for path in paths]))
    network = plain.calibrated([plain.prepare(raw) for raw in raws[:: max(1, len(raws) // _CALIBRATED)]])
    recipes = {"fp32": Recipe(), "fp32_quick": Recipe(decode="quick"), "fp32_openvino": Recipe("openvino")}
    recipes["int8"] = Recipe("openvino", "int8", None, None, network)
    recipes |= {"bf16": Recipe("openvino", "bf16")} if computes_bf16() else {}
    found = {}
    for name, recipe in recipes.items():
        stream = encode_files(open_encoder("conse", None, None, recipe), raws, lambda raw: raw)
        found[name] = round(recall(one_at_a_time, np.concatenate([vectors for _, vectors in stream]), types), 4)
    for precision, goal in _EXACT.items():
        if precision in found:
            bench.book.add(
                Figure(
                    f"matching.exact_{precision}_conse",
                    found[precision],
                    goal,
                    "higher",
                    {"images": len(raws), "types": len(paths), "recall": found},
                )
            )


def topk(bench: Bench) -> None:
    """Compare the exact top-k with the bare matrix product, a thousand images at a time."""
    rng = np.random.default_rng(0)
    images = normalise(rng.standard_normal((1000, TYPE_DIM)))
    paths = material.task_types(0, TYPES)
    types = EmbeddingMatrix(tuple(paths), sides.type_vectors(paths, TYPE_DIM))
    matrix = EmbeddingMatrix(tuple(f"{n:04d}" for n in range(len(images))), images)
    ratios, took = [], []
    for _ in range(5):
        began = time.monotonic()
        for at in range(0, len(images), 100):
            images[at : at + 100] @ types.vectors.T
        bare = time.monotonic() - began
        began = time.monotonic()
        for _each in match(matrix, types, k=sides.K):
            pass
        took.append(time.monotonic() - began)
        ratios.append(took[-1] / bare)
    bench.add("topk", median(ratios), 1.5, "lower", types=TYPES, ms_an_image=round(median(took), 4))


def memory(bench: Bench) -> None:
    """Compare a worker's peak memory at n and at 10 n images (default encoder), and tell open_clip's."""
    counts = {"few": bench.images, "many": bench.images * MANY}
    for count in counts.values():
        opened(bench.folder, count, 512)
    few, many = (_peak(bench.folder, count, "conse") for count in counts.values())
    clip = _peak(bench.folder, bench.images, str(bench.weights))
    bench.add("memory", max(many, clip), 2.0, "lower", conse_GB=round(many, 3), open_clip_GB=round(clip, 3), **counts)
    bench.add("memory_growth", many / few, 1.1, "lower", few_GB=round(few, 3), many_GB=round(many, 3), **counts)


def _peak(folder: Path, count: int, encoder: str) -> float:
    """Gigabytes."""
    return float(running.process("benchmarks.matching", "worker", str(folder), str(count), encoder)["peak"]) / 1e9


def worker(folder: Path, count: int, name: str) -> None:
    """Embed and match a store's images in this process, and print its peak memory in bytes."""
    encoder = sides.Conse() if name == "conse" else sides.clip(Path(name), Recipe())
    workspace = sides.using(Workspace.open(settings_of(folder, count)), encoder)
    files = {claim.image: claim.file for claim in workspace.registry.claims()}
    sides.product(workspace, workspace.registry.shards(), files)
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def ingest(bench: Bench) -> None:
    """Images a second through ingest, of a folder against decoding alone, and of containers against a folder."""
    ingest_figures.measure(bench.book, bench.folder / "ingest", bench.scale)


FIGURES: Mapping[str, Callable[[Bench], None]] = {
    figure.__name__: figure for figure in (topk, conse, exact, ingest, memory, speed)
}


def main(*chosen: str) -> None:
    """Measure the chosen figures, by default all."""
    if chosen[:1] == ("worker",):
        worker(Path(chosen[1]), int(chosen[2]), chosen[3])
        return
    with running.folder("matching", FIGURES, chosen) as folder:
        running.measure(FIGURES, chosen, Bench(folder, Book("matching"), running.scale()))


if __name__ == "__main__":
    main(*sys.argv[1:])
