"""The image shard of every image of a store, in 20 bytes an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from taskgalaxy_ops.records import ImageId

_DIGEST = "S16"  # the last 128 bits of an image's id: enough that no two share them
_HEX = 32  # hex digits of these bits


class ImageIndex:
    """Maps image ids to image shards: the ids' last 16 bytes, sorted, each with its shard's number."""

    def __init__(self) -> None:
        self._digests = np.empty(0, _DIGEST)
        self._numbers = np.empty(0, np.uint32)
        self.shards: list[str] = []

    def extend(self, shards: Iterable[tuple[str, Sequence[ImageId]]]) -> None:
        """Add image shards with the ids of their images. None of these images may be in the index yet."""
        digests, numbers = [self._digests], [self._numbers]
        for shard, images in shards:
            digests.append(_digests(images))
            numbers.append(np.full(len(images), len(self.shards), np.uint32))
            self.shards.append(shard)
        if len(digests) > 1:
            joined = np.concatenate(digests)
            order = np.argsort(joined, kind="stable")
            self._digests, self._numbers = joined[order], np.concatenate(numbers)[order]

    def get(self, image: ImageId) -> str | None:
        """The id of the image's shard; None if it has none."""
        digest = bytes.fromhex(image[-_HEX:]).rstrip(b"\0")  # NumPy drops trailing zero bytes of such a value, too
        at = int(np.searchsorted(self._digests, digest))
        if at < len(self._digests) and self._digests[at] == digest:
            return self.shards[int(self._numbers[at])]
        return None

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and self.get(image) is not None

    def __len__(self) -> int:
        return len(self._digests)


def _digests(images: Sequence[ImageId]) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
    return np.frombuffer(bytes.fromhex("".join(image[-_HEX:] for image in images)), _DIGEST)
