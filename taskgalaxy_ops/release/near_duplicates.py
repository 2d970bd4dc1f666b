"""Images that look the same: exact search for perceptual hashes within a few bits of one another.

Pigeonhole: cut the hash's bits into ``bits + 1`` bands. Two hashes that differ in at most ``bits`` places agree in one
whole band at least, so only images that share a band are compared (Manku, Jain and Das Sarma, 2007, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.records import ImageId


def near_duplicates(hashes: Mapping[ImageId, str], bits: int) -> dict[ImageId, ImageId]:
    """The images to leave out, each with the one that stands for it.

    hashes: perceptual hashes in hex, all of one length. In order of image id, an image stands unless one that stands
    already lies within ``bits`` (Hamming distance); the smallest such id stands for it. So no two that stand are near
    each other, and nothing is dropped along a chain of small steps. ``bits`` below 0: none.
    """
    if bits < 0 or len(hashes) < 2:
        return {}
    ids = sorted(hashes)
    packed = np.frombuffer(b"".join(bytes.fromhex(hashes[image]) for image in ids), np.uint8).reshape(len(ids), -1)
    unpacked = np.unpackbits(packed, axis=1)
    words = np.ascontiguousarray(np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))).view(np.uint64)
    # Every (bits + 1)th bit makes a band: neighbouring bits agree too often, say in the white margin of a page.
    bands = [_Band(np.packbits(unpacked[:, start :: bits + 1], axis=1)) for start in range(bits + 1)]
    stand_in = np.full(len(ids), -1)
    for row in range(len(ids)):
        if stand_in[row] >= 0:
            continue
        for band in bands:
            later = band.later(row)
            if later.size and (later := later[stand_in[later] < 0]).size:
                distance = np.bitwise_count(words[later] ^ words[row]).sum(axis=1)
                stand_in[later[distance <= bits]] = row
    return {ids[row]: ids[stand_in[row]] for row in np.flatnonzero(stand_in >= 0).tolist()}


class _Band:
    """Rows that agree in one band, in order."""

    def __init__(self, parts: NDArray[np.uint8]) -> None:
        key = np.unique(parts, axis=0, return_inverse=True)[1].reshape(-1)
        self._order = np.argsort(key, kind="stable")
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(key))
        self._end = np.cumsum(np.bincount(key))[key]

    def later(self, row: int) -> NDArray[np.intp]:
        """The rows behind this one that share its band."""
        return self._order[self._place[row] + 1 : self._end[row]]
