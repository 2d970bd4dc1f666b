"""A taxonomy version: numbered, immutable, comparable with another.

Its number is decided where it is published (store.py); nothing here reads or writes a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node, TaskTypePath
from taskgalaxy_ops.taxonomy import labels

LIVE = "live"
RETIRED = "retired"


def live_leaves(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The task types: live nodes without any child, in order of paths.

    A retired child still counts as a child: retiring task types never turns the group above them into one.
    """
    known = list(nodes)
    above = {labels.parent(node.path) for node in known}
    leaves = (node for node in known if node.status == LIVE and node.path not in above)
    return tuple(sorted(leaves, key=lambda node: node.path))


def asked(node: Node) -> TaskTypePath:
    """The path by which encoder and models know a node: its embedding, its answers and its samples' ids have it."""
    return node.asked_as or node.path


def asked_paths(nodes: Iterable[Node]) -> list[TaskTypePath]:
    """The task types of these nodes as they are asked, sorted."""
    return sorted(asked(node) for node in live_leaves(nodes))


@dataclass(frozen=True)
class TaxonomyVersion:
    """One version: its number, the version that it grew from (None: from seeds) and its nodes, sorted by path.

    A task type that was renamed or moved keeps the path by which it is asked (``asked_as``), so that its embedding,
    answers and samples stay its own. Tables of stages hold that path; people are shown the present one (``shown``).

    Raises TaxonomyError where a path occurs twice, its parent is missing, its level is wrong, a live node lies below
    a retired one, or two task types are asked as one.
    """

    number: int
    base: int | None
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(sorted(self.nodes, key=lambda node: node.path)))
        by_path = {node.path: node for node in self.nodes}
        if len(by_path) < len(self.nodes):
            (path, times), *_ = Counter(node.path for node in self.nodes).most_common(1)
            raise TaxonomyError(f"taxonomy version {self.number}: '{path}' is there {times} times, once is right.")
        for node in self.nodes:
            above = labels.parent(node.path)
            if above and above not in by_path:
                raise TaxonomyError(f"taxonomy version {self.number}: '{node.path}' has no parent: add '{above}'.")
            if node.level != labels.level(node.path):
                raise TaxonomyError(
                    f"taxonomy version {self.number}: '{node.path}' says that it lies on level {node.level}; "
                    f"its path has {labels.level(node.path)}."
                )
            if above and node.status == LIVE and by_path[above].status != LIVE:
                raise TaxonomyError(
                    f"taxonomy version {self.number}: '{node.path}' is live below '{above}', which is retired: "
                    "retire both, or neither."
                )
        if any(node.asked_as for node in self.nodes):
            (path, times), *_ = Counter(asked_paths(self.nodes)).most_common(1) or [("", 0)]
            if times > 1:
                both = " and ".join(f"'{node.path}'" for node in self.leaves() if asked(node) == path)
                raise TaxonomyError(
                    f"taxonomy version {self.number}: {both} are both asked as '{path}', so that they would share "
                    "answers: merge them, or retire one."
                )

    def leaves(self) -> tuple[Node, ...]:
        """The task types, sorted by path (see ``live_leaves``)."""
        return live_leaves(self.nodes)

    @cached_property
    def _by_identity(self) -> dict[str, Node]:
        return {labels.identity(node.path): node for node in self.nodes}

    @cached_property
    def _shown(self) -> dict[TaskTypePath, TaskTypePath]:
        """By the path that a node is asked as, its own, where that is another. Task types come before other nodes."""
        renamed = [node for node in self.nodes if node.asked_as]
        if not renamed:
            return {}
        rank = {node.path: 2 for node in self.leaves()}
        rank |= {node.path: 1 for node in self.nodes if node.status == LIVE and node.path not in rank}
        renamed.sort(key=lambda node: rank.get(node.path, 0))
        asked_itself = {node.path for node in self.leaves() if not node.asked_as}
        return {asked(node): node.path for node in renamed if asked(node) not in asked_itself}

    def find(self, path: TaskTypePath) -> Node | None:
        """The node of this path, if there is one, however case and blanks are written."""
        return self._by_identity.get(labels.identity(path))

    def asked(self) -> list[TaskTypePath]:
        """The task types as encoder and models are asked about them, sorted: what the match stage takes."""
        return asked_paths(self.nodes)

    def shown(self, task_type: TaskTypePath) -> TaskTypePath:
        """What people are shown of a task type that a stage's table names: its present path.

        One that this version does not know stays as it is.
        """
        return self._shown.get(task_type, task_type)

    def became(self, path: TaskTypePath) -> TaskTypePath:
        """The path of the node that a renamed, moved or merged one became, over all steps; of another, itself."""
        node, passed = self.find(path), {path}
        while node is not None and node.successor and node.successor not in passed:
            path = node.successor
            passed.add(path)
            node = self.find(path)
        return path if node is None else node.path

    def asked_of(self, path: TaskTypePath) -> TaskTypePath:
        """The path by which a node was asked last, also one that was renamed since; of an unknown one, itself."""
        node = self.find(path)
        return path if node is None else asked(node)

    def add(self, nodes: Iterable[Node]) -> TaxonomyVersion:
        """The next version, with these nodes added. Raises TaxonomyError for a path that exists already."""
        return TaxonomyVersion(self.number + 1, self.number, (*self.nodes, *nodes))

    def retire(self, *paths: TaskTypePath) -> TaxonomyVersion:
        """The next version, with these nodes and all below them retired. They stay in it, and are not proposed again.

        Raises TaxonomyError where no live node has one of these paths.
        """
        gone = set()
        for path in paths:
            node = self.find(path)
            if node is None or node.status != LIVE:
                state = "is not there" if node is None else "is retired already"
                raise TaxonomyError(
                    f"taxonomy version {self.number}: '{labels.shown(path)}' {state}, so that it cannot be retired.\n"
                    "  Give the whole path as the tree shows it, levels joined by '~'."
                )
            gone.add(node.path)
        nodes = tuple(
            replace(node, status=RETIRED) if not {node.path, *labels.ancestors(node.path)}.isdisjoint(gone) else node
            for node in self.nodes
        )
        return TaxonomyVersion(self.number + 1, self.number, nodes)


