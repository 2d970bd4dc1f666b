"""Pictures that look the same: all pairs of the definition, found without comparing all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from taskgalaxy_ops.release import near_pictures
from taskgalaxy_ops.release.near_pictures import Looks, groups, stand_ins
from taskgalaxy_ops.settings import NearDuplicateSettings
from taskgalaxy_ops.sources.thumbnail import LENGTH

PDQ_ALONE = NearDuplicateSettings(pdq_bits_alike=0, thumbnail_correlation=None)
LIMITS = [
    PDQ_ALONE,
    NearDuplicateSettings(),
    NearDuplicateSettings(pdq_bits=3, thumbnail_correlation=None),
    NearDuplicateSettings(pdq_bits=0, pdq_bits_alike=0),
    NearDuplicateSettings(pdq_bits=0, pdq_bits_alike=0, thumbnail_correlation=0.98),
]


def flipped(bits: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A hash that differs in so many bits, which lie anywhere."""
    found = bits.copy()
    found[rng.choice(len(bits), count, replace=False)] ^= 1
    return found


def planted(seed: int, families: int = 60) -> Looks:
    """Families of hashes at all distances around the bounds, some near by another hash alone, in any order."""
    rng = np.random.default_rng(seed)
    bits, points, quality, hashes, shapes = [], [], [], [], []
    for family in range(families):
        first, point = rng.integers(0, 2, 256).astype(np.uint8), rng.standard_normal(32)
        coarse, shape = rng.integers(0, 2, 160).astype(np.uint8), rng.integers(-100, 100, LENGTH)
        for distance in (0, *rng.integers(0, 130, rng.integers(0, 4))):
            bits.append(flipped(first, int(distance), rng))
            points.append(point + rng.standard_normal(32) * 0.15)
            quality.append(5 if family % 10 == 9 else 100)
            hashes.append(flipped(coarse, int(rng.integers(0, 5)), rng))  # two copies differ in eight bits at most
            noise = rng.integers(-1, 2, LENGTH) * rng.integers(0, 27)
            shapes.append(0 * shape if rng.random() < 0.1 else shape + noise)
    order = rng.permutation(len(bits))
    norm = np.stack(points)[order]
    norm = (norm / np.linalg.norm(norm, axis=1, keepdims=True)).astype(np.float32)
    pdq, coarse = (np.packbits(np.stack(each)[order], axis=1) for each in (bits, hashes))
    return Looks(pdq, np.array(quality)[order], norm, np.stack(shapes)[order].astype(np.int8), coarse)


def near_by_definition(looks: Looks, limits: NearDuplicateSettings) -> NDArray[np.bool_]:
    words = looks.pdq.view(np.uint64)
    bits = np.bitwise_count(words[:, None] ^ words).sum(axis=2)
    near = bits <= limits.pdq_bits
    if limits.pdq_bits_alike and looks.vectors is not None:
        near |= (bits <= limits.pdq_bits_alike) & (looks.vectors @ looks.vectors.T >= limits.image_cosine)
    clear = looks.quality >= near_pictures.LEAST_QUALITY
    near &= clear & clear[:, None]
    if limits.thumbnail_correlation is not None and looks.thumbnails is not None:
        shapes = looks.thumbnails.astype(np.float64)
        lengths = np.linalg.norm(shapes, axis=1)
        products = shapes @ shapes.T
        near |= (products >= limits.thumbnail_correlation * lengths[:, None] * lengths) & (products > 0)
    found: NDArray[np.bool_] = near & ~np.eye(len(bits), dtype=bool)
    return found


def groups_by_definition(near: NDArray[np.bool_]) -> set[frozenset[int]]:
    left, found = set(range(len(near))), set()
    while left:
        group, edge = set(), {left.pop()}
        while edge:
            group |= edge
            edge = {int(b) for a in edge for b in np.flatnonzero(near[a])} - group
        left -= group
        found.add(frozenset(group))
    return found


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_groups_are_the_components_of_all_near_pairs(
    limits: NearDuplicateSettings, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_pictures, "_AT_ONCE", 7)
    monkeypatch.setattr(near_pictures, "_PAIRS_AT_ONCE", 5)
    monkeypatch.setattr(near_pictures, "_EDGES", 9)
    looks = planted(seed)
    labels = groups(looks, limits)
    found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
    expected = groups_by_definition(near_by_definition(looks, limits))
    assert found == expected
    assert any(len(group) > 1 for group in expected)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_is_unlike_and_what_is_dropped_is_like_its_stand_in(seed: int) -> None:
    limits = NearDuplicateSettings()
    looks = planted(seed)
    near = near_by_definition(looks, limits)
    found = stand_ins(looks, limits)
    expected = np.full(len(found), -1)
    for row in range(len(found)):
        earlier = [kept for kept in np.flatnonzero(near[row]) if kept < row and expected[kept] < 0]
        expected[row] = earlier[0] if earlier else -1
    assert found.tolist() == expected.tolist()
    assert (found >= 0).any()


def test_a_chain_joins_its_ends_and_drops_none_that_nothing_kept_resembles() -> None:
    rng = np.random.default_rng(3)
    chain = [rng.integers(0, 2, 256).astype(np.uint8)]
    order = rng.permutation(256).reshape(-1, 16)
    for step in order[:6]:  # each 16 bits from the one before it, the ends 96 apart
        chain.append(chain[-1].copy())
        chain[-1][step] ^= 1
    looks = Looks(np.packbits(np.stack(chain), axis=1), np.full(7, 100), None)
    assert set(groups(looks, PDQ_ALONE).tolist()) == {0}
    assert stand_ins(looks, PDQ_ALONE).tolist() == [-1, 0, -1, 2, -1, 4, -1]


def test_of_nothing_nothing_is_found() -> None:
    none = Looks(np.empty((0, 32), np.uint8), np.empty(0, np.int64), None)
    assert groups(none, PDQ_ALONE).tolist() == stand_ins(none, PDQ_ALONE).tolist() == []
    unclear = Looks(np.zeros((3, 32), np.uint8), np.zeros(3, np.int64), np.ones((3, 4), np.float32) / 2)
    assert stand_ins(unclear, NearDuplicateSettings()).tolist() == [-1, -1, -1]
    assert len(set(groups(unclear, NearDuplicateSettings()).tolist())) == 3


def test_pictures_that_agree_in_a_band_alone_are_both_kept() -> None:
    pdq = np.zeros((2, 32), np.uint8)
    pdq[1, 2:] = 255
    looks = Looks(pdq, np.array([100, 100]), None)
    assert list(stand_ins(looks, PDQ_ALONE)) == [-1, -1]
    assert len(set(groups(looks, PDQ_ALONE))) == 2
