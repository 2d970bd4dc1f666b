"""The search for a benchmark's pictures among a release's images: by file, by PDQ, and by the edges in thumbnails.

PDQ (Davis and Rosen, 2019) finds what was encoded, scaled or recoloured again; a crop moves its bits, so that an item
has the PDQ of its crops, too. Embeddings find candidates; by themselves they prove nothing, and near hashes prove
little: two charts or two pages of one layout lie as near each other as two copies of one. The edges in thumbnails
(``likeness``) decide. No pair of hashes is compared unless a band of their bits agrees but for one bit, or the
embeddings are near: never all pairs.
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
from taskgalaxy_ops.release.decontaminate.likeness import (
    CROP_LAST,
    CROP_STEPS,
    Bytes,
    ItemThumbnails,
    Scores,
    concentration,
)
from taskgalaxy_ops.release.decontaminate.near_hashes import Bands, Least, Words, differing, words_of
from taskgalaxy_ops.settings import DecontaminateSettings
from taskgalaxy_ops.sources.pdq import BITS
from taskgalaxy_ops.sources.thumbnail import BRIGHTNESS_SIDE, SIDE

# Crops of a picture whose PDQ an item has: the part of each side that is left, and where it begins, at every second
# point of a grid of 13 by 13, as on a chessboard. PDQ changes by a dozen bits where a crop is off by a hundredth.
CROPS = tuple(
    (0.9, x / CROP_STEPS, y / CROP_STEPS)
    for x in range(CROP_LAST + 1)
    for y in range(CROP_LAST + 1)
    if (x + y) % 2 == 0
)
LEAST_QUALITY = 50  # of PDQ; below, there are so few edges that pictures with nothing in common have near hashes
# Half of the bits of a hash are set, but of stripes and of symmetric pictures: these hashes say less.
_LEAST_SET = 120

SAME_FILE = "the same file"
PDQ, MIRRORED, CROPPED = "PDQ", "PDQ of its mirror image", "PDQ of a crop"
ALIKE = "thumbnail"
COPY = "SSCD"


class _Far(NamedTuple):
    """Beyond the settings' bits, pictures are still one up to these, where their edges correlate as much as this."""

    bits: int
    correlation: float


class _Looks(NamedTuple):
    """Whatever their hashes are, simple figures are one whose edges and colours correlate as much as this."""

    edges: float
    colours: float


_WHOLE = 2  # the first prints: of the whole picture and of its mirror image
_NEAR = 0.35  # cosine from which on an item is a candidate
_CANDIDATES = 192  # of an image, the nearest; a copy of a page has many pages between itself and its item
# The prints that decide whether all crops of a candidate are looked at: the whole, its mirror image, and five crops. Of
# 270 leaked crops each was within 96 bits of one of them (the median 52), and of unrelated pictures one in a hundred.
_ROUGHLY = (
    0,
    1,
    *(2 + CROPS.index((0.9, x / CROP_STEPS, y / CROP_STEPS)) for x, y in ((2, 2), (2, 10), (6, 6), (10, 2), (10, 10))),
)
_ROUGH_BITS = 100
_ROUGHLY_ALIKE = 0.7  # correlation of 8 by 8 pixels, where a hash says nothing
_MOST = 4 * _CANDIDATES
_FAR, _FAR_CROP = _Far(48, 0.965), _Far(56, 0.94)
# The part of the edges that an eighth of a picture has: of a figure on an empty ground, and of a sparse drawing. Many
# of these have nearly the same crops.
_SIMPLE, _SPARSE = 0.8, 0.6
_CROPPED_COLOURS = (0.84, 0.945)  # correlation of colours, of a crop, and of one of a sparse drawing
_SIMPLE_CROPS = ((24, 0.95, 0.98), (40, 0.985, 0.998))  # of a simple figure's: bits, correlation of edges, of colours
_COLOURED = _Looks(0.78, 0.998)  # of simple figures, which lose their edges where they become small, and no colours
_PATCHED = 0.98  # correlation of edges without the patches that text may cover, with a near PDQ
# Bits of items without thumbnails, which were added by an earlier version: of the whole and of crops.
_BARE, _BARE_CROPPED = 40, 48
_AT_ONCE = 512  # images that are compared with all items at once
_ROUNDED = 1e-4  # by which a cosine in float32 may be off
_PAIRS = 1 << 14  # whose hashes are in memory, 3 KB each


