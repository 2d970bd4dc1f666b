"""Pictures that look the same, by PDQ, by embedding with PDQ, and by thumbnail; groups of them, and which of them stand
for others.

No pair is compared unless its hashes agree in a band. PDQ has 16 bands of 16 bits: of two hashes that differ in 31
bits at most, one band differs in one bit at most, so that nothing is missed. Embeddings are banded by the signs of
their products with fixed random directions (Charikar, 2002), which misses one of 10,000 pairs with a cosine of 0.97,
and fewer of nearer ones; they only name candidates, since two charts lie as near each other as two copies of one. An
index of vectors (faiss, usearch) would give other neighbours with other threads, and a release must not. The hash of
ingest, of brightness and colours on a coarse grid, has ten bands, so that none is missed that differs in nine bits. It
names candidates, too: of symmetric pictures, half of whose PDQ is noise, and which their thumbnails tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.settings import NearDuplicateSettings

LEAST_QUALITY = 10  # of PDQ; below, a picture is nearly of one colour, and its hash says nothing

_SIGN_BANDS, _SIGN_BITS = 24, 14
_SEED = 20171009  # of the directions
_AT_ONCE = 512  # rows that are compared with all later ones together
_PAIRS_AT_ONCE = 1 << 20  # candidates in memory, 100 bytes each
_EDGES = 1 << 22  # pairs that wait to be joined

_HASH_BANDS = 10  # of the hash of ingest
_OTHER = 32  # bits of the hash of ingest, beyond which no thumbnails are compared
_COMPARED = 1 << 12  # pairs of thumbnails in memory, 6 KB each

_FLIPS = np.concatenate([[0], 1 << np.arange(16)]).astype(np.uint16)  # nothing, or one bit of a band
_SAME = _FLIPS[:1]

_Rows = NDArray[np.int64]
_Keys = NDArray[np.uint16] | NDArray[np.uint32]


class Looks(NamedTuple):
    """The looks of n images, in their order."""

    pdq: NDArray[np.uint8]  # (n, 32)
    quality: NDArray[np.int64]  # (n,), 0..100; 0 also of an image that could not be decoded
    vectors: NDArray[np.float32] | None  # (n, d), each of length 1; None: not asked for
    thumbnails: NDArray[np.int8] | None = None  # (n, 768), as ``sources.thumbnail.shapes_of``; None: not asked for
    hashes: NDArray[np.uint8] | None = None  # (n, 20), the perceptual hashes of ingest, where thumbnails are compared


class Pairs(NamedTuple):
    """Rows ``a < b`` of pictures that look the same."""

    a: _Rows
    b: _Rows


def groups(looks: Looks, limits: NearDuplicateSettings) -> _Rows:
    """For each picture ``(n,)``, the number of its group: the connected components of those that look the same."""
    count = len(looks.quality)
    a, b = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for pairs in _near_pairs(looks, limits, np.zeros(count, bool)):
        a.append(pairs.a)
        b.append(pairs.b)
        if sum(map(len, a)) > _EDGES:  # a tree says the same as all the edges
            labels = _components(a, b, count)
            a, b = [np.arange(count)], [np.unique(labels, return_index=True)[1][labels]]
    return _components(a, b, count)


def _components(a: list[_Rows], b: list[_Rows], count: int) -> _Rows:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.concatenate(a), np.concatenate(b)
    edges = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    labels: _Rows = connected_components(edges, directed=False)[1].astype(np.int64)
    return labels


def stand_ins(looks: Looks, limits: NearDuplicateSettings) -> _Rows:
    """For each picture ``(n,)``, the row of the one that is kept instead of it; -1: it is kept itself.

    A picture is kept unless it looks the same as an earlier one that is kept; the first such one stands for it. So no
    chain of likenesses drops a picture that nothing kept resembles.
    """
    found = np.full(len(looks.quality), -1)
    out = np.zeros(len(found), bool)
    for pairs in _near_pairs(looks, limits, out):
        order = np.lexsort((pairs.b, pairs.a))
        rows, starts = np.unique(pairs.a[order], return_index=True)
        parts = np.split(pairs.b[order], starts[1:]) if len(rows) else ()  # of none, there would be one empty part
        for row, later in zip(rows, parts, strict=True):
            if not out[row]:
                later = later[~out[later]]
                found[later], out[later] = row, True
    return found


def _near_pairs(looks: Looks, limits: NearDuplicateSettings, out: NDArray[np.bool_]) -> Iterator[Pairs]:
    """Pairs that look the same, by blocks of ``a`` in ascending order; some come twice.

    out: rows ``(n,)`` that are not compared any more; the caller may add some between blocks.
    """
    clear = np.flatnonzero(looks.quality >= LEAST_QUALITY)
    words = np.ascontiguousarray(looks.pdq[clear]).view(np.uint64)
    bands = _Bands(words.view(np.uint16), _FLIPS)
    vectors = looks.vectors[clear] if looks.vectors is not None and limits.pdq_bits_alike else None
    signs = None if vectors is None else _Bands(_signs(vectors), _SAME)
    thumbnails = None
    if limits.thumbnail_correlation is not None and looks.thumbnails is not None and looks.hashes is not None:
        thumbnails = _Thumbnails(looks.thumbnails, looks.hashes, limits.thumbnail_correlation)
    coarse = None if thumbnails is None else _Bands(_interleaved(thumbnails.hashes), _SAME)
    for start in range(0, len(looks.quality), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(looks.quality))
        found = []
        rows = np.arange(*np.searchsorted(clear, [start, stop]))
        rows = rows[~out[clear[rows]]]
        for a, b in bands.later(rows):
            near = _differing(words, a, b) <= limits.pdq_bits
            found.append((clear[a[near]], clear[b[near]]))
            if thumbnails is not None:
                found.append(thumbnails.alike(clear[a[~near]], clear[b[~near]]))
        for a, b in signs.later(rows) if signs is not None else ():
            if thumbnails is not None:
                found.append(thumbnails.alike(clear[a], clear[b]))
            alike = _differing(words, a, b) <= limits.pdq_bits_alike
            a, b = a[alike], b[alike]
            near = np.einsum("ij,ij->i", vectors[a], vectors[b]) >= limits.image_cosine  # type: ignore[index]
            found.append((clear[a[near]], clear[b[near]]))
        rows = np.arange(start, stop)
        for a, b in coarse.later(rows[~out[rows]]) if coarse is not None else ():
            found.append(thumbnails.alike(a, b))  # type: ignore[union-attr]
        if found:
            yield Pairs(*(np.concatenate(side) for side in zip(*found, strict=True)))


class _Thumbnails:
    """Thumbnails ``(n, 768)``, compared where the hashes of ingest do not tell the pictures apart."""

    def __init__(self, shapes: NDArray[np.int8], hashes: NDArray[np.uint8], least: float) -> None:
        self.hashes = hashes
        self._shapes, self._least = shapes, least
        self._squares = np.einsum("ij,ij->i", shapes, shapes, dtype=np.int64, casting="unsafe")

    def alike(self, a: _Rows, b: _Rows) -> tuple[_Rows, _Rows]:
        """Those of pairs whose thumbnails correlate by as much as they must."""
        same = np.bitwise_count(self.hashes[a] ^ self.hashes[b]).sum(axis=1) <= _OTHER
        a, b = a[same], b[same]
        near = np.zeros(len(a), bool)
        for start in range(0, len(a), _COMPARED):
            one, other = a[start : start + _COMPARED], b[start : start + _COMPARED]
            products = np.einsum(
                "ij,ij->i", self._shapes[one].astype(np.float32), self._shapes[other].astype(np.float32)
            )
            lengths = np.sqrt((self._squares[one] * self._squares[other]).astype(np.float64))
            near[start : start + _COMPARED] = (products >= self._least * lengths) & (lengths > 0)
        return a[near], b[near]


def _interleaved(hashes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Ten bands ``(n, 10)`` of hashes ``(n, 20)``, each of every tenth bit.

    Neighbouring bits agree too often, such as in the white margin of a page.
    """
    found = np.empty((len(hashes), _HASH_BANDS), np.uint32)
    for start in range(0, len(hashes), _AT_ONCE):
        unpacked = np.unpackbits(hashes[start : start + _AT_ONCE], axis=1)
        for band in range(_HASH_BANDS):
            part = unpacked[:, band::_HASH_BANDS]
            found[start : start + _AT_ONCE, band] = part @ (1 << np.arange(part.shape[1], dtype=np.uint32))
    return found


