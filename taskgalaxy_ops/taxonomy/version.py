"""A taxonomy version: numbered, immutable, comparable with another.

Its number is decided where it is published (store.py); nothing here reads or writes a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class TaxonomyVersion:
    """One version: its number, the version that it grew from (None: from seeds) and its nodes, sorted by path.

    Raises TaxonomyError where a path occurs twice, its parent is missing, its level is wrong, or a live node lies below
    a retired one.
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

    def leaves(self) -> tuple[Node, ...]:
        """The task types, sorted by path (see ``live_leaves``)."""
        return live_leaves(self.nodes)

    def find(self, path: TaskTypePath) -> Node | None:
        """The node of this path, if there is one."""
        return next((node for node in self.nodes if node.path == path), None)

    def add(self, nodes: Iterable[Node]) -> TaxonomyVersion:
        """The next version, with these nodes added. Raises TaxonomyError for a path that exists already."""
        return TaxonomyVersion(self.number + 1, self.number, (*self.nodes, *nodes))

    def retire(self, *paths: TaskTypePath) -> TaxonomyVersion:
        """The next version, with these nodes and all below them retired. They stay in it, and are not proposed again.

        Raises TaxonomyError where no live node has one of these paths.
        """
        for path in paths:
            node = self.find(path)
            if node is None or node.status != LIVE:
                state = "is not there" if node is None else "is retired already"
                raise TaxonomyError(
                    f"taxonomy version {self.number}: '{labels.shown(path)}' {state}, so that it cannot be retired.\n"
                    "  Give the whole path as the tree shows it, levels joined by '~'."
                )
        nodes = tuple(
            replace(node, status=RETIRED) if not {node.path, *labels.ancestors(node.path)}.isdisjoint(paths) else node
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


@dataclass(frozen=True)
class Diff:
    """The difference of two versions; each part in order of paths."""

    added: tuple[Node, ...]
    removed: tuple[Node, ...]
    retired: tuple[Node, ...]  # as they are in the later version
    changed: tuple[tuple[Node, Node], ...]  # before, after: live again, or another origin or description

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retired or self.changed)


def diff(a: TaxonomyVersion, b: TaxonomyVersion) -> Diff:
    """What changed from ``a`` to ``b``; the result is false where nothing did."""
    before = {node.path: node for node in a.nodes}
    after = {node.path: node for node in b.nodes}
    both = [(node, after[node.path]) for node in a.nodes if node.path in after and node != after[node.path]]
    return Diff(
        added=tuple(node for node in b.nodes if node.path not in before),
        removed=tuple(node for node in a.nodes if node.path not in after),
        retired=tuple(new for old, new in both if old.status == LIVE and new.status == RETIRED),
        changed=tuple((old, new) for old, new in both if not (old.status == LIVE and new.status == RETIRED)),
    )


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
            line += "  [retired]"
        elif node.path not in is_leaf:
            line += f"  ({below[node.path]})"
        lines.append(line)
    return lines