def picture_hash(file: str) -> str:
    """The name of a picture, by its file's SHA-256. It is hashed again, so that no image's id lies in the store."""
    return fingerprint("benchmark.picture", file)[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureThresholds:
    """From which on two pictures are one."""

    bits: int  # in which PDQ differs at most, and then
    correlation: float  # of the edges of their thumbnails at least
    correlation_alone: float  # whatever PDQ says
    bits_cropped: int  # in which PDQ differs at most from that of a crop, and then
    correlation_cropped: float  # of the edges at least
    copies: float = 1.0  # cosine of SSCD's descriptors at least, where they are compared

    @classmethod
    def of(cls, settings: DecontaminateSettings) -> PictureThresholds:
        """Those that the settings choose."""
        return cls(
            bits=settings.pdq_bits,
            correlation=settings.correlation,
            correlation_alone=settings.correlation_alone,
            bits_cropped=settings.pdq_bits_cropped,
            correlation_cropped=settings.correlation_cropped,
            copies=settings.sscd_cosine,
        )


class FoundPicture(NamedTuple):
    """An image that is one of a benchmark's."""

    image: int  # number of the release's image
    item: str
    kind: str
    score: float  # 1: the same


class PictureIndex:
    """The pictures of one benchmark, ready to be compared.

    vectors: by ``picture``, embeddings (d,) of length 1; {}: they are not compared by these. copies: SSCD's descriptors
    in the same way, which are compared in place of the embeddings; {}: they are not.
    """

    def __init__(
        self,
        rows: Sequence[BenchmarkPicture],
        vectors: Mapping[str, NDArray[np.float32]],
        copies: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        first: dict[str, BenchmarkPicture] = {}
        for row in sorted(rows, key=lambda row: (row.item, row.picture)):
            first.setdefault(row.picture, row)  # of several items with one picture, the first by name
        self._rows = list(first.values())
        self._by_file = {row.picture: number for number, row in enumerate(self._rows)}
        printed = [number for number, row in enumerate(self._rows) if row.prints]
        self._printed = np.array(printed, int)
        self._thumbnails = ItemThumbnails([self._rows[number] for number in printed])
        self._clear = np.array([self._rows[number].quality >= LEAST_QUALITY for number in printed], bool)
        self._prints = words_of([self._rows[number].prints for number in printed])
        self._described = bool(printed and copies) and all(self._rows[n].picture in (copies or {}) for n in printed)
        vectors = copies if self._described and copies else vectors
        embedded = bool(printed) and all(self._rows[number].picture in vectors for number in printed)
        self._vectors = np.stack([vectors[self._rows[number].picture] for number in printed]) if embedded else None
        self._rough = np.ascontiguousarray(self._prints[:, [p for p in _ROUGHLY if p < self._prints.shape[1]]])
        # Where embeddings name candidates for the crops, only the whole pictures are looked for by their bits alone.
        looked_for = self._prints[self._clear, : _WHOLE if embedded else None]
        self._of_band = np.repeat(np.flatnonzero(self._clear), looked_for.shape[1])  # the place of each of its hashes
        self._bands = Bands(looked_for.reshape(-1, 4))

    def search(self, images: ImagePrints, limits: PictureThresholds) -> Iterator[FoundPicture]:
        """For each image that is one of the benchmark's, the surest item, in order of image."""
        best: dict[int, FoundPicture] = {}
        for number, picture in enumerate(images.pictures):
            if (row := self._by_file.get(picture)) is not None:
                best[number] = FoundPicture(number, self._rows[row].item, SAME_FILE, 1.0)
        for start in range(0, len(images.pictures) if len(self._printed) else 0, _AT_ONCE):
            for found in self._compared(images, slice(start, start + _AT_ONCE), limits):
                known = best.get(found.image)
                if known is None or _order(found) < _order(known):
                    best[found.image] = found
        yield from (best[number] for number in sorted(best))

    def _compared(self, images: ImagePrints, part: slice, limits: PictureThresholds) -> Iterator[FoundPicture]:
        """Findings among some images."""
        words = np.ascontiguousarray(images.pdq[part]).view(np.uint64)
        telling = np.bitwise_count(words).sum(axis=1, dtype=np.int64) >= _LEAST_SET
        clear = (images.quality[part] >= LEAST_QUALITY) & telling
        compared = images.copies if self._described else images.vectors
        vectors = None if compared is None else compared[part]
        at, places = self._candidates(words, clear, images.brightness[part], vectors, limits)
        whole, crop = self._bits(words, at, places)
        seen, sure = self._thumbnails.known[places], clear[at] & self._clear[places]
        likeness = self._thumbnails.compared(places, at, images.brightness[part])
        near = _within(whole.least, likeness.whole, limits.bits, limits.correlation, _FAR)
        near |= (whole.least <= _FAR.bits) & (likeness.patched >= max(_PATCHED, limits.correlation))
        alone = likeness.whole >= limits.correlation_alone
        rest = np.flatnonzero(seen & ~alone & (likeness.whole >= _COLOURED.edges))
        rest = rest[self._thumbnails.coloured(places[rest], images.colours[part][at[rest]]) >= _COLOURED.colours]
        alone[rest] = concentration(images.brightness[part][at[rest]]) > _SIMPLE
        same = np.where(seen, near | alone, sure & (whole.least <= _BARE))
        cropped = ~same & np.where(
            seen,
            crop.least <= max(limits.bits_cropped, _FAR_CROP.bits),
            sure & (crop.least <= _BARE_CROPPED),
        )
        copies = self._copies(vectors, at, places)
        for pair in np.flatnonzero(same | cropped | (copies >= limits.copies)):
            number, place = part.start + int(at[pair]), int(places[pair])
            found = FoundPicture(number, self._rows[self._printed[place]].item, ALIKE, 1.0)
            looks = images.brightness[number], images.colours[number]
            if copies[pair] >= limits.copies:
                yield found._replace(kind=COPY, score=round(min(1.0, float(copies[pair])), 3))
            if same[pair] and not (seen[pair] and self._thumbnails.other_hues(place, *looks)):
                if (near[pair] and sure[pair]) or not seen[pair]:
                    yield found._replace(kind=(PDQ, MIRRORED)[whole.which[pair]], score=_score(whole.least[pair]))
                else:
                    yield found._replace(score=round(float(likeness.whole[pair]), 3))
            if cropped[pair] and (not seen[pair] or self._is_crop(place, crop, int(pair), looks, limits)):
                yield found._replace(kind=CROPPED, score=_score(crop.least[pair]))

    def _copies(self, vectors: NDArray[np.float32] | None, at: NDArray[np.int64], places: NDArray[np.int64]) -> Scores:
        """The cosines of pairs' descriptors; -1 where there are none."""
        if not self._described or vectors is None or self._vectors is None:
            return np.full(len(at), -1.0)
        found: Scores = np.round(np.einsum("ij,ij->i", vectors[at], self._vectors[places], dtype=np.float64), 6)
        return found

    def _candidates(
        self,
        words: Words,
        clear: NDArray[np.bool_],
        brightness: Bytes,
        vectors: NDArray[np.float32] | None,
        limits: PictureThresholds,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of an image ``(n, 4)`` and a place among the items, each once."""
        asking = np.flatnonzero(clear)
        near = list(self._bands.near(words[asking], max(limits.bits, limits.bits_cropped, _FAR_CROP.bits)))
        hashes, kept = np.array(near, np.int64).reshape(-1, 3)[:, :2].T
        found = [asking[hashes] * len(self._printed) + self._of_band[kept]]
        if vectors is not None and self._vectors is not None:
            least = min(_NEAR, limits.copies - _ROUNDED) if self._described else _NEAR
            at, places, cosines = _nearest(vectors, self._vectors, least)
            rough = differing(self._rough[places], words[at, None]).min(axis=1) <= _ROUGH_BITS
            if self._described:
                rough |= cosines >= limits.copies - _ROUNDED
            # Where a hash says nothing, a rough look at thumbnails decides.
            unsure = np.flatnonzero(~rough & ~(clear[at] & self._clear[places]))
            rough[unsure] = self._thumbnails.roughly(places[unsure], at[unsure], brightness) >= _ROUGHLY_ALIKE
            found.append(at[rough] * len(self._printed) + places[rough])
        pairs = np.unique(np.concatenate(found))
        return pairs // len(self._printed), pairs % len(self._printed)

    def _bits(self, words: Words, at: NDArray[np.int64], places: NDArray[np.int64]) -> tuple[Least, Least]:
        """In how many bits the hashes of pairs differ from those of the whole or its mirror image, and of a crop."""
        whole, crop = Least.of(len(at)), Least.of(len(at))
        for start in range(0, len(at), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            bits = differing(self._prints[places[pairs]], words[at[pairs], None])
            whole.take(pairs, bits[:, :_WHOLE])
            crop.take(pairs, bits[:, _WHOLE:])
        return whole, crop

    def _is_crop(
        self, place: int, crop: Least, pair: int, looks: tuple[Bytes, Bytes], limits: PictureThresholds
    ) -> bool:
        edges, colours = self._thumbnails.cropped(place, CROPS[crop.which[pair]], *looks)
        bits, part = int(crop.least[pair]), float(concentration(looks[0][None])[0])
        if part > _SIMPLE:
            return any(
                bits <= most and edges >= correlated and colours >= coloured
                for most, correlated, coloured in _SIMPLE_CROPS
            )
        near = _within(crop.least[pair], np.array(edges), limits.bits_cropped, limits.correlation_cropped, _FAR_CROP)
        return bool(near and colours >= _CROPPED_COLOURS[part > _SPARSE])


def _within(
    bits: NDArray[np.int64], correlation: Scores, least: int, correlated: float, far: _Far
) -> NDArray[np.bool_]:
    """Whether the edges correlate as much as they must where hashes differ in so many bits."""
    near = (bits <= least) & (correlation >= correlated)
    return near | ((bits <= far.bits) & (correlation >= max(correlated, far.correlation)))


def _score(bits: int) -> float:
    return round(1 - int(bits) / BITS, 3)


_KINDS = (SAME_FILE, PDQ, MIRRORED, CROPPED, ALIKE, COPY)


def _order(found: FoundPicture) -> tuple[int, float, str]:
    """The surest finding first."""
    return _KINDS.index(found.kind), -found.score, found.item


def _nearest(
    images: NDArray[np.float32], items: NDArray[np.float32], least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of an image and an item with a cosine of ``least``; of each image the nearest few."""
    cosines = images @ items.T
    bounds = np.full(len(images), least, np.float32)
    if cosines.shape[1] > _CANDIDATES:
        # As many groups as candidates have a greatest member of at least this, so that no nearer item lies below it.
        groups = min(32 * _CANDIDATES, cosines.shape[1])
        greatest = cosines[:, :groups].copy()
        for start in range(groups, cosines.shape[1] - groups + 1, groups):
            np.maximum(greatest, cosines[:, start : start + groups], out=greatest)
        bounds = np.maximum(bounds, np.partition(greatest, -_CANDIDATES, axis=1)[:, -_CANDIDATES])
    flat = np.flatnonzero(cosines >= bounds[:, None])  # twice as quick as by both axes
    at, places = flat // cosines.shape[1], flat % cosines.shape[1]
    for image in np.flatnonzero(np.bincount(at) > _MOST):  # of items that are all but one and the same
        nearest = np.argsort(-cosines[image], kind="stable")[:_MOST]
        kept = (at != image) | np.isin(places, nearest)
        at, places = at[kept], places[kept]
    return at, places, cosines[at, places]


def by_file_alone(images: Sequence[ImageId]) -> ImagePrints:
    """The prints of images of which nothing but their files' hashes is known, which are their ids."""
    count = len(images)
    return ImagePrints(
        images=images,
        pictures=[picture_hash(image) for image in images],
        pdq=np.zeros((count, 32), np.uint8),
        quality=np.zeros(count, np.int64),
        brightness=np.zeros((count, BRIGHTNESS_SIDE, BRIGHTNESS_SIDE), np.uint8),
        colours=np.zeros((count, SIDE, SIDE, 3), np.uint8),
        vectors=None,
    )
