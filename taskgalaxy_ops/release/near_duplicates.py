"""Near-duplicate images: an exact search for perceptual hashes that differ in a few bits only.

The hash's bits are divided into ``bits + 1`` bands. Two hashes that differ in at most ``bits`` bits agree in at least
one whole band (pigeonhole principle), so that only images that share a band are compared (Manku, Jain and Das Sarma,
2007, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 14  # hashes that are unpacked at once, to a byte a bit


def near_duplicates(hashes: NDArray[np.uint8], bits: int) -> NDArray[np.int64]:
    """For each image ``(n,)``, the row of the image that is kept instead of it; -1: the image itself is kept.

    hashes: perceptual hashes ``(n, bytes)``, in order of image id. bits: the largest Hamming distance of duplicates. In
    this order, an image is kept unless one that is kept already lies within ``bits``; the first such one replaces it.
    No two kept images are thus near each other, and each dropped image is near the one that replaces it.

    Memory: each hash twice and 12 bytes a band for each image. This is the only memory of a release that grows with the
    images. Equal hashes (``bits`` 0) are found by sorting in SQLite, without this function.
    """
    words = np.ascontiguousarray(np.pad(hashes, ((0, 0), (0, -hashes.shape[1] % 8)))).view(np.uint64)
    # A band is every (bits + 1)th bit, because neighbouring bits agree too often, e.g. in the white margin of a page.
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
    """The rows grouped by their bits in one band, in order within each group. parts: the band's bits, (n, bytes)."""

    def __init__(self, parts: NDArray[np.uint8]) -> None:
        key = np.unique(parts, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.argsort(key, kind="stable").astype(np.int32)
        self._order = order
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(key), dtype=np.int32)
        self._end = np.cumsum(np.bincount(key)).astype(np.int32)[key]

    def later(self, row: int) -> NDArray[np.int32]:
        """The rows after this one that have the same bits in this band."""
        return self._order[self._place[row] + 1 : self._end[row]]
