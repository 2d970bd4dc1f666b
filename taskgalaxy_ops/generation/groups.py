"""Groups of images, for questions about several: an image, and one to three others of its image shard. Pure.

Of a page of a document, the others are the pages next to it; of any other image, those nearest in the encoder's space.
How many there are is drawn by the image's hash. What looks the same as the image, or as another of the group, is passed
by. Only live images count. No image joins a shard once it is cut, so that a group changes only when one of its images
leaves: those of all other images stay as they are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.models.encoders.base import Vectors
from taskgalaxy_ops.records import Claim, ImageId

Groups = Mapping[ImageId, tuple[ImageId, ...]]  # by image, the others of its group; images without a group are left out
Page = tuple[str, int]  # the document, and the number within it

VERSION = 1  # one more whenever the same images form other groups
MOST = 4  # images of a group
ALIKE_BITS = 6  # of the perceptual hash, in which two images that look the same may differ
_DECIMALS = 6  # of a cosine: what is equal after that is taken in order of id
_NEAR = 64  # images that are looked at for a group: if they all look the same, there is none
_AT_ONCE = 1024  # images that are compared with all others at once


def groups(
    ids: Sequence[ImageId], vectors: Vectors, hashes: Mapping[ImageId, str], pages: Mapping[ImageId, Page]
) -> Groups:
    """The groups of an image shard's live images.

    ids: in order. vectors: theirs, ``(n, d)``, of length 1. hashes: perceptual ones. pages: of those that are pages.
    """
    documents: defaultdict[str, list[ImageId]] = defaultdict(list)
    for image in sorted(pages.keys() & set(ids)):
        documents[pages[image][0]].append(image)
    found: dict[ImageId, tuple[ImageId, ...]] = {}
    for image, near in zip(ids, _nearest(vectors), strict=True):
        wanted = 1 + int(draw("group", image) * (MOST - 1))
        others = _by_distance(image, documents[pages[image][0]], pages) if image in pages else []
        chosen = _unlike(image, others or (ids[row] for row in near), hashes, wanted)
        if others:
            chosen.sort(key=lambda other: pages[other][1])
        if chosen:
            found[image] = tuple(chosen)
    return found


def _nearest(vectors: Vectors) -> Iterator[NDArray[np.intp]]:
    """For each image the rows of those near it, the nearest first; itself among them."""
    exact = vectors.astype(np.float64)
    last = max(0, len(exact) - _NEAR)
    for start in range(0, len(exact), _AT_ONCE):
        cosines = (exact[start : start + _AT_ONCE] @ exact.T).round(_DECIMALS)
        for cosine, least in zip(cosines, np.partition(cosines, last, axis=1)[:, last], strict=True):
            near = np.flatnonzero(cosine >= least)  # more, where several are as near as the last
            yield near[np.argsort(-cosine[near], kind="stable")]


def _by_distance(image: ImageId, others: Iterable[ImageId], pages: Mapping[ImageId, Page]) -> list[ImageId]:
    """The other pages of an image's document, the nearest first; of two as near, the following one."""
    number = pages[image][1]
    return sorted(
        (other for other in others if other != image),
        key=lambda other: (abs(pages[other][1] - number), pages[other][1] < number, other),
    )


def _unlike(image: ImageId, others: Iterable[ImageId], hashes: Mapping[ImageId, str], wanted: int) -> list[ImageId]:
    """The first ``wanted`` of the others that look like none of those before."""
    taken = [image]
    for other in others:
        if len(taken) > wanted:
            break
        if other not in taken and not any(_alike(hashes[other], hashes[each]) for each in taken):
            taken.append(other)
    return taken[1:]


def _alike(one: str, other: str) -> bool:
    return (int(one, 16) ^ int(other, 16)).bit_count() <= ALIKE_BITS


def pages_of(claims: Iterable[Claim]) -> dict[ImageId, Page]:
    """Which images are pages, by the claims of live sources, in order of image and source: the first that says so."""
    found: dict[ImageId, Page] = {}
    for claim in claims:
        document, inside, _ = claim.file.rpartition("/")
        number = json.loads(claim.context).get("page", "") if claim.context else ""
        if inside and str(number).isdecimal():
            found.setdefault(claim.image, (f"{claim.source}/{document}", int(number)))
    return found
