"""Match: the k nearest task types of each image, exactly (paper, section 3.2). Pure; no approximate index.

A matrix product in float32 is fast, but its last digits depend on how a library divides it into blocks, and
thus on the other rows of the block. Here it only selects candidates, with a margin for its largest error. The
similarity is each candidate's product in float64, summed in an order that depends only on the vectors' length:
the same pair has the same similarity in any image shard, order, block or process.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import EncoderError
from taskgalaxy_ops.models.encoders.base import LENGTH_TOLERANCE, EmbeddingMatrix
from taskgalaxy_ops.records import Match, TaskTypePath

# Similarities are rounded to six decimals, because float32 vectors carry no more: similarities that differ only by
# an encoder's rounding are ties. Ties are ordered by task type, so that a rank never depends on noise.
DECIMALS = 6

_BLOCK_BYTES = 16 << 20  # of float32 similarities at a time
_PAIR_BYTES = 32 << 20  # of float64 products at a time
_SEPARATOR = "~"  # between the labels of a task type's path
_WIDER = 4  # as many candidates as matches, where the nearest are not simply taken
_GROUP = 64  # columns that are looked at together


def match(
    images: EmbeddingMatrix,
    types: EmbeddingMatrix,
    *,
    k: int,
    least: float | None = None,
    per_branch: int | None = None,
    handicaps: Mapping[TaskTypePath, float] | None = None,
) -> Iterator[Match]:
    """The k nearest task types of each image, exactly.

    images: (n, d) and types: (m, d), both L2-normalised float32. Yields n * min(k, m) matches ordered by
    image id, then rank; similarities are cosines rounded to six decimals, and equal ones are ordered by task
    type. The order of rows changes nothing. Work is done in blocks of images, so that memory stays bounded.

    per_branch: at most so many of an image's matches lie below one first-level node; the next nearest of other nodes
    take the places. least: matches with a smaller similarity are left out; an image may have none then.

    handicaps: by task type, what is taken off its similarity before the k are chosen from among the 4k nearest (with
    ``per_branch``, at most four times as many of a branch). The chosen ones keep their similarity, and rank by it.

    Raises (at the call) EncoderError if the lengths of vectors differ, or if a row is not of length 1 (NaN,
    zero), naming its id; ValueError if k < 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    if images.ids and types.ids and images.vectors.shape[1] != types.vectors.shape[1]:
        raise EncoderError(
            f"image embeddings have {images.vectors.shape[1]} numbers, "
            f"task types' {types.vectors.shape[1]}.\n"
            "  Embed both with the same encoder."
        )
    wider = 1 if handicaps is None else _WIDER
    ranked = _ranked(_by_id(images, "image"), _by_id(types, "task type"), wider * k, per_branch and wider * per_branch)
    if least is not None:
        ranked = (each for each in ranked if each.similarity >= least)
    return ranked if handicaps is None else _chosen(ranked, k, per_branch, handicaps)


def _chosen(
    ranked: Iterator[Match], k: int, per_branch: int | None, handicaps: Mapping[TaskTypePath, float]
) -> Iterator[Match]:
    """Of each image's matches, the k with the greatest similarity less the handicap; ranked anew by similarity."""

    def score(each: Match) -> tuple[float, TaskTypePath]:
        return -round(each.similarity - handicaps.get(each.task_type, 0.0), DECIMALS), each.task_type

    for _, candidates in itertools.groupby(ranked, key=lambda each: each.image):
        chosen: list[Match] = []
        below: Counter[str] = Counter()
        for each in sorted(candidates, key=score):
            branch = each.task_type.partition(_SEPARATOR)[0]
            if len(chosen) < k and (per_branch is None or below[branch] < per_branch):
                chosen.append(each)
                below[branch] += 1
        chosen.sort(key=lambda each: each.rank)
        yield from (replace(each, rank=rank) for rank, each in enumerate(chosen, 1))


def _by_id(matrix: EmbeddingMatrix, what: str) -> EmbeddingMatrix:
    """The rows in the order of their ids, checked to be unit vectors."""
    off = np.abs(np.sqrt(np.einsum("ij,ij->i", matrix.vectors, matrix.vectors)) - 1)
    if (bad := np.flatnonzero(~(off <= LENGTH_TOLERANCE))).size:  # NaN is not <= anything
        raise EncoderError(
            f"embedding of {what} '{matrix.ids[bad[0]]}' is no unit vector (NaN, zero or not normalised).\n"
            "  Embed it anew; if that does not help, check the encoder's weights."
        )
    if all(one < other for one, other in itertools.pairwise(matrix.ids)):
        return matrix
    order = sorted(range(len(matrix.ids)), key=matrix.ids.__getitem__)
    return EmbeddingMatrix(tuple(matrix.ids[i] for i in order), np.ascontiguousarray(matrix.vectors[order]))