def struck_out(nodes: Sequence[Node], added: Iterable[Node], paths: Collection[TaskTypePath]) -> tuple[Node, ...]:
    """The nodes of a proposed version, of which a person struck out those of ``added`` with these paths.

    These and all below them become retired, so that they are not proposed again. Where a task type would have no child
    but retired ones, and so be no task type any more, they are left out instead. Raises TaxonomyError for a path that
    is not among ``added``.
    """
    new = {node.path for node in added}
    if unknown := sorted(set(paths) - new):
        raise TaxonomyError(
            f"'{labels.shown(unknown[0])}' is no new node of this proposal, so it cannot be struck out. Choose among "
            "those that the form offers, and clear `approve`."
        )
    gone = {path for path in new if not {path, *labels.ancestors(path)}.isdisjoint(paths)}
    children = Counter(labels.parent(node.path) for node in nodes if node.path not in gone)
    left_out = {path for path in gone if (above := labels.parent(path)) and above not in gone and not children[above]}
    return tuple(
        replace(node, status=RETIRED) if node.path in gone else node
        for node in nodes
        if node.path not in gone or {node.path, *labels.ancestors(node.path)}.isdisjoint(left_out)
    )


@dataclass(frozen=True, slots=True)
class Renamed:
    """A node that has another path in the later version."""

    before: TaskTypePath
    after: TaskTypePath
    how: str  # "renamed", "moved" (below another node), "merged" (into a node that is another's, too)
    kept: bool  # whether the later node is asked as the former was, so that its answers count


@dataclass(frozen=True, kw_only=True)
class Diff:
    """The difference of two versions; each part in order of paths."""

    added: tuple[Node, ...]  # without paths that nodes had between the two versions
    removed: tuple[Node, ...]
    retired: tuple[Node, ...]  # as they are in the later version
    changed: tuple[tuple[Node, Node], ...]  # before, after: live again, or another origin or description
    renamed: tuple[Renamed, ...] = ()  # none of them is among the others

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retired or self.changed or self.renamed)


def diff(a: TaxonomyVersion, b: TaxonomyVersion) -> Diff:
    """What changed from ``a`` to ``b``; the result is false where nothing did."""
    before = {node.path: node for node in a.nodes}
    after = {node.path: node for node in b.nodes}
    renamed = _renamed(before, after, b)
    gone, come = {each.before for each in renamed}, {each.after for each in renamed if each.how != "merged"}
    both = [
        (node, after[node.path])
        for node in a.nodes
        if node.path in after and node != after[node.path] and node.path not in gone | come
    ]
    return Diff(
        added=tuple(node for node in b.nodes if not (node.path in before or node.path in come or node.successor)),
        removed=tuple(node for node in a.nodes if node.path not in after and node.path not in gone),
        retired=tuple(new for old, new in both if old.status == LIVE and new.status == RETIRED),
        changed=tuple((old, new) for old, new in both if not (old.status == LIVE and new.status == RETIRED)),
        renamed=renamed,
    )


def _renamed(
    before: Mapping[TaskTypePath, Node], after: Mapping[TaskTypePath, Node], later: TaxonomyVersion
) -> tuple[Renamed, ...]:
    """What was live before and has another path in the later version, in order of the former paths."""
    sources: dict[TaskTypePath, list[Node]] = {}
    for path, node in before.items():
        now = after.get(path)
        # A spelling that was changed leaves no retired node behind, because it is the same path.
        end = (later.find(path) and later.became(path)) if now is None else now.successor and later.became(path)
        if node.status == LIVE and end and end != path and not (now and now.status == LIVE):
            sources.setdefault(end, []).append(node)
    found = []
    for end, nodes in sources.items():
        there = end in before and before[end].status == LIVE
        known_as = later.asked_of(end)
        first = next((node for node in nodes if asked(node) == known_as), nodes[0])
        for node in nodes:
            alike = labels.parent(node.path) == labels.parent(end) or labels.name(node.path) != labels.name(end)
            how = "merged" if there or node is not first else "renamed" if alike else "moved"
            found.append(Renamed(node.path, end, how, asked(node) == known_as))
    return tuple(sorted(found, key=lambda each: each.before))


def tree(version: TaxonomyVersion, depth: int = labels.MAX_LEVELS) -> list[str]:
    """The version as lines of text, indented by level; groups with their number of task types, retired nodes marked.

    depth: the levels to show; nodes below are only counted.
    """
    leaves = version.leaves()
    is_leaf = {node.path for node in leaves}
    below = Counter(above for node in leaves for above in labels.ancestors(node.path))
    # Sorted by labels, not by paths: ``~`` sorts after letters, so that other nodes would come between node and child.
    ordered: Sequence[Node] = sorted(version.nodes, key=lambda node: node.path.split(labels.SEPARATOR))
    first = sum(node.level == 1 and node.status == LIVE for node in version.nodes)
    lines = [f"version {version.number}: {len(leaves)} task types in {first} first-level nodes"]
    for node in ordered:
        if node.level > depth:
            continue
        line = "  " * node.level + labels.name(node.path)
        if node.status == RETIRED:
            line += f"  [now {node.successor}]" if node.successor else "  [retired]"
        elif node.path not in is_leaf:
            line += f"  ({below[node.path]})"
        lines.append(line)
    return lines
