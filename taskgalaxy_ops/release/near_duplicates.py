"""Images that look the same: exact search for perceptual hashes within a few bits of one another.

Pigeonhole: cut the hash's bits into ``bits + 1`` bands. Two hashes that differ in at most ``bits`` places agree in one
whole band at least, so only images that share a band are compared (Manku, Jain and Das Sarma, 2007, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 14  # hashes whose bits are spread out, a byte each


def near_duplicates(hashes: NDArray[np.uint8], bits: int) -> NDArray[np.int64]:
    """For each image the row of the one that stands for it; -1 for an image that stands itself.

    hashes: perceptual hashes ``(n, bytes)``, in order of image id. In this order, an image stands unless one that
    stands already lies within ``bits`` (Hamming distance, 0 or more); the first such row stands for it. So no two that
    stand are near each other, and nothing is dropped along a chain of small steps.

    In memory is, of each image, the hash twice and 12 bytes a band: the one thing of a release that grows with the
    images, and in arrays alone. Equal hashes (``bits`` 0) are found by sorting, without this.
    """
    words = np.ascontiguousarray(np.pad(hashes, ((0, 0), (0, -hashes.shape[1] % 8)))).view(np.uint64)
    # Every (bits + 1)th bit makes a band: neighbouring bits agree too often, say in the white margin of a page.
    bands = [_Band(_every(hashes, start, bits + 1)) for start in range(bits + 1)]
    stand_in = np.full(len(hashes), -1)
    for row in range(len(hashes)):
        if stand_in[row] >= 0:
            continue
        for band in bands:
            later = band.later(row)
            if later.size and (later := later[stand_in[later] < 0]).size:
                distance = np.bitwise_count(words[later] ^ words[row]).sum(axis=1)
                stand_in[later[distance <= bits]] = row
    return stand_in


def _every(hashes: NDArray[np.uint8], start: int, step: int) -> NDArray[np.uint8]:
    """Every ``step``th bit of the hashes from ``start``, packed ``(n, bytes)``."""
    parts = [hashes[at : at + _AT_ONCE] for at in range(0, len(hashes), _AT_ONCE)] or [hashes]
    return np.concatenate([np.packbits(np.unpackbits(part, axis=1)[:, start::step], axis=1) for part in parts])


class _Band:
    """Rows that agree in one band, in order."""

    def __init__(self, parts: NDArray[np.uint8]) -> None:
        key = np.unique(parts, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.argsort(key, kind="stable").astype(np.int32)
        self._order = order
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(key), dtype=np.int32)
        self._end = np.cumsum(np.bincount(key)).astype(np.int32)[key]

    def later(self, row: int) -> NDArray[np.int32]:
        """The rows behind this one that share its band."""
        return self._order[self._place[row] + 1 : self._end[row]]
