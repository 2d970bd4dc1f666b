"""Which pictures are one: by file, by PDQ of the whole and of crops, and by their thumbnails."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from benchmarks.planted_leaks import picture_leaks
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.models.rendering import upright
from taskgalaxy_ops.operations.benchmarks import prints_of
from taskgalaxy_ops.release.decontaminate import likeness, pictures
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture, ImagePrints
from taskgalaxy_ops.release.decontaminate.likeness import CROP_STEPS, ItemThumbnails
from taskgalaxy_ops.release.decontaminate.near_hashes import Bands
from taskgalaxy_ops.release.decontaminate.pictures import (
    COPY,
    CROPPED,
    MIRRORED,
    PDQ,
    SAME_FILE,
    PictureIndex,
    PictureThresholds,
    by_file_alone,
    picture_hash,
)
from taskgalaxy_ops.release.pdq_table import image_hash
from taskgalaxy_ops.sources.pdq import unpacked
from taskgalaxy_ops.sources.thumbnail import pixels_of

LIMITS = PictureThresholds(bits=30, correlation=0.95, correlation_alone=0.98, bits_cropped=40, correlation_cropped=0.83)


def drawn(seed: int) -> bytes:
    """Soft patches of colour, as a photograph out of focus has them; no two alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    out = io.BytesIO()
    Pillow.fromarray(noise).resize((192, 144), Pillow.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def kept(item: str, raw: bytes) -> BenchmarkPicture:
    return BenchmarkPicture(item=item, picture=picture_hash(sha256_hex(raw)), **prints_of(upright(raw))._asdict())


def bare(row: BenchmarkPicture) -> BenchmarkPicture:
    """As earlier versions kept it."""
    return replace(row, brightness="", colours="")


def prints(raws: list[bytes], vectors: NDArray[np.float32] | None = None) -> ImagePrints:
    rows = [image_hash(sha256_hex(raw), upright(raw)) for raw in raws]
    return ImagePrints(
        images=[row.image for row in rows],
        pictures=[picture_hash(row.image) for row in rows],
        pdq=unpacked([row.pdq for row in rows]),
        quality=np.array([row.quality for row in rows]),
        vectors=vectors,
        brightness=pixels_of([row.brightness for row in rows], (32, 32)),
        colours=pixels_of([row.thumbnail for row in rows], (16, 16, 3)),
    )


def hashed(pdq: NDArray[np.uint8], vectors: NDArray[np.float32] | None = None) -> ImagePrints:
    """Images of which nothing is known but hashes."""
    names = [f"x{number}" for number in range(len(pdq))]
    return replace(by_file_alone(names), pdq=pdq, quality=np.full(len(pdq), 100), vectors=vectors)


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


def page(lines: int, ground: str = "white", ink: str = "#555555", head: str = "navy") -> bytes:
    """A page of one layout: coloured bars, and between them lines of text, whose lengths hang on the number."""
    picture = Pillow.new("RGB", (300, 400), ground)
    drawing = ImageDraw.Draw(picture)
    for bar in ((0, 0, 300, 60), (0, 130, 90, 250), (200, 330, 300, 400)):
        drawing.rectangle(bar, head)
    for row, length in enumerate(np.random.default_rng(lines).integers(100, 175, 30)):
        drawing.rectangle((110, 80 + 8 * row, 110 + int(length), 82 + 8 * row), ink)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def alike(raws: list[bytes]) -> NDArray[np.float32]:
    """Embeddings that say nothing: all are one."""
    return np.tile(np.array([1, 0], np.float32), (len(raws), 1))


def test_pages_of_one_layout_are_not_one() -> None:
    rows = [kept("page", page(0))]
    index = PictureIndex(rows, {rows[0].picture: alike([b""])[0]})
    others = [page(number) for number in range(1, 60)]
    bits = np.bitwise_count(prints(others).pdq ^ unpacked([rows[0].prints[0]])).sum(axis=1)
    assert (bits <= 48).sum() > 3  # hashes do not tell them apart
    assert not list(index.search(prints(others, alike(others)), LIMITS))
    copies = [picture_leaks(page(0), 1)[way] for way in ("re-encoded", "resized", "recoloured", "cropped", "mirrored")]
    assert len(list(index.search(prints(copies, alike(copies)), LIMITS))) == 5
    old = PictureIndex(list(map(bare, rows)), {rows[0].picture: alike([b""])[0]})
    assert len(list(old.search(prints(others), LIMITS))) == (bits <= 40).sum()  # what was added without thumbnails


def test_a_drawing_in_another_hue_is_another_and_one_in_grey_is_not() -> None:
    rows = [kept("blue", page(0, head="navy", ground="#f0f0ff", ink="#3030a0"))]
    index = PictureIndex(rows, {})
    red = page(0, head="maroon", ground="#fff0f0", ink="#a03030")
    grey = io.BytesIO()
    upright(page(0, head="navy", ground="#f0f0ff", ink="#3030a0")).convert("L").save(grey, "PNG")
    assert [(each.image, each.kind) for each in index.search(prints([red, grey.getvalue()]), LIMITS)] == [(1, PDQ)]


def figure(left: int, tone: str = "red", side: int = 40) -> bytes:
    """A square on an empty ground."""
    picture = Pillow.new("RGB", (200, 200), "white")
    ImageDraw.Draw(picture).rectangle((left, 60, left + side, 60 + side), tone)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_figures_whose_hash_says_nothing_are_compared_by_their_thumbnails() -> None:
    rows = [kept("square", figure(50))]
    index = PictureIndex(rows, {rows[0].picture: alike([b""])[0]})
    ways = picture_leaks(figure(50), 3)
    asked = [ways["re-encoded"], ways["resized"], figure(100), figure(50, side=70), figure(50, "green")]
    assert [each.image for each in index.search(prints(asked, alike(asked)), LIMITS)] == [0, 1]
    # Without thumbnails only its file is: its hash is one of little quality, or half of it is noise.
    old = PictureIndex(list(map(bare, rows)), {rows[0].picture: alike([b""])[0]})
    assert not list(old.search(prints([figure(100)], alike([b""])), LIMITS))


def test_descriptors_name_copies_and_images_without_any_are_compared_by_hashes() -> None:
    rows = [kept(f"i{number}", drawn(number)) for number in range(3)]
    described = {row.picture: np.eye(3, dtype=np.float32)[number] for number, row in enumerate(rows)}
    index = PictureIndex(rows, {}, described)
    limits = replace(LIMITS, copies=0.25)
    asked = replace(prints([drawn(8), drawn(9), drawn(10)]), copies=np.array([[0, 0.3, 0.2], [0.2, 0, 0.1], [0, 0, 0]]))
    found = [(each.image, each.item, each.kind, each.score) for each in index.search(asked, limits)]
    assert found == [(0, "i1", COPY, 0.3)]
    copy = picture_leaks(drawn(2), 5)["re-encoded"]
    assert [each.item for each in index.search(prints([drawn(8), copy]), limits)] == ["i2"]


def test_of_many_items_that_are_all_but_one_the_nearest_few_are_compared() -> None:
    items = np.tile(np.array([1, 0], np.float32), (3000, 1))
    items[7] = [0.6, 0.8]
    at, places, cosines = pictures._nearest(np.array([[1, 0], [0, 1]], np.float32), items, 0.35)
    assert (at == 0).sum() == pictures._MOST
    assert 7 not in places[at == 0]
    assert places[at == 1].tolist() == [7]
    assert cosines[at == 1] == pytest.approx([0.8])


def test_pictures_without_edges_are_not_compared() -> None:
    rows = [kept("flat", _flat(200))]
    index = PictureIndex(rows, {rows[0].picture: alike([b""])[0]})
    assert not list(index.search(prints([_flat(201), _flat(90)], alike([b"", b""])), LIMITS))


def _flat(tone: int) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (64, 64), (tone, tone, tone)).save(out, "PNG")
    return out.getvalue()