def _differing(words: NDArray[np.uint64], a: _Rows, b: _Rows) -> _Rows:
    found: _Rows = np.bitwise_count(words[a] ^ words[b]).sum(axis=1, dtype=np.int64)
    return found


def _signs(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bands ``(n, 24)`` of the signs of vectors ``(n, d)`` along fixed directions."""
    directions = np.random.default_rng(_SEED).standard_normal((vectors.shape[1], _SIGN_BANDS * _SIGN_BITS))
    found = np.empty((len(vectors), _SIGN_BANDS), np.uint16)
    for start in range(0, len(vectors), _AT_ONCE):
        above = vectors[start : start + _AT_ONCE].astype(np.float64) @ directions > 0
        found[start : start + _AT_ONCE] = above.reshape(-1, _SIGN_BANDS, _SIGN_BITS) @ (1 << np.arange(_SIGN_BITS))
    return found


class _Bands:
    """Rows by each band of their hashes ``(n, bands)``. flips: what a band may differ in, bits to be exchanged."""

    def __init__(self, hashes: _Keys, flips: NDArray[np.uint16]) -> None:
        self._hashes, self._flips = hashes, flips
        rows = np.arange(len(hashes), dtype=np.uint64)
        # A band and a row in one number, so that the rows after a given one with a given band lie side by side.
        self._sorted = [np.sort(hashes[:, band].astype(np.uint64) << np.uint64(32) | rows) for band in _all(hashes)]

    def later(self, rows: _Rows) -> Iterator[tuple[_Rows, _Rows]]:
        """Candidates ``a`` of these rows and ``b`` of those after them, which agree in a band but for a flip."""
        for band in _all(self._hashes):
            wanted = (self._hashes[rows, band, None] ^ self._flips).astype(np.uint64) << np.uint64(32)
            places = self._sorted[band]
            first = np.searchsorted(places, wanted | (rows[:, None] + 1).astype(np.uint64)).reshape(-1)
            sizes = np.searchsorted(places, wanted + np.uint64(1 << 32)).reshape(-1) - first
            asking = np.repeat(rows, len(self._flips))
            ends = np.cumsum(sizes)
            start = 0
            while start < len(sizes):
                before = ends[start - 1] if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, "right")))
                part = sizes[start:stop]
                if total := int(part.sum()):
                    within = np.arange(total) - np.repeat(np.cumsum(part) - part, part)
                    found = places[np.repeat(first[start:stop], part) + within] & np.uint64(0xFFFFFFFF)
                    yield np.repeat(asking[start:stop], part), found.astype(np.int64)
                start = stop


def _all(hashes: _Keys) -> range:
    return range(hashes.shape[1])
