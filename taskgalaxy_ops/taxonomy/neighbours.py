"""Which label is nearest to a proposed one, exactly, for a hundred thousand proposals. Pure.

Products of all pairs are made in float32, a block of proposals against a tile of others, so that memory grows with the
labels and not with their pairs. The few pairs near the threshold are computed again in float64: these decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.records import Node, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.version import LIVE, live_leaves

Embed = Callable[[list[str]], NDArray[Any]]

BLOCK = 512  # candidates that are compared at a time
TILE = 8192  # others in one product: 16 MB
_MARGIN = 1e-4  # cosine by which a product in float32 may be off; at 1,000 dimensions it is 6e-5 at most

_Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed node, and the node that it is proposed for."""

    path: TaskTypePath
    parent: TaskTypePath


class Neighbours:
    """The live leaves and the siblings that a candidate is compared with, and the candidates admitted so far.

    A candidate is not compared with its ancestors, because their names are part of its text. If its parent is a leaf (a
    task type until now), the candidate is compared with the parent as if it were the parent's sibling: a child that
    only says the same as its parent in other words must not replace it.

    A place is a path's number: first the nodes that candidates are compared with, then the candidates. ``nearest`` and
    ``admit`` are called for candidates in ascending order.
    """

    def __init__(
        self, nodes: Iterable[Node], candidates: Sequence[Candidate], embed: Embed, near_duplicate: float
    ) -> None:
        """Raises ValueError for vectors that do not fit the texts. embed: called once, with distinct paths."""
        known = list(nodes)
        self._candidates, self._near = candidates, near_duplicate
        self._leaves = {node.path for node in live_leaves(known)}
        parents = {candidate.parent for candidate in candidates}
        fixed = sorted(
            node.path
            for node in known
            if node.path in self._leaves or (node.status == LIVE and labels.parent(node.path) in parents)
        )
        self._first = len(fixed)
        self._paths = [*fixed, *(candidate.path for candidate in candidates)]
        self._places = {path: place for place, path in enumerate(fixed)}
        beside = {
            place: labels.join(labels.parent(candidate.parent), labels.name(candidate.path))
            for place, candidate in enumerate(candidates)
            if candidate.parent in self._leaves
        }
        self._raw, rows = _rows(embed, [*self._paths, *beside.values()])
        self._row = rows[: len(self._paths)]
        self._row_beside: dict[int, int] = dict(zip(beside, rows[len(self._paths) :].tolist(), strict=True))
        self._lengths = np.sqrt(np.einsum("ij,ij->i", self._raw, self._raw, dtype=np.float64))
        self._lengths[self._lengths == 0] = 1
        # Rows of what is compared with: the nodes, then the admitted candidates, which move up over those refused.
        self._units = np.empty((len(self._paths), self._raw.shape[1]), np.float32)
        for start in range(0, len(self._paths), TILE):
            self._units[start : start + TILE] = self._exact(self._row[start : start + TILE])
        self._open = np.arange(len(self._paths))  # place of each of these rows
        self._opened = self._first  # how many there are
        self._hits: dict[int, list[_Places]] = {}  # by candidate of the block: places that may be near
        self._admitted: set[int] = set()  # places

    def nearest(self, candidate: int) -> tuple[TaskTypePath, float] | None:
        """The nearest path at or above the threshold, and the cosine, rounded to six decimals; None: there is none.

        Of equally near ones the first by path.
        """
        if candidate not in self._hits:
            self._compare(candidate - candidate % BLOCK)
        own = self._candidates[candidate]
        above = {self._places[path] for path in labels.ancestors(own.path) if path in self._places}
        places = [
            int(place)
            for hits in self._hits.get(candidate, [])
            for place in hits
            if place not in above and self._comparable(int(place), own.parent)
        ]
        near = self._cosines(places, int(self._row[self._first + candidate]))
        if (row := self._row_beside.get(candidate)) is not None:
            leaf = self._places[own.parent]
            places.append(leaf)
            near = np.append(near, self._cosines([leaf], row))
        best = float(near.max(initial=-np.inf))
        if best < self._near:
            return None
        return min(self._paths[places[i]] for i in np.flatnonzero(near == best)), best

    def admit(self, candidate: int) -> None:
        """Let later candidates be compared with this one, too."""
        place = self._first + candidate
        self._units[self._opened] = self._exact(self._row[place : place + 1])[0]
        self._open[self._opened] = place
        self._opened += 1
        self._admitted.add(place)

    def _comparable(self, place: int, parent: TaskTypePath) -> bool:
        if place >= self._first:
            return place in self._admitted
        path = self._paths[place]
        return path in self._leaves or labels.parent(path) == parent

    def _compare(self, start: int) -> None:
        """Find what may be near each candidate of the block from ``start`` on."""
        low = np.float32(self._near - _MARGIN)
        stop = min(start + BLOCK, len(self._candidates))
        block = self._exact(self._row[self._first + start : self._first + stop]).astype(np.float32)
        self._hits = {candidate: [] for candidate in range(start, stop)}
        room = np.empty((len(block), TILE), np.float32)
        for at in range(0, self._opened, TILE):
            tile = self._units[at : min(at + TILE, self._opened)]
            product = np.matmul(block, tile.T, out=room[:, : len(tile)])
            for row in np.flatnonzero(product.max(axis=1) >= low):
                self._hits[start + int(row)].append(self._open[at + np.flatnonzero(product[row] >= low)])
        product = block @ block.T
        for later in range(1, len(block)):
            before = np.flatnonzero(product[later, :later] >= low)
            self._hits[start + later].append(self._first + start + before)

    def _cosines(self, places: Sequence[int], row: int) -> NDArray[np.float64]:
        # Rounded, because a library's order of summation changes the last digits: such ties are decided by path.
        if not places:
            return np.empty(0)
        cosines: NDArray[np.float64] = self._exact(self._row[np.array(places)]) @ self._exact(np.array([row]))[0]
        return np.round(cosines, 6)

    def _exact(self, rows: _Places) -> NDArray[np.float64]:
        """The vectors of these rows at length 1 (n, d)."""
        unit: NDArray[np.float64] = self._raw[rows].astype(np.float64) / self._lengths[rows, None]
        return unit


