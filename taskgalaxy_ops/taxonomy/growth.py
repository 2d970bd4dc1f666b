"""How a taxonomy grows: what to ask the teacher, and which of its proposals become nodes. Pure.

The paper's three kinds of request: further first-level categories, children of a first-level node, children of a
second-level node, each given what is there. A round is admitted once all of it is answered, in the order of paths,
so that the same replies give the same version in whatever order they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import LabelReject, Node, Reason, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.version import LIVE, live_leaves

Kind = Literal["level1", "level2", "level3"]
Embed = Callable[[list[str]], NDArray[Any]]

_KINDS: dict[int, Kind] = {1: "level2", 2: "level3"}  # by the level of the node that is expanded


@dataclass(frozen=True, slots=True)
class Expansion:
    """One request to the teacher: the unit of expand."""

    kind: Kind  # the level of what is asked for
    path: TaskTypePath  # the node that is expanded; empty for level1
    existing: tuple[str, ...]  # names of its children, sorted; retired ones too, so that they do not come again
    round: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: TaskTypePath
    parent: TaskTypePath


def expansions(nodes: Iterable[Node], round: int) -> list[Expansion]:
    """What one round asks: first-level categories, then the children of each live node of level 1 and 2, by path.

    A leaf that a person wrote is a task type for good: growing below it would take it away. One that came from an
    expansion may become a group.
    """
    known = list(nodes)
    leaves = {node.path for node in live_leaves(known)}
    children_of: dict[TaskTypePath, list[str]] = {}
    for node in known:
        children_of.setdefault(labels.parent(node.path), []).append(labels.name(node.path))
    wanted: list[tuple[Kind, TaskTypePath]] = [("level1", "")]
    for node in sorted(known, key=lambda node: node.path):
        if node.status == LIVE and node.level in _KINDS and (node.path not in leaves or node.origin == "expand"):
            wanted.append((_KINDS[node.level], node.path))
    return [Expansion(kind, path, tuple(sorted(children_of.get(path, ()))), round) for kind, path in wanted]


def children(expansion: Expansion, reply: Mapping[str, Any]) -> list[str]:
    """The labels that a reply ``{"children": ["…", …]}`` proposes, as they came.

    None for a reply without ``children``. Raises ValueError, naming the node, where they are no list of texts.
    """
    proposed = reply.get("children", [])
    where = f"the children proposed for '{expansion.path}'" if expansion.path else "the first level proposed"
    if not isinstance(proposed, list):
        raise ValueError(f"{where}: 'children' is to be a list, not {type(proposed).__name__}")
    for place, label in enumerate(proposed, 1):
        if not isinstance(label, str):
            raise ValueError(f"{where}: item {place} is to be a text, not {type(label).__name__}")
    return list(proposed)


def admit(
    proposals: Iterable[tuple[Expansion, str]],
    nodes: Iterable[Node],
    embed: Embed,
    near_duplicate: float,
    max_new: int | None,
) -> tuple[list[Node], list[LabelReject]]:
    """The new nodes (origin "expand") and the rejects of one round, each in the order of paths.

    embed: n distinct paths, by their ``labels.label_text``, to vectors (n, d); called once at most. near_duplicate:
    cosine from which a proposal is the twin of a live leaf, of a live sibling or of what was admitted before it.
    max_new: nodes at most; every parent gets its first before any gets its second, the rest is over the cap.

    Each proposal comes out once, as a node or a reject. A name may stand once in a version, since task types are
    told apart by it. A node that gets children is no leaf any more. Raises TaxonomyError for a proposal below a
    node that is not there or not live, and ValueError for vectors that do not fit the texts.
    """
    known = {node.path: node for node in nodes}
    rejects: list[LabelReject] = []
    candidates: list[_Candidate] = []
    names = {labels.name(path): path for path in sorted(known)}
    for path, raw, expansion in _in_order(proposals):
        _require_live(expansion.path, known)
        label = labels.normalise(raw)
        if (problem := labels.check(label)) is not None:
            shown = labels.join(expansion.path, labels.shown(raw))
            rejects.append(LabelReject(shown, Reason.NOT_A_LABEL, problem))
        elif label in names:
            rejects.append(LabelReject(path, Reason.DUPLICATE_LABEL, names[label]))
        else:
            candidates.append(_Candidate(path, expansion.path))
    if not candidates:
        return [], rejects
    neighbours = _Neighbours(known.values(), candidates, embed)
    admitted: list[Node] = []
    for place, candidate in enumerate(candidates):
        label = labels.name(candidate.path)
        if label in names:  # of one that was admitted meanwhile
            rejects.append(LabelReject(candidate.path, Reason.DUPLICATE_LABEL, names[label]))
            continue
        neighbour, similarity = neighbours.nearest(place)
        if neighbour is not None and similarity >= near_duplicate:
            reason, detail = Reason.NEAR_DUPLICATE_LABEL, neighbour
            rejects.append(LabelReject(candidate.path, reason, detail, similarity))
        else:
            neighbours.admit(place)
            names[label] = candidate.path
            admitted.append(Node(candidate.path, labels.level(candidate.path), "expand", LIVE))
    admitted, over = _capped(admitted, max_new)
    rejects += [LabelReject(node.path, Reason.OVER_CAP, f"{max_new} new nodes at most") for node in over]
    return admitted, sorted(rejects, key=lambda reject: (reject.path, reject.reason, reject.detail))


def _capped(admitted: list[Node], max_new: int | None) -> tuple[list[Node], list[Node]]:
    """The nodes that stay and those over the cap, each in the order of paths: breadth before depth."""
    if max_new is None:
        return admitted, []
    taken: Counter[TaskTypePath] = Counter()
    turns: list[tuple[int, int]] = []
    for place, node in enumerate(admitted):
        turns.append((taken[labels.parent(node.path)], place))
        taken[labels.parent(node.path)] += 1
    stay = {place for _, place in sorted(turns)[:max_new]}
    return (
        [node for place, node in enumerate(admitted) if place in stay],
        [node for place, node in enumerate(admitted) if place not in stay],
    )


def _in_order(proposals: Iterable[tuple[Expansion, str]]) -> list[tuple[TaskTypePath, str, Expansion]]:
    rows = [(labels.join(e.path, labels.normalise(raw)), raw, e) for e, raw in proposals]
    return sorted(rows, key=lambda row: (row[0], row[1], row[2].path))


def _require_live(path: TaskTypePath, known: Mapping[TaskTypePath, Node]) -> None:
    if path and (path not in known or known[path].status != LIVE):
        state = "retired" if path in known else "not there"
        raise TaxonomyError(
            f"children were proposed for '{labels.shown(path)}', which is {state} in this version.\n"
            "  Admit a round against the version that it was asked for."
        )


class _Neighbours:
    """The live leaves and the siblings that a candidate is compared with, and the candidates admitted so far.

    Its own ancestors are left out: their names are part of the candidate's text. Where its parent is a leaf (it
    was a task type until now), the candidate is compared with it as if it stood beside it, so that a parent in
    other words does not replace it.
    """

    def __init__(self, nodes: Iterable[Node], candidates: Sequence[_Candidate], embed: Embed) -> None:
        known = list(nodes)
        self._candidates = candidates
        leaves = {node.path for node in live_leaves(known)}
        parents = {candidate.parent for candidate in candidates}
        self._paths = sorted(
            node.path
            for node in known
            if node.path in leaves or (node.status == LIVE and labels.parent(node.path) in parents)
        )
        self._first = len(self._paths)  # where the candidates begin
        self._leaf_parent = [c.parent if c.parent in leaves else None for c in candidates]
        beside = [
            labels.join(labels.parent(candidate.parent), labels.name(candidate.path))
            for candidate, leaf in zip(candidates, self._leaf_parent, strict=True)
            if leaf is not None
        ]
        self._paths += [candidate.path for candidate in candidates]
        self._vectors = _unit_rows(embed, [*self._paths, *beside])
        of_leaf = (place for place, leaf in enumerate(self._leaf_parent) if leaf is not None)
        self._beside = dict(zip(of_leaf, self._vectors[len(self._paths) :], strict=True))
        self._vectors = self._vectors[: len(self._paths)]
        self._open = np.array([place < self._first and path in leaves for place, path in enumerate(self._paths)], bool)
        self._parents = np.array([labels.parent(path) for path in self._paths], object)
        self._places = {path: place for place, path in enumerate(self._paths)}

    def nearest(self, place: int) -> tuple[TaskTypePath | None, float]:
        """The nearest of what this candidate is compared with, and their cosine to six decimals."""
        candidate = self._candidates[place]
        comparable = self._open.copy()
        comparable[: self._first] |= self._parents[: self._first] == candidate.parent
        for above in labels.ancestors(candidate.path):
            if above in self._places:
                comparable[self._places[above]] = False
        cosines = np.where(comparable, self._vectors @ self._vectors[self._first + place], -np.inf)
        if (leaf := self._leaf_parent[place]) is not None:
            cosines[self._places[leaf]] = self._vectors[self._places[leaf]] @ self._beside[place]
        # Six decimals: what a library's order of adding alone sets apart is a tie, and goes by path.
        cosines = np.round(cosines, 6)
        best = float(cosines.max())
        if best == -np.inf:
            return None, best
        return min(self._paths[i] for i in np.flatnonzero(cosines == best)), best

    def admit(self, place: int) -> None:
        """Later candidates are compared with this one too."""
        self._open[self._first + place] = True


def _unit_rows(embed: Embed, paths: list[TaskTypePath]) -> NDArray[np.float64]:
    """A row for each path, at length 1; each path is embedded once, however often it is there."""
    distinct = list(dict.fromkeys(paths))
    vectors = np.asarray(embed(distinct), np.float64)
    if vectors.ndim != 2 or len(vectors) != len(distinct) or not np.isfinite(vectors).all():
        raise ValueError(
            f"{len(distinct)} labels were embedded as an array of shape {vectors.shape}, or one not finite"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.where(lengths == 0, 1, lengths)
    rows = {path: row for row, path in enumerate(distinct)}
    return unit[[rows[path] for path in paths]]