def test_no_hash_within_the_bound_is_missed() -> None:
    """Against all pairs: half of the hashes differ from a kept one in 20 to 40 bits."""
    rng = np.random.default_rng(1)
    items = rng.integers(0, 256, (300, 32), np.uint8)
    asked = rng.integers(0, 256, (400, 32), np.uint8)
    for row in range(0, 400, 2):
        flips = np.zeros(256, np.uint8)
        flips[rng.choice(256, int(rng.integers(20, 41)), replace=False)] = 1
        asked[row] = items[rng.integers(300)] ^ np.packbits(flips)
    found = list(Bands(items.view(np.uint64)).near(asked.view(np.uint64), 31))
    apart = np.bitwise_count(asked[:, None] ^ items[None]).sum(axis=2)
    assert {(a, b) for a, b, _ in found} == {(int(a), int(b)) for a, b in np.argwhere(apart <= 31)}
    assert 80 < len(found) < 200


def test_of_many_items_the_crops_of_the_nearest_are_compared() -> None:
    rng = np.random.default_rng(2)
    hashes = np.repeat(rng.integers(0, 256, (1200, 1, 32), np.uint8), 3, axis=1)
    hashes[:, 2, :8] ^= 0xFF  # a crop's hash is 64 bits from that of the whole
    near = rng.normal(size=(1200, 8)) * 0.2 + np.array([1, 0, 0, 0, 0, 0, 0, 0])  # all lie within candidates' reach
    vectors = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    rows = [
        BenchmarkPicture(item=f"{n:04d}", picture=f"{n}", quality=100, prints=tuple(p.tobytes().hex() for p in own))
        for n, own in enumerate(hashes)
    ]
    index = PictureIndex(rows, {f"{n}": vector for n, vector in enumerate(vectors)})
    asked = np.array([hashes[7, 2], hashes[900, 2], hashes[900, 2]])  # the third's embedding is far from its item's
    hashes[:, 1] = rng.integers(0, 256, (1200, 32), np.uint8)
    images = hashed(asked, np.stack([vectors[7], vectors[900], -vectors[900]]))
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


def test_a_crop_of_text_is_looked_for_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    upright(page(1)).resize((1200, 1600)).save(out, "PNG")
    item = ItemThumbnails([kept("page", out.getvalue())])
    begin = 5.5 / CROP_STEPS
    crop = upright(out.getvalue()).crop((round(1200 * begin), round(1600 * begin), 1080 + 55, 1440 + 73))
    row = image_hash("crop", crop)
    looks = pixels_of([row.brightness], (32, 32))[0], pixels_of([row.thumbnail], (16, 16, 3))[0]
    between, _ = item.cropped(0, (0.9, 5 / CROP_STEPS, 5 / CROP_STEPS), *looks)
    monkeypatch.setattr(likeness, "_BESIDE", (-1, 0, 1))
    on_steps, _ = item.cropped(0, (0.9, 5 / CROP_STEPS, 5 / CROP_STEPS), *looks)
    assert between > on_steps + 0.005
