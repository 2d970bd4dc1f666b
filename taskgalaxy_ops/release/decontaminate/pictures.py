"""The search for a benchmark's pictures among a release's images: by file, by PDQ, and by embedding with PDQ.

PDQ (Davis and Rosen, 2019) finds what was encoded, scaled or recoloured again; a crop moves its bits, so that an item
has the PDQ of its crops, too. Embeddings find candidates; by themselves they prove nothing, since two charts or two
pages of text lie as near each other as two copies of one. No pair of hashes is compared unless a band of their bits
agrees but for one bit, or the embeddings are near: never all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.hashing import fingerprint
from taskgalaxy_ops.records import ImageId
from taskgalaxy_ops.release.decontaminate.benchmark import BenchmarkPicture, ImagePrints

# Crops of a picture whose PDQ an item has: the part of each side that is left, and where it begins, at every second
# point of a grid of 13 by 13, as on a chessboard. PDQ changes by a dozen bits where a crop is off by a hundredth.
CROPS = tuple((0.9, x / 120, y / 120) for x in range(13) for y in range(13) if (x + y) % 2 == 0)
LEAST_QUALITY = 50  # of PDQ; below, there are so few edges that pictures with nothing in common have near hashes
# Half of the bits of a hash are set, but of stripes and of symmetric pictures: these hashes say less.
_LEAST_SET = 120

SAME_FILE = "the same file"
PDQ, MIRRORED, CROPPED = "PDQ", "PDQ of its mirror image", "PDQ of a crop"
ALIKE = "embedding and PDQ"

_WHOLE = 2  # the first prints: of the whole picture and of its mirror image
_BANDS = 16  # of 16 bits each: of two hashes that differ in 31 bits, one band differs in one bit at most
_NEAR = 0.6  # cosine from which on an item is a candidate
_CANDIDATES = 128  # of an image, the nearest; a copy of a page has many pages between itself and its item
# The prints that decide whether all crops of a candidate are looked at: the whole, its mirror image, and five crops. Of
# 270 leaked crops each was within 96 bits of one of them (the median 52), and of unrelated pictures one in a hundred.
_ROUGHLY = (0, 1, *(2 + CROPS.index((0.9, x / 120, y / 120)) for x, y in ((2, 2), (2, 10), (6, 6), (10, 2), (10, 10))))
_ROUGH_BITS = 100
_AT_ONCE = 512  # images that are compared with all items at once

Words = NDArray[np.uint64]


def picture_hash(file: str) -> str:
    """The name of a picture, by its file's SHA-256. It is hashed again, so that no image's id lies in the store."""
    return fingerprint("benchmark.picture", file)[:32]


@dataclass(frozen=True, slots=True)
class PictureThresholds:
    """From which on two pictures are one."""

    bits: int  # in which PDQ differs at most
    bits_cropped: int  # in which it differs at most from that of a crop
    cosine: float  # of the embeddings at least, and then
    bits_alike: int  # in which PDQ differs at most; 0: not compared


class FoundPicture(NamedTuple):
    """An image that is one of a benchmark's."""

    image: int  # number of the release's image
    item: str
    kind: str
    score: float  # 1: the same


