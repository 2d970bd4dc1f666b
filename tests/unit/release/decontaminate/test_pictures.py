"""Which pictures are one: by file, by PDQ of the whole and of crops, and by embedding with PDQ."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from benchmarks.planted_leaks import picture_leaks
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.operations.benchmarks import prints_of
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture, ImagePrints
from taskgalaxy_ops.release.decontaminate.pictures import (
    ALIKE,
    CROPPED,
    MIRRORED,
    PDQ,
    SAME_FILE,
    PictureIndex,
    PictureThresholds,
    picture_hash,
)
from taskgalaxy_ops.sources.pdq import pdq, unpacked

LIMITS = PictureThresholds(bits=40, bits_cropped=48, cosine=0.97, bits_alike=70)


def drawn(seed: int) -> bytes:
    """Soft patches of colour, as a photograph out of focus has them; no two alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    out = io.BytesIO()
    Pillow.fromarray(noise).resize((192, 144), Pillow.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def kept(item: str, raw: bytes) -> BenchmarkPicture:
    return BenchmarkPicture(item, picture_hash(sha256_hex(raw)), *prints_of(upright(raw)))


def prints(raws: list[bytes], vectors: NDArray[np.float32] | None = None) -> ImagePrints:
    found = [pdq(upright(raw)) for raw in raws]
    return ImagePrints(
        images=[sha256_hex(raw) for raw in raws],
        pictures=[picture_hash(sha256_hex(raw)) for raw in raws],
        pdq=unpacked([each.bits for each in found]),
        quality=np.array([each.quality for each in found]),
        vectors=vectors,
    )


@pytest.fixture(scope="module")
def index() -> PictureIndex:
    return PictureIndex([kept(f"i{number}", drawn(number)) for number in range(4)], {})


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        ("re-encoded", {PDQ}),
        ("resized", {PDQ}),
        ("recoloured", {PDQ}),
        ("cropped", {PDQ, CROPPED}),
        ("mirrored", {MIRRORED}),
        ("overlaid", {PDQ}),
    ],
)
def test_a_picture_is_found_however_it_was_changed(index: PictureIndex, way: str, kinds: set[str]) -> None:
    found = list(index.search(prints([picture_leaks(drawn(number), number)[way] for number in range(4)]), LIMITS))
    assert [(each.image, each.item) for each in found] == [(number, f"i{number}") for number in range(4)]
    assert {each.kind for each in found} <= kinds


def test_the_surest_finding_counts_and_others_are_none(index: PictureIndex) -> None:
    found = list(index.search(prints([drawn(50), drawn(3), drawn(51)]), LIMITS))
    assert [tuple(each) for each in found] == [(1, "i3", SAME_FILE, 1.0)]


def test_embeddings_need_a_pdq_that_is_not_far_and_pictures_without_edges_are_not_compared() -> None:
    items = [kept("near", drawn(0)), kept("flat", _flat(200))]
    vectors = {each.picture: np.array([1, 0], np.float32) for each in items}
    near = bytes.fromhex(items[0].prints[0])
    moved = (near[:8] + bytes(each ^ 0xF0 for each in near[8:24]) + near[24:]).hex()  # in 64 bits
    asked = ImagePrints(
        images=["a", "b", "c", "d"],
        pictures=["a", "b", "c", "d"],
        pdq=unpacked([moved, moved, "f" * 64, items[1].prints[0]]),
        quality=np.array([100, 100, 100, 0]),
        vectors=np.array([[1, 0], [0.6, 0.8], [1, 0], [1, 0]], np.float32),
    )
    found = list(PictureIndex(items, vectors).search(asked, LIMITS))
    assert [(each.image, each.item, each.kind) for each in found] == [(0, "near", ALIKE)]
    assert not list(PictureIndex(items, vectors).search(asked, PictureThresholds(40, 48, 0.97, 0)))
    assert not list(PictureIndex(items, {}).search(asked, LIMITS))


def _flat(tone: int) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (64, 64), (tone, tone, tone)).save(out, "PNG")
    return out.getvalue()


def test_no_hash_within_the_bound_is_missed() -> None:
    """Against all pairs: half of the hashes differ from a kept one in 20 to 40 bits."""
    rng = np.random.default_rng(1)
    items = rng.integers(0, 256, (300, 32), np.uint8)
    asked = rng.integers(0, 256, (400, 32), np.uint8)
    items[:, 24:] = asked[:, 24:] = 255  # so that all have bits enough
    for row in range(0, 400, 2):
        flips = np.zeros(256, np.uint8)
        flips[rng.choice(256, int(rng.integers(20, 41)), replace=False)] = 1
        asked[row] = items[rng.integers(300)] ^ np.packbits(flips)
    rows = [BenchmarkPicture(f"{n:03d}", f"{n}", 100, (each.tobytes().hex(),) * 2) for n, each in enumerate(items)]
    names = [f"x{number}" for number in range(400)]
    images = ImagePrints(images=names, pictures=names, pdq=asked, quality=np.full(400, 100), vectors=None)
    found = {(each.image, each.item) for each in PictureIndex(rows, {}).search(images, PictureThresholds(31, 31, 1, 0))}
    apart = np.bitwise_count(asked[:, None] ^ items[None]).sum(axis=2)
    assert found == {(int(a), f"{b:03d}") for a, b in np.argwhere(apart <= 31)}
    assert 80 < len(found) < 200


def test_of_many_items_the_crops_of_the_nearest_are_compared() -> None:
    rng = np.random.default_rng(2)
    hashes = np.repeat(rng.integers(0, 256, (1200, 1, 32), np.uint8), 3, axis=1)
    hashes[:, 2, :8] ^= 0xFF  # a crop's hash is 64 bits from that of the whole
    near = rng.normal(size=(1200, 8)) * 0.2 + np.array([1, 0, 0, 0, 0, 0, 0, 0])  # all lie within candidates' reach
    vectors = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    rows = [
        BenchmarkPicture(f"{n:04d}", f"{n}", 100, tuple(p.tobytes().hex() for p in own)) for n, own in enumerate(hashes)
    ]
    index = PictureIndex(rows, {f"{n}": vector for n, vector in enumerate(vectors)})
    asked = np.array([hashes[7, 2], hashes[900, 2], hashes[900, 2]])  # the third's embedding is far from its item's
    hashes[:, 1] = rng.integers(0, 256, (1200, 32), np.uint8)
    images = ImagePrints(
        images=["a", "b", "c"],
        pictures=["a", "b", "c"],
        pdq=asked,
        quality=np.full(3, 100),
        vectors=np.stack([vectors[7], vectors[900], -vectors[900]]),
    )
    assert [(each.image, each.item, each.kind) for each in index.search(images, LIMITS)] == [
        (0, "0007", CROPPED),
        (1, "0900", CROPPED),
    ]


def test_a_crop_anywhere_passes_the_rough_look() -> None:
    """All items lie equally near by their embeddings, so that hashes decide."""
    raws = [drawn(number) for number in range(12)]
    rows = [kept(f"{number:02d}", raw) for number, raw in enumerate(raws)]
    same = np.array([1, 0], np.float32)
    index = PictureIndex(rows, {row.picture: same for row in rows})
    leaks = [picture_leaks(raw, number)["cropped"] for number, raw in enumerate(raws)]
    found = list(index.search(prints(leaks, np.tile(same, (12, 1))), LIMITS))
    assert [(each.image, each.item) for each in found] == [(number, f"{number:02d}") for number in range(12)]
