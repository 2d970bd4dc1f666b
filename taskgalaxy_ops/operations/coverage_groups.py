"""Images that fit nothing, in groups of what looks alike: what a taxonomy has no task types for.

The groups are those of k-means on the embeddings (Lloyd, 1982; by cosine), from a start that is no draw: the image that
is nearest to the mean of all, then each time the one that is farthest from those. The same images give the same groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.generation.coverage import Coverage
from taskgalaxy_ops.generation.embed import embeddings_of
from taskgalaxy_ops.generation.stages.match import match
from taskgalaxy_ops.models.encoders.base import EmbeddingMatrix, Vectors, normalise
from taskgalaxy_ops.records import ImageId, TaskTypePath
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

GROUPS = 12  # at most
_ROUNDS = 30  # of k-means at most; it ends when no image changes its group
_PICTURES = 6
_NEAREST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images that look alike and fit no task type."""

    images: int
    pictures: Sequence[ImageId]  # those nearest to the middle of the group, nearest first
    nearest: Sequence[tuple[TaskTypePath, float]]  # the task types nearest to it, with the cosine


def groups(workspace: Workspace, coverage: Coverage) -> list[Group]:
    """The images of ``coverage.drawn`` in groups, largest first. Raises EncoderError, DamageError."""
    view = workspace.snapshot()
    there = {shard.id: shard for shard in view.registry.shards()}
    drawn = [(there[shard], ids) for shard, ids in coverage.drawn.items()]
    if not drawn:
        return []
    ids, vectors = embeddings_of(view, drawn)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    ids, vectors = [ids[row] for row in order], vectors[order]
    group_of, middles = clustered(vectors, min(GROUPS, math.isqrt(len(ids)) or 1))
    types = TaxonomyStore(view).embeddings(keep=False)
    names = tuple(f"{number:02d}" for number in range(len(middles)))
    nearest: dict[str, list[tuple[TaskTypePath, float]]] = {}
    for each in match(EmbeddingMatrix(names, middles), types, k=_NEAREST):
        nearest.setdefault(each.image, []).append((each.task_type, each.similarity))
    found = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(group_of == number)
        close = rows[np.argsort(-_cosines(vectors[rows], middles[number]), kind="stable")]
        pictures = [ids[row] for row in close[:_PICTURES].tolist()]
        found.append(Group(images=len(rows), pictures=pictures, nearest=nearest.get(name, ())))
    return sorted(found, key=lambda group: (-group.images, group.pictures))


def clustered(vectors: Vectors, groups: int) -> tuple[NDArray[np.intp], Vectors]:
    """K-means of unit vectors (n, d), n >= 1: the group of each, (n,), and the middles, (g, d) with g <= groups."""
    middles = _start(vectors, groups)
    group_of = _nearest(vectors, middles)
    for _ in range(_ROUNDS):
        sums = np.zeros(middles.shape, np.float64)
        np.add.at(sums, group_of, vectors)
        # A group whose images all went to others, or cancel each other out, keeps its middle.
        kept = np.sqrt((sums * sums).sum(axis=1)) > 1e-6
        middles[kept] = normalise(sums[kept])
        before, group_of = group_of, _nearest(vectors, middles)
        if np.array_equal(before, group_of):
            break
    there, group_of = np.unique(group_of, return_inverse=True)
    return group_of, middles[there]


def _start(vectors: Vectors, groups: int) -> Vectors:
    """The first middles: images that are far from each other; fewer than ``groups`` where no others are left."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    chosen = [int(np.argmax(_cosines(vectors, mean)))]
    closest = _cosines(vectors, vectors[chosen[0]])
    while len(chosen) < groups and closest.min() < 1:
        chosen.append(int(np.argmin(closest)))
        closest = np.maximum(closest, _cosines(vectors, vectors[chosen[-1]]))
    return vectors[chosen].copy()


def _nearest(vectors: Vectors, middles: Vectors) -> NDArray[np.intp]:
    found: NDArray[np.intp] = np.stack([_cosines(vectors, middle) for middle in middles]).argmax(axis=0)
    return found


def _cosines(vectors: Vectors, other: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,): rounded to six decimals, so that a library's order of adding decides no tie."""
    found: NDArray[np.float64] = (vectors @ other.astype(np.float32)).astype(np.float64).round(6)
    return found
