"""How a taxonomy grows: what to ask the teacher, and which of its proposals become nodes. Pure.

The paper's three kinds of request: further first-level categories, children of a first-level node, children of a
second-level node; each names the existing ones. The proposals of a round are admitted when all its requests are
answered, in the order of paths, so that the same replies give the same version in whatever order they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.records import LabelReject, Node, Reason, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.neighbours import Candidate, Embed, Neighbours
from taskgalaxy_ops.taxonomy.version import LIVE, live_leaves

Kind = Literal["level1", "level2", "level3"]

_KINDS: dict[int, Kind] = {1: "level2", 2: "level3"}  # by the level of the node that is expanded


@dataclass(frozen=True, slots=True)
class Expansion:
    """One request to the teacher, for new children of a node."""

    kind: Kind  # the level of the children
    path: TaskTypePath  # the node that is expanded; empty for level1
    existing: tuple[str, ...]  # names of its children, sorted; retired ones too, so that they do not come again
    round: int


def expansions(nodes: Iterable[Node], round: int) -> list[Expansion]:
    """The requests of a round: for first-level categories, then for the children of each live node of level 1 and 2.

    A leaf that a person wrote stays a task type: it is not expanded, because with children it would become a group. A
    leaf that came from an expansion may become one. Ordered by path.
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

    An empty list for a reply without ``children``. Raises ValueError, naming the node, where they are no list of texts.
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

    embed: encodes n distinct paths (their ``labels.label_text``) as vectors (n, d); called at most once.
    near_duplicate: the cosine from which a proposal counts as the same as a live leaf, a live sibling or a node that
    was admitted before it. max_new: the most new nodes; every parent gets its first child before any gets its second,
    and the rest is rejected as over the cap.

    Each proposal becomes one node or one reject. A name may be used once in a version, because it distinguishes task
    types. A node that gets children is no longer a leaf. Raises TaxonomyError for a proposal below a node that does not
    exist or is not live, and ValueError for vectors that do not fit the texts.
    """
    known = {node.path: node for node in nodes}
    rejects: list[LabelReject] = []
    candidates: list[Candidate] = []
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
            candidates.append(Candidate(path, expansion.path))
    if not candidates:
        return [], rejects
    neighbours = Neighbours(known.values(), candidates, embed, near_duplicate)
    admitted: list[Node] = []
    for place, candidate in enumerate(candidates):
        label = labels.name(candidate.path)
        if label in names:  # a candidate of this name was admitted before in this loop
            rejects.append(LabelReject(candidate.path, Reason.DUPLICATE_LABEL, names[label]))
            continue
        if near := neighbours.nearest(place):
            rejects.append(LabelReject(candidate.path, Reason.NEAR_DUPLICATE_LABEL, *near))
        else:
            neighbours.admit(place)
            names[label] = candidate.path
            admitted.append(Node(candidate.path, labels.level(candidate.path), "expand", LIVE))
    admitted, over = _capped(admitted, max_new)
    rejects += [LabelReject(node.path, Reason.OVER_CAP, f"{max_new} new nodes at most") for node in over]
    return admitted, sorted(rejects, key=lambda reject: (reject.path, reject.reason, reject.detail))


def _capped(admitted: list[Node], max_new: int | None) -> tuple[list[Node], list[Node]]:
    """The nodes that stay and those over the cap, each in the order of paths.

    Every branch (first-level node) gets its first before any gets its second, and within a branch every parent; new
    first-level nodes count as one branch. Among equals a hash of the path decides: the alphabet would grow what begins
    with an a.
    """
    if max_new is None:
        return admitted, []
    of_parent: Counter[TaskTypePath] = Counter()
    branches: dict[str, list[tuple[int, str, TaskTypePath]]] = {}
    for mixed, path in sorted((sha256_hex(node.path.encode()), node.path) for node in admitted):
        above = labels.parent(path)
        branches.setdefault(above.partition("~")[0], []).append((of_parent[above], mixed, path))
        of_parent[above] += 1
    turns = [
        (turn, mixed, path) for children in branches.values() for turn, (_, mixed, path) in enumerate(sorted(children))
    ]
    stay = {path for _, _, path in sorted(turns)[:max_new]}
    return [node for node in admitted if node.path in stay], [node for node in admitted if node.path not in stay]


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