class _Branch(NamedTuple):
    """Task types that are ranked together."""

    columns: NDArray[np.intp]  # their places among all
    vectors: NDArray[np.float32]  # theirs, (m, d), and rows of zeros up to a whole group


def _branch(types: EmbeddingMatrix, columns: Sequence[int]) -> _Branch:
    vectors = np.zeros((-(-len(columns) // _GROUP) * _GROUP, types.vectors.shape[1]), np.float32)
    vectors[: len(columns)] = types.vectors[columns]
    return _Branch(np.asarray(columns, np.intp), vectors)


def _ranked(images: EmbeddingMatrix, types: EmbeddingMatrix, k: int, per_branch: int | None) -> Iterator[Match]:
    if not images.ids or not types.ids:
        return
    below: dict[str, list[int]] = {}
    for column, path in enumerate(types.ids):
        below.setdefault(path.partition(_SEPARATOR)[0] if per_branch else "", []).append(column)
    branches = [_branch(types, columns) for columns in below.values()]
    rows = max(1, _BLOCK_BYTES // (4 * len(types.ids)))
    for start in range(0, len(images.ids), rows):
        block = images.vectors[start : start + rows]
        # The k nearest with at most n a branch are the k nearest among the n nearest of each branch.
        found = [_nearest(block, branch, per_branch or k) for branch in branches]
        nearest, similarities = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
        if len(branches) > 1:
            order = np.lexsort((nearest, -similarities), axis=1)[:, :k]
            nearest, similarities = (np.take_along_axis(each, order, axis=1) for each in (nearest, similarities))
        for image, columns, values in zip(
            images.ids[start : start + rows], nearest[:, :k].tolist(), similarities[:, :k].tolist(), strict=True
        ):
            for rank, (column, value) in enumerate(zip(columns, values, strict=True), 1):
                yield Match(image, types.ids[column], value, rank)


def _nearest(images: NDArray[np.float32], branch: _Branch, k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Places among all task types, and similarities, both (n, min(k, m)), of each image's k nearest of a branch; equal
    ones in the order of places.
    """
    types, k = branch.vectors, min(k, len(branch.columns))
    rough = images @ types.T
    rough[:, len(branch.columns) :] = -np.inf
    row, column = _candidates(rough, k, _margin(images.shape[1]))
    exact = np.empty(len(row), np.float64)
    step = max(1, _PAIR_BYTES // (8 * images.shape[1]))
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        # Products of two float32 are exact in float64, and NumPy adds up each row by itself.
        products = images[row[part]].astype(np.float64) * types[column[part]]
        exact[part] = products.sum(axis=1)
    similarity = np.clip(exact.round(DECIMALS), -1.0, 1.0) + 0.0  # + 0.0 makes -0.0 plain zero
    order = np.lexsort((column, -similarity, row))
    counts = np.bincount(row, minlength=len(images))  # k or more in each row
    first = np.concatenate(([0], counts.cumsum()[:-1]))
    chosen = order[first[:, None] + np.arange(k)]
    return branch.columns[column[chosen]], similarity[chosen]


def _candidates(rough: NDArray[np.float32], k: int, margin: np.float32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of all pairs that may be among the k nearest, in the order of rows and columns.

    The matrix is gone through once, for the best of each group of columns. The kth similarity is no worse than the kth
    of these bests, and only few groups have a pair that is as good.
    """
    groups = rough.reshape(len(rough), -1, _GROUP)
    if groups.shape[1] > k:
        best = groups.max(axis=2)
        least = np.partition(best, best.shape[1] - k, axis=1)[:, -k] - margin
        row, group = np.nonzero(best >= least[:, None])
        inside, place = np.nonzero(groups[row, group] >= least[row, None])
        return row[inside], group[inside] * _GROUP + place
    least = np.partition(rough, rough.shape[1] - k, axis=1)[:, -k]
    row, column = np.nonzero(rough >= (least - margin)[:, None])
    return row, column


def _margin(dim: int) -> np.float32:
    """How far below the rough kth similarity a pair may lie and still be among the k nearest.

    Twice the worst error of a float32 dot product of unit vectors (Higham's bound d * u, with room for
    vectors that are only nearly of length 1), and one step of the rounding, within which the task type
    decides.
    """
    return np.float32(2 * 1.01 * (dim + 2) * 2.0**-24 + 1.01 * 10.0**-DECIMALS)
