"""What a run asks of the store when there is little to do, and how sources, image shards and take-downs go together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import MemoryStore
from golden.golden_store import golden_workspace
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from taskgalaxy_ops import pipeline
from taskgalaxy_ops.generation import lanes
from taskgalaxy_ops.records import Match, Reason
from taskgalaxy_ops.settings import parse_settings
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.image_index import ImageIndex
from taskgalaxy_ops.workspace import Workspace

SEEDS = Path(__file__).parents[2] / "golden" / "seeds.yaml"


class Shades:
    """An encoder of flat colours; counts the images that it is given."""

    dim = 3

    def __init__(self) -> None:
        self.identity = {"name": "shades", "weights": "0", "revision": "0"}
        self.images = 0

    def encode_images(self, images: list[Pillow.Image]) -> np.ndarray[Any, Any]:
        self.images += len(images)
        return self._unit(np.array([image.getpixel((0, 0)) for image in images], np.float32) + 1)

    def encode_texts(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return self._unit(np.array([[len(text), ord(text[0]), ord(text[-1])] for text in texts], np.float32))

    @staticmethod
    def _unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def opened(folder: Path, store: MemoryStore, **sources: str) -> Workspace:
    def model(name: str) -> dict[str, Any]:
        return {"name": name, "base_url": "http://127.0.0.1:9/v1", "model": name, "simulated": True}

    raw = {
        "store": "memory",
        "sources": {name: {"location": str(folder / location)} for name, location in sources.items()},
        "taxonomy": {"seeds": str(SEEDS)},
        "ingest": {"shard_images": 3},
        "match": {"k": 2},
        "teacher": model("t"),
        "judges": [model("a"), model("b")],
    }
    workspace = Workspace(parse_settings(raw), store)
    workspace.__dict__["encoder"] = Shades()
    return workspace


def pictures(folder: Path, *shades: int) -> None:
    folder.mkdir(exist_ok=True)
    for shade in shades:
        Pillow.new("RGB", (40, 40), (shade, 3 * shade % 256, 7 * shade % 256)).save(folder / f"{shade:03d}.png")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def workspace(tmp_path: Path, store: MemoryStore) -> Workspace:
    """Nine images of source a in three image shards."""
    pictures(tmp_path / "a", *range(9))
    workspace = opened(tmp_path, store, a="a", b="b")
    pipeline.ingest(workspace, "a")
    return workspace


def counted(store: MemoryStore) -> Counter[tuple[str, str]]:
    """Requests by operation and the first part of the key, from now on."""
    found: Counter[tuple[str, str]] = Counter()

    def count(operation: str, key: str) -> None:
        found[operation, key.split("/")[0]] += 1

    store.before = count
    return found


def matched(workspace: Workspace) -> dict[str, list[Match]]:
    shards = pipeline.generate(workspace, pipeline.RunOptions(last_stage="match")).matches
    return {
        shard: workspace.stage_outputs.load(stage_output, "matches", Match) for shard, stage_output in shards.items()
    }


def again(workspace: Workspace) -> Workspace:
    """The same store opened by a process that has read nothing."""
    other = Workspace(workspace.settings, workspace.store)
    other.__dict__["encoder"] = workspace.encoder
    return other


# A run with nothing to do


def test_a_run_with_nothing_to_do_lists_each_image_shard_once_and_reads_none(tmp_path: Path) -> None:
    golden = golden_workspace(tmp_path / "store")
    store = MemoryStore()
    store.objects = {listed.key: golden.store.get(listed.key) for listed in golden.store.list("")}
    requests = counted(store)
    result = pipeline.generate(Workspace(golden.settings, store))
    assert all(stage.stage_output for shard in result.shards for stage in shard.stages.values())
    assert {key: n for key, n in requests.items() if key[1] == "homes"} == {("list", "homes"): len(result.shards)}
    assert not any(key[1] == "workers" for key in requests), "it asks no model"
    assert requests["get", "blobs"] == requests["put", "data"] == 0


def test_a_run_with_nothing_to_do_asks_one_thing_a_image_shard(
    workspace: Workspace, store: MemoryStore, tmp_path: Path
) -> None:
    def requests() -> int:
        pipeline.generate(workspace, pipeline.RunOptions(last_stage="match"))
        found = counted(store)
        pipeline.generate(again(workspace), pipeline.RunOptions(last_stage="match"))
        return found.total()

    first = requests()
    pictures(tmp_path / "a", *range(20, 80))
    pipeline.ingest(workspace, "a")
    shards = len(workspace.registry.shards())
    assert shards == 23
    # One more entry of the registry beside them.
    assert requests() - first == (shards - 3) + 1


def test_a_scan_of_an_unchanged_listing_reads_no_image_shard(
    workspace: Workspace, store: MemoryStore, tmp_path: Path
) -> None:
    """By the listing alone, unless its notes on files changed, or another setting may let a file pass."""
    notes = tmp_path / "a" / "source.json"

    def scanned() -> tuple[pipeline.IngestReceipt, int]:
        found = counted(store)
        return pipeline.ingest(again(workspace), "a"), found["get", "data"]

    receipt, read = scanned()
    assert (receipt.files, receipt.images, receipt.new_images, receipt.rejects) == (9, 9, 0, [])
    assert read == 2, "the table of parts, and the rejects"
    for content in ('{"licence": "CC0-1.0"}', '{"licence": "MIT"}'):
        notes.write_text(content, "utf-8")
        assert scanned()[1] > 2
        assert scanned()[1] == 2
        assert f'"{next(workspace.registry.claims()).licence}"' in content
    notes.unlink()
    scanned()
    assert next(workspace.registry.claims()).licence is None
    Pillow.new("RGB", (9, 9)).save(tmp_path / "a" / "small.png")
    assert [reject.reason for reject in scanned()[0].rejects] == [Reason.TOO_SMALL]
    ingest = workspace.settings.ingest.model_copy(update={"min_side": 8})
    wider = Workspace(workspace.settings.model_copy(update={"ingest": ingest}), store)
    assert pipeline.ingest(wider, "a").images == 10
    assert scanned()[1] == 2


def test_dead_images_are_looked_for_once(workspace: Workspace, store: MemoryStore, tmp_path: Path) -> None:
    requests = counted(store)
    assert workspace.registry.dead_hashes() == {}
    assert requests["get", "cache"] == 0, "where a source claims a whole image shard nothing is looked up"
    (tmp_path / "a" / "003.png").unlink()
    pipeline.ingest(workspace, "a")
    before = matched(workspace)
    assert sum(map(len, before.values())) == 2 * 8
    assert [key for key in store.objects if key.startswith("cache/registry")] == [
        f"cache/registry-{workspace.registry.last()}"
    ]
    requests = counted(store)
    hashes = again(workspace).registry.dead_hashes()
    assert len(hashes) == 1
    assert (requests["get", "cache"], requests["get", "data"]) == (1, 1)  # the index, and the table of parts
    store.delete(f"cache/registry-{workspace.registry.last()}")
    assert again(workspace).registry.dead_hashes() == hashes
    assert matched(again(workspace)) == before


# Claims by image shard


def test_a_scan_writes_only_the_parts_that_changed(workspace: Workspace, store: MemoryStore, tmp_path: Path) -> None:
    parts = {key for key in store.objects if key.startswith("data/")}
    pictures(tmp_path / "a", 100)
    requests = counted(store)
    assert pipeline.ingest(workspace, "a").new_shards == 1
    # The image shard's images, its claims, the table of parts and the listing.
    assert requests["put", "data"] == 4
    assert parts - set(store.objects) == set()
    requests = counted(store)
    pipeline.ingest(workspace, "a")
    assert requests["put", "registry"] == 0
    assert workspace.registry.named() == {key for key in store.objects if key.startswith("data/")}, (
        "nothing is left over"
    )


def test_claims_are_read_image_shard_by_image_shard(workspace: Workspace, store: MemoryStore, tmp_path: Path) -> None:
    pictures(tmp_path / "b", 0, 1, 2, 3, 50)
    pipeline.ingest(workspace, "b")
    claims = list(workspace.registry.claims())
    shards = workspace.registry.shards()
    requests = counted(store)
    by_shard = {shard.id: workspace.registry.claims_of(shard.id) for shard in shards}
    assert requests["list", "registry"] == 0
    for shard in shards:
        found = by_shard[shard.id]
        assert found == sorted(found, key=lambda claim: (claim.image, claim.source))
        assert {claim.image for claim in found} <= set(workspace.registry.image_ids(shard))
    assert sorted((claim for found in by_shard.values() for claim in found), key=repr) == sorted(claims, key=repr)
    assert len(claims) == 9 + 5
    mine = {shard.id for shard in workspace.registry.shards_of(["b"])}
    assert mine == {shard for shard, found in by_shard.items() if any(claim.source == "b" for claim in found)}


# Take-downs


def test_a_image_shard_remembers_what_was_taken_down_in_it(workspace: Workspace, tmp_path: Path) -> None:
    matched(workspace)
    gone = next(claim.image for claim in workspace.registry.claims() if claim.file == "004.png")
    dealt = pipeline.lanes(workspace, ["a"], 2)
    before_lanes = [[shard.id for shard in lanes.shards_of_lane(workspace, lane)] for lane in dealt]
    workspace.registry.deny([gone], "asked for")
    before, encoded = matched(workspace), workspace.encoder.images
    assert not any(match.image == gone for found in before.values() for match in found)
    markers = {listed.key for listed in workspace.store.list("homes/")}
    for key in workspace.registry.redact():
        workspace.store.delete(key)
    for now in (workspace, again(workspace)):
        assert matched(now) == before
        assert [[shard.id for shard in lanes.shards_of_lane(now, lane)] for lane in dealt] == before_lanes
    assert {listed.key for listed in workspace.store.list("homes/")} == markers, "no key changes with the tables"
    assert workspace.encoder.images == encoded
    receipt = pipeline.ingest(workspace, "a")
    assert (receipt.images, [reject.reason for reject in receipt.rejects]) == (8, [Reason.TAKEN_DOWN])
    assert list(workspace.registry.rejects("a")) == list(receipt.rejects)


def test_nothing_is_done_about_a_image_shard_that_no_source_claims_an_image_of(
    workspace: Workspace, tmp_path: Path
) -> None:
    dealt = pipeline.lanes(workspace, ["a"], 1)[0]
    shard = lanes.shards_of_lane(workspace, dealt)[0]
    first, *others = [
        claim for claim in workspace.registry.claims() if claim.image in workspace.registry.image_ids(shard)
    ]
    (tmp_path / "a" / first.file).unlink()
    pipeline.ingest(workspace, "a")
    workspace.registry.deny([claim.image for claim in others], "asked for")
    workspace.registry.redact()
    assert shard.id not in pipeline.generate(again(workspace), pipeline.RunOptions(last_stage="match")).matches
    workspace.registry.remove("a")
    assert pipeline.generate(again(workspace), pipeline.RunOptions(lane=dealt, last_stage="match")).matches == {}


def test_what_was_taken_down_before_it_was_embedded_never_is(workspace: Workspace, store: MemoryStore) -> None:
    whole, part, _ = workspace.registry.shards()
    gone = [*workspace.registry.image_ids(whole), workspace.registry.image_ids(part)[0]]
    workspace.registry.deny(gone, "asked for")
    for image in gone:
        store.delete(keys.blob(image))
    before = matched(workspace)
    assert workspace.encoder.images == 9 - 4
    workspace.registry.redact()
    assert matched(again(workspace)) == before
    assert sum(map(len, before.values())) == 2 * 5


def test_what_is_taken_down_during_a_scan_leaves_no_file(tmp_path: Path, store: MemoryStore) -> None:
    pictures(tmp_path / "a", 1, 2)
    workspace = opened(tmp_path, store, a="a")
    gone = hashlib.sha256((tmp_path / "a" / "002.png").read_bytes()).hexdigest()

    def meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key == f"{keys.REGISTRY_LOG}/e/0000000001":
            store.before = lambda operation, key: None
            again(workspace).registry.deny([gone], "asked for")

    store.before = meanwhile
    receipt = pipeline.ingest(workspace, "a")
    assert (receipt.files, receipt.images, [reject.file for reject in receipt.rejects]) == (2, 1, ["002.png"])
    assert keys.blob(gone) not in store.objects
    assert len([key for key in store.objects if key.startswith("blobs/")]) == 1


# Where images live


def _ids() -> Iterator[str]:
    return (hashlib.sha256(str(number).encode()).hexdigest() for number in range(10**6))


@given(
    endings=st.sets(st.binary(min_size=1, max_size=3), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    rest=st.sampled_from([b"\0", b"\1", b"\xff"]),
)
def test_every_image_is_found_in_its_image_shard(endings: set[bytes], cuts: list[int], rest: bytes) -> None:
    """Zeros at either end of a digest included, which NumPy leaves out of strings."""
    forms = {(rest * 32 + ending)[-32:].hex() for ending in endings} | {(e + rest * 32)[:32].hex() for e in endings}
    images = sorted({image[:32] + image[:32] for image in forms})
    bounds = sorted({0, len(images), *(min(cut, len(images)) for cut in cuts)})
    shards = {f"{a}": images[a:b] for a, b in pairwise(bounds)}
    image_index = ImageIndex()
    for shard in shards.items():
        image_index.extend([shard])
    assert {image: image_index.get(image) for image in images} == {
        i: shard for shard, ids in shards.items() for i in ids
    }
    assert len(image_index) == len(images)
    strange = next(image for image in _ids() if image not in images)
    assert image_index.get(strange) is None
    assert strange not in image_index
