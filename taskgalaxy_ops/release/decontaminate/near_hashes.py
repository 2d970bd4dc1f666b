"""Hashes of 256 bits, and which of them are near each other without a look at all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.sources.pdq import BITS

_BANDS = 16  # of 16 bits each: of two hashes that differ in 31 bits, one band differs in one bit at most

Words = NDArray[np.uint64]


def words_of(prints: Sequence[Sequence[str]]) -> Words:
    """Hashes in hex as ``(pictures, prints, 4)``; all pictures have as many."""
    if not prints:
        return np.empty((0, 1, 4), np.uint64)
    raw = np.frombuffer(bytes.fromhex("".join("".join(each) for each in prints)), np.uint8)
    return raw.reshape(len(prints), len(prints[0]), 32).view(np.uint64)


def differing(a: Words, b: Words) -> NDArray[np.int64]:
    """The bits in which hashes ``(…, 4)`` differ, ``(…)``."""
    counts = np.bitwise_count(a ^ b).astype(np.int64)
    found: NDArray[np.int64] = counts[..., 0] + counts[..., 1] + counts[..., 2] + counts[..., 3]  # a sum is slower
    return found


class Least(NamedTuple):
    """Of pairs of hashes, the fewest bits in which one of several differs ``(n,)``, and which of them."""

    least: NDArray[np.int64]
    which: NDArray[np.int64]

    @classmethod
    def of(cls, number: int) -> Least:
        return cls(np.full(number, BITS, np.int64), np.zeros(number, np.int64))

    def take(self, pairs: slice, bits: NDArray[np.int64]) -> None:
        """Put down the bits of some pairs, ``(p, hashes)``."""
        if bits.shape[1]:
            self.which[pairs] = bits.argmin(axis=1)
            self.least[pairs] = bits.min(axis=1)


class Bands:
    """Hashes ``(m, 4)`` by each band of their bits."""

    def __init__(self, words: Words) -> None:
        self._words = words
        bands = np.ascontiguousarray(words).view(np.uint16)  # (m, 16)
        self._order = [np.argsort(bands[:, band], kind="stable") for band in range(_BANDS)]
        self._keys = [bands[order, band] for band, order in enumerate(self._order)]
        self._flips = np.concatenate([[0], 1 << np.arange(16)]).astype(np.uint16)

    def near(self, words: Words, bits: int) -> Iterator[tuple[int, int, int]]:
        """(number of the hash, number of the kept one, bits in which they differ), where these are ``bits`` or fewer.

        Exact up to 31 bits; beyond, some may be missed.
        """
        bands = np.ascontiguousarray(words).view(np.uint16)
        seen: set[tuple[int, int]] = set()
        for band in range(_BANDS):
            wanted = (bands[:, band, None] ^ self._flips).reshape(-1)
            first = np.searchsorted(self._keys[band], wanted, "left")
            sizes = np.searchsorted(self._keys[band], wanted, "right") - first
            asking = np.repeat(np.arange(len(wanted)) // len(self._flips), sizes)
            within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            kept = self._order[band][np.repeat(first, sizes) + within]
            apart = differing(self._words[kept], words[asking])
            for hit in np.flatnonzero(apart <= bits):
                pair = int(asking[hit]), int(kept[hit])
                if pair not in seen:
                    seen.add(pair)
                    yield (*pair, int(apart[hit]))