def nearest_elsewhere(
    paths: Sequence[TaskTypePath], others: Sequence[TaskTypePath], embed: Embed, most: int
) -> dict[TaskTypePath, tuple[str, ...]]:
    """For each path the names of the ``most`` others nearest to it that do not lie below it, the nearest first.

    Of equally near ones (to four decimals) the first by path comes first. embed: called once.
    """
    vectors, rows = _rows(embed, [*paths, *others])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    own, theirs = unit[rows[: len(paths)]], unit[rows[len(paths) :]]
    above = np.array([labels.parent(path) for path in others], object)
    found: dict[TaskTypePath, tuple[str, ...]] = {}
    for start in range(0, len(paths), BLOCK):
        cosines = np.round(own[start : start + BLOCK] @ theirs.T, 4)
        for path, row in zip(paths[start : start + BLOCK], cosines, strict=True):
            row[above == path] = -np.inf
            ranked = sorted(np.argsort(-row, kind="stable")[:most].tolist(), key=lambda i: (-row[i], others[i]))
            found[path] = tuple(labels.name(others[i]) for i in ranked if row[i] > -np.inf)
    return found


def _rows(embed: Embed, paths: list[TaskTypePath]) -> tuple[NDArray[Any], _Places]:
    """The vectors (m, d) of the distinct paths, each embedded once, and for each path the row of its vector (n,).

    Raises ValueError for vectors of the wrong shape, or not finite.
    """
    distinct = list(dict.fromkeys(paths))
    vectors = np.asarray(embed(distinct))
    if vectors.ndim != 2 or len(vectors) != len(distinct) or not np.isfinite(vectors).all():
        raise ValueError(
            f"{len(distinct)} labels were embedded as an array of shape {vectors.shape}, or one not finite"
        )
    row_of = {path: row for row, path in enumerate(distinct)}
    return vectors, np.array([row_of[path] for path in paths], np.intp)
