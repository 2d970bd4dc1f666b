"""How a taxonomy grows: what to ask the teacher, and which of its proposals become nodes. Pure.

The paper's three kinds of request: further first-level categories, children of a first-level node, children of a
second-level node; each names the existing ones. The proposals of a round are admitted when all its requests are
answered, in the order of paths, so that the same replies give the same version in whatever order they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.hashing import sha256_hex
from taskgalaxy_ops.records import LabelReject, Node, Reason, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.neighbours import Candidate, Embed, Neighbours, nearest_elsewhere
from taskgalaxy_ops.taxonomy.rules import Rules, TaxonomyWords
from taskgalaxy_ops.taxonomy.version import LIVE, live_leaves

Kind = Literal["level1", "level2", "level3"]

_KINDS: dict[int, Kind] = {1: "level2", 2: "level3"}  # by the level of the node that is expanded
_DEPTH: dict[Kind, int] = {"level1": 0, "level2": 1, "level3": 2}  # the level of the node that is expanded


@dataclass(frozen=True, slots=True)
class Expansion:
    """One request to the teacher, for new children of a node."""

    kind: Kind  # the level of the children
    path: TaskTypePath  # the node that is expanded; empty for level1
    existing: tuple[str, ...]  # names of its children, sorted; retired ones too, so that they do not come again
    round: int
    cousins: tuple[str, ...] = ()  # names of near nodes of other branches, the nearest first


@dataclass(frozen=True, slots=True)
class Plan:
    """How an expansion goes on from round to round, breadth first."""

    children: int  # labels asked for in one request
    widths: tuple[int, int, int] | None = None  # the most children of the root, and of a node of levels 1 and 2
    novelty: float = 0.0  # share of a node's last proposals that must have become nodes, to ask there again

    def count(self, expansion: Expansion) -> int:
        """How many labels to ask for; 0: the node has as many as it may."""
        if self.widths is None:
            return self.children
        return max(0, min(self.children, self.widths[_DEPTH[expansion.kind]] - len(expansion.existing)))

    def wanted(self, expansions: Iterable[Expansion], novelty: Mapping[TaskTypePath, float]) -> list[Expansion]:
        """Those to ask. novelty: by path, the share of its last proposals that became nodes; 0 where it had none."""
        return [one for one in expansions if self.count(one) and novelty.get(one.path, 1.0) >= self.novelty]


def expansions(nodes: Iterable[Node], round: int, refused: Iterable[TaskTypePath] = ()) -> list[Expansion]:
    """The requests of a round: for first-level categories, then for the children of each live node of level 1 and 2.

    A leaf that a person wrote stays a task type: it is not expanded, because with children it would become a group. A
    leaf that came from an expansion may become one. Ordered by path. refused: paths that a person refused; a request
    names them with the existing ones.
    """
    known = list(nodes)
    leaves = {node.path for node in live_leaves(known)}
    children_of: dict[TaskTypePath, list[str]] = {}
    for node in known:
        children_of.setdefault(labels.parent(node.path), []).append(labels.name(node.path))
    for path in set(refused).difference(node.path for node in known):
        children_of.setdefault(labels.parent(path), []).append(labels.name(path))
    wanted: list[tuple[Kind, TaskTypePath]] = [("level1", "")]
    for node in sorted(known, key=lambda node: node.path):
        if node.status == LIVE and node.level in _KINDS and (node.path not in leaves or node.origin == "expand"):
            wanted.append((_KINDS[node.level], node.path))
    return [Expansion(kind, path, tuple(sorted(children_of.get(path, ()))), round) for kind, path in wanted]


def emptiest(wanted: Sequence[Expansion], most: int) -> list[Expansion]:
    """The ``most`` of these with the fewest children, of equals the highest level first, in the order given.

    Among equals a hash of the path decides: the alphabet would grow what begins with an a.
    """
    if len(wanted) <= most:
        return list(wanted)
    ranked = sorted(wanted, key=lambda one: (len(one.existing), _DEPTH[one.kind], sha256_hex(one.path.encode())))
    chosen = {one.path for one in ranked[:most]}
    return [one for one in wanted if one.path in chosen]


def with_cousins(wanted: Sequence[Expansion], nodes: Iterable[Node], embed: Embed, most: int) -> list[Expansion]:
    """The same requests, each with the names of the ``most`` live nodes of other branches that its node is nearest to.

    They are of the level that is asked for, so that they may be what the teacher would say. First-level requests have
    none.
    """
    of_level: dict[int, list[TaskTypePath]] = {}
    for node in sorted(nodes, key=lambda node: node.path):
        if node.status == LIVE:
            of_level.setdefault(node.level, []).append(node.path)
    found: dict[TaskTypePath, tuple[str, ...]] = {}
    for kind, depth in _DEPTH.items():
        asked = [one.path for one in wanted if one.kind == kind]
        others = of_level.get(depth + 1, [])
        if depth and asked and others:
            found |= nearest_elsewhere(asked, others, embed, most)
    return [replace(one, cousins=found.get(one.path, ())) for one in wanted]


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


def without_refused(
    proposals: Iterable[tuple[Expansion, str]], refused: Mapping[TaskTypePath, int]
) -> tuple[list[tuple[Expansion, str]], list[LabelReject]]:
    """The proposals that a person may still want, and the rejects of those that are, or lie below, a refused path.

    refused: by path, the number of the proposal in which it was refused.
    """
    kept, rejects = [], []
    for expansion, label in proposals:
        path = labels.join(expansion.path, labels.normalise(label))
        found = next((each for each in (*labels.ancestors(path), path) if each in refused), None)
        if found is None:
            kept.append((expansion, label))
        else:
            shown = labels.join(expansion.path, labels.shown(label))
            rejects.append(LabelReject(shown, Reason.REFUSED_LABEL, f"in proposal {refused[found]}"))
    return kept, rejects


def admit(
    proposals: Iterable[tuple[Expansion, str]],
    nodes: Iterable[Node],
    embed: Embed,
    near_duplicate: float,
    max_new: int | None,
    rules: Rules | None = None,
) -> tuple[list[Node], list[LabelReject]]:
    """The new nodes (origin "expand") and the rejects of one round, each in the order of paths.

    embed: encodes n distinct paths (their ``labels.label_text``) as vectors (n, d); called at most once.
    near_duplicate: the cosine from which a proposal counts as the same as a live leaf, a live sibling or a node that
    was admitted before it. max_new: the most new nodes; every parent gets its first child before any gets its second,
    and the rest is rejected as over the cap. rules: what labels may not say, and which words say the same; None: only
    labels that are spelt alike are the same, and all may be said.

    Each proposal becomes one node or one reject. A name may be used once in a version, because it distinguishes task
    types. A node that gets children is no longer a leaf. Raises TaxonomyError for a proposal below a node that does not
    exist or is not live, and ValueError for vectors that do not fit the texts.
    """
    known = {node.path: node for node in nodes}
    rejects: list[LabelReject] = []
    candidates: list[Candidate] = []
    taken = _Taken(known, rules)
    written = TaxonomyWords(labels.identity(labels.name(path)) for path in known)
    for path, raw, expansion in _in_order(proposals):
        _require_live(expansion.path, known)
        label = labels.normalise(raw)
        if (problem := labels.check(label)) is not None:
            shown = labels.join(expansion.path, labels.shown(raw))
            rejects.append(LabelReject(shown, Reason.NOT_A_LABEL, problem))
        elif twin := taken.spelt(label):
            rejects.append(LabelReject(path, Reason.DUPLICATE_LABEL, twin))
        elif rules and (broken := rules.broken(label, raw, labels.name(expansion.path), written)):
            rejects.append(LabelReject(path, Reason.BY_RULE, broken))
        elif twin := taken.said(label):
            rejects.append(LabelReject(path, Reason.NEAR_DUPLICATE_LABEL, twin))
        else:
            candidates.append(Candidate(path, expansion.path))
    if not candidates:
        return [], rejects
    neighbours = Neighbours(known.values(), candidates, embed, near_duplicate)
    admitted: list[Node] = []
    for place, candidate in enumerate(candidates):
        label = labels.name(candidate.path)
        # A candidate that was admitted before in this loop may have the label, or its words.
        if twin := taken.spelt(label):
            rejects.append(LabelReject(candidate.path, Reason.DUPLICATE_LABEL, twin))
        elif twin := taken.said(label):
            rejects.append(LabelReject(candidate.path, Reason.NEAR_DUPLICATE_LABEL, twin))
        elif near := neighbours.nearest(place):
            rejects.append(LabelReject(candidate.path, Reason.NEAR_DUPLICATE_LABEL, *near))
        else:
            neighbours.admit(place)
            taken.add(candidate.path)
            admitted.append(Node(candidate.path, labels.level(candidate.path), "expand", LIVE))
    admitted, over = _capped(admitted, max_new)
    rejects += [LabelReject(node.path, Reason.OVER_CAP, f"{max_new} new nodes at most") for node in over]
    return admitted, sorted(rejects, key=lambda reject: (reject.path, reject.reason, reject.detail))


class _Taken:
    """The labels that a version has, by their spelling, and by what they say where there are rules for that."""

    def __init__(self, paths: Iterable[TaskTypePath], rules: Rules | None) -> None:
        self._rules = rules
        self._spelt: dict[str, TaskTypePath] = {}
        self._said: dict[str, TaskTypePath] = {}
        for path in sorted(paths):
            self.add(path)

    def add(self, path: TaskTypePath) -> None:
        label = labels.identity(labels.name(path))
        self._spelt[label] = path
        if self._rules:
            self._said.setdefault(self._rules.wording(label), path)

    def spelt(self, label: str) -> TaskTypePath | None:
        """The path with this label, if there is one."""
        return self._spelt.get(label)

    def said(self, label: str) -> TaskTypePath | None:
        """The first path whose label says the same in the same words, if there is one."""
        return self._said.get(self._rules.wording(label)) if self._rules else None


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