class PictureIndex:
    """The pictures of one benchmark, ready to be compared.

    vectors: by ``picture``, embeddings (d,) of length 1; {}: they are not compared by these.
    """

    def __init__(self, rows: Sequence[BenchmarkPicture], vectors: Mapping[str, NDArray[np.float32]]) -> None:
        first: dict[str, BenchmarkPicture] = {}
        for row in sorted(rows, key=lambda row: (row.item, row.picture)):
            first.setdefault(row.picture, row)  # of several items with one picture, the first by name
        self._rows = list(first.values())
        self._by_file = {row.picture: number for number, row in enumerate(self._rows)}
        clear = [number for number, row in enumerate(self._rows) if row.quality >= LEAST_QUALITY and row.prints]
        self._clear = np.array(clear, int)
        self._prints = _words([self._rows[number].prints for number in clear])
        embedded = bool(clear) and all(self._rows[number].picture in vectors for number in clear)
        self._vectors = np.stack([vectors[self._rows[number].picture] for number in clear]) if embedded else None
        # Where embeddings name candidates for the crops, only the whole pictures are looked for by their bits alone.
        looked_for = self._prints[:, :_WHOLE] if embedded else self._prints
        self._rough = np.ascontiguousarray(self._prints[:, [p for p in _ROUGHLY if p < self._prints.shape[1]]])
        self._bands = _Bands(looked_for.reshape(-1, 4))
        self._each = looked_for.shape[1] if clear else 1

    def search(self, images: ImagePrints, limits: PictureThresholds) -> Iterator[FoundPicture]:
        """For each image that is one of the benchmark's, the surest item, in order of image."""
        best: dict[int, FoundPicture] = {}
        for number, picture in enumerate(images.pictures):
            if (row := self._by_file.get(picture)) is not None:
                best[number] = FoundPicture(number, self._rows[row].item, SAME_FILE, 1.0)
        telling = np.bitwise_count(images.pdq).sum(axis=1, dtype=np.int64) >= _LEAST_SET
        clear = np.flatnonzero((images.quality >= LEAST_QUALITY) & telling)
        if len(self._clear) and len(clear):
            words = np.ascontiguousarray(images.pdq[clear]).view(np.uint64)
            vectors = None if images.vectors is None or self._vectors is None else images.vectors[clear]
            for start in range(0, len(clear), _AT_ONCE):
                stop = start + _AT_ONCE
                part = None if vectors is None else vectors[start:stop]
                for at, found in self._compared(words[start:stop], part, limits):
                    number = int(clear[start + at])
                    if number not in best or _order(found) < _order(best[number]):
                        best[number] = found._replace(image=number)
        yield from (best[number] for number in sorted(best))

    def _compared(
        self, words: Words, vectors: NDArray[np.float32] | None, limits: PictureThresholds
    ) -> Iterator[tuple[int, FoundPicture]]:
        """Findings among some images ``(n, 4)``, by the number of the image."""
        for at, place, bits in self._bands.near(words, max(limits.bits, limits.bits_cropped)):
            which = place % self._each
            if bits <= (limits.bits if which < _WHOLE else limits.bits_cropped):
                yield at, self._found(place // self._each, which, bits)
        if vectors is None or self._vectors is None:
            return
        images, places, cosines = _nearest(vectors, self._vectors)
        rough = _differing(self._rough[places], words[images, None]).min(axis=1) <= _ROUGH_BITS
        images, places, cosines = images[rough], places[rough], cosines[rough]
        differing = _differing(self._prints[places], words[images, None])
        bounds = np.where(np.arange(differing.shape[1]) < _WHOLE, limits.bits, limits.bits_cropped)
        closest = (differing - bounds).argmin(axis=1)
        least = differing[np.arange(len(closest)), closest]
        near = least <= bounds[closest]
        alike = (cosines >= limits.cosine) & (least <= limits.bits_alike) & (limits.bits_alike > 0)
        for hit in np.flatnonzero(near | alike):
            row = int(places[hit])
            if near[hit]:
                yield int(images[hit]), self._found(row, int(closest[hit]), int(least[hit]))
            else:
                item = self._rows[self._clear[row]].item
                yield int(images[hit]), FoundPicture(0, item, ALIKE, round(min(1.0, float(cosines[hit])), 3))

    def _found(self, place: int, which: int, bits: int) -> FoundPicture:
        kind = (PDQ, MIRRORED)[which] if which < _WHOLE else CROPPED
        return FoundPicture(0, self._rows[self._clear[place]].item, kind, round(1 - bits / 256, 3))


_KINDS = (SAME_FILE, PDQ, MIRRORED, CROPPED, ALIKE)


def _order(found: FoundPicture) -> tuple[int, float, str]:
    """The surest finding first."""
    return _KINDS.index(found.kind), -found.score, found.item


def _words(prints: Sequence[Sequence[str]]) -> Words:
    """Hashes in hex as ``(pictures, prints, 4)``; all pictures have as many."""
    if not prints:
        return np.empty((0, 1, 4), np.uint64)
    raw = np.frombuffer(bytes.fromhex("".join("".join(each) for each in prints)), np.uint8)
    return raw.reshape(len(prints), len(prints[0]), 32).view(np.uint64)


def _differing(a: Words, b: Words) -> NDArray[np.int64]:
    """The bits in which hashes ``(…, 4)`` differ, ``(…)``."""
    counts = np.bitwise_count(a ^ b).astype(np.int64)
    found: NDArray[np.int64] = counts[..., 0] + counts[..., 1] + counts[..., 2] + counts[..., 3]  # a sum is slower
    return found


def _nearest(
    images: NDArray[np.float32], items: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of an image and a near item, with their cosines; of each image the nearest few."""
    cosines = images @ items.T
    bounds = np.full(len(images), _NEAR, np.float32)
    if cosines.shape[1] > _CANDIDATES:
        # As many groups as candidates have a greatest member of at least this, so that no nearer item lies below it.
        first = np.arange(0, cosines.shape[1], max(1, cosines.shape[1] // (32 * _CANDIDATES)))
        greatest = np.maximum.reduceat(cosines, first, axis=1)
        bounds = np.maximum(bounds, np.partition(greatest, -_CANDIDATES, axis=1)[:, -_CANDIDATES])
    at, places = np.nonzero(cosines >= bounds[:, None])
    return at, places, cosines[at, places]


class _Bands:
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
            differing = _differing(self._words[kept], words[asking])
            for hit in np.flatnonzero(differing <= bits):
                pair = int(asking[hit]), int(kept[hit])
                if pair not in seen:
                    seen.add(pair)
                    yield (*pair, int(differing[hit]))


def by_file_alone(images: Sequence[ImageId]) -> ImagePrints:
    """The prints of images of which nothing but their files' hashes is known, which are their ids."""
    count = len(images)
    return ImagePrints(
        images=images,
        pictures=[picture_hash(image) for image in images],
        pdq=np.zeros((count, 32), np.uint8),
        quality=np.zeros(count, np.int64),
        vectors=None,
    )
