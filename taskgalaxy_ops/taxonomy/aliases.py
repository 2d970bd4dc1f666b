"""Rename, move and merge nodes of a taxonomy version. Pure.

A node that gets another path takes along all below it. Where answers are kept, it is asked as before (``asked_as``), so
that nothing is asked again. The former node stays in the version, retired, with its ``successor``: it is not proposed
again, and whoever looks for it finds what it became.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.records import Node, TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.version import LIVE, RETIRED, TaxonomyVersion, asked, live_leaves


def rename(version: TaxonomyVersion, old: str, new: str, *, keep: bool = True) -> TaxonomyVersion:
    """The next version, with a node under another name. new: its name, or its whole path with ``~``.

    keep: whether its answers count for it. Raises TaxonomyError where ``old`` is no live node, or ``new`` is taken or
    no path that a person may write.
    """
    node = _live(version, old, "renamed")
    path = labels.as_written(new)
    if labels.SEPARATOR not in path:
        path = labels.join(labels.parent(node.path), path)
    return _Moving(version, keep).all([(node, path)], merge=False)


def move(version: TaxonomyVersion, path: str, below: str, *, keep: bool = True) -> TaxonomyVersion:
    """The next version, with a node and all below it below another node (empty: on the first level).

    Raises TaxonomyError as ``rename`` does, and where ``below`` is no live node, or a task type.
    """
    node = _live(version, path, "moved")
    above = _live(version, below, "moved to").path if labels.as_written(below) else ""
    return _Moving(version, keep).all([(node, labels.join(above, labels.name(node.path)))], merge=False)


def merge(version: TaxonomyVersion, old: Sequence[str], into: str, *, keep: bool = True) -> TaxonomyVersion:
    """The next version, with nodes, and those of the same name below them, merged into one.

    Where ``into`` is a live node, it is asked as before; else it is asked as the first of ``old``, if answers are kept.
    The answers of the others count no more. Raises TaxonomyError as ``rename`` does, and where a group would be merged
    with a task type.
    """
    nodes = [_live(version, each, "merged") for each in old]
    for node in nodes:
        if any(other.path in labels.ancestors(node.path) for other in nodes):
            raise TaxonomyError(
                f"taxonomy version {version.number}: '{node.path}' lies below another of those that are to be merged."
            )
    path = labels.as_written(into)
    if (there := version.find(path)) is not None:
        path = there.path
    elif labels.SEPARATOR not in path:
        path = labels.join(labels.parent(nodes[0].path), path)
    return _Moving(version, keep).all([(node, path) for node in nodes if node.path != path], merge=True)


def _live(version: TaxonomyVersion, path: str, what: str) -> Node:
    node = version.find(labels.as_written(path))
    if node is None or node.status != LIVE:
        state = "is not there" if node is None else "is retired"
        if node is not None and node.successor:
            state = f"became '{version.became(node.path)}'"
        raise TaxonomyError(
            f"taxonomy version {version.number}: '{labels.shown(path)}' {state}, so that nothing can be {what}.\n"
            "  Give the whole path of a live node as the tree shows it, levels joined by '~'."
        )
    return node


class _Moving:
    """The nodes of a version while some of them get other paths."""

    def __init__(self, version: TaxonomyVersion, keep: bool) -> None:
        self._version, self._keep = version, keep
        self._nodes = {labels.identity(node.path): node for node in version.nodes}
        self._leaves = {node.path for node in version.leaves()}
        self._to_be_leaves: list[TaskTypePath] = []

    def all(self, wanted: Sequence[tuple[Node, TaskTypePath]], *, merge: bool) -> TaxonomyVersion:
        """The next version, with each of these nodes at its new path. merge: whether a live node may be there."""
        for node, path in wanted:
            self._check(node, path, merge)
            self._prepare(path)
            for each in self._below(node.path, all_of=labels.identity(path) == labels.identity(node.path)):
                self._move(each, path + each.path[len(node.path) :], merge)
        made = TaxonomyVersion(self._version.number + 1, self._version.number, tuple(self._nodes.values()))
        leaves = {node.path for node in made.leaves()}
        live = {node.path for node in made.nodes if node.status == LIVE}
        if divided := sorted({*self._leaves, *self._to_be_leaves} & live - leaves):
            raise self._error(
                f"'{divided[0]}' would be a group, and no task type, because there are nodes below it, live or "
                "retired. Name another path"
            )
        return made

    def _check(self, node: Node, path: TaskTypePath, merge: bool) -> None:
        if (reason := labels.check_written(path)) is not None:
            raise self._error(f"'{labels.shown(path)}' cannot be a path ({reason})")
        if path == node.path:
            raise self._error(f"'{path}' has this path already")
        if labels.identity(path).startswith(labels.identity(node.path) + labels.SEPARATOR):
            raise self._error(f"'{path}' lies below '{node.path}' itself")
        there = self._nodes.get(labels.identity(path))
        if there is not None and there.status == LIVE and not merge and there.path != node.path:
            raise self._error(f"'{there.path}' is there already: `taxonomy merge` makes one of the two")

    def _prepare(self, path: TaskTypePath) -> None:
        """See to it that the nodes above a path are there and live."""
        for above in labels.ancestors(path):
            one = labels.identity(above)
            if one not in self._nodes:
                self._nodes[one] = Node(above, labels.level(above), "hand", LIVE)
            elif (there := self._nodes[one]).status != LIVE:
                self._nodes[one] = replace(there, status=LIVE, successor=None)

    def _below(self, path: TaskTypePath, *, all_of: bool) -> list[Node]:
        """A node and all below it, by level; unless ``all_of``, without what only points to a successor.

        Such a one goes along where a group has no other child, because without any it would become a task type.
        """
        found = [each for each in self._nodes.values() if path in (each.path, *labels.ancestors(each.path))]
        filled = {labels.parent(each.path) for each in found if not each.successor}
        going: dict[TaskTypePath, Node] = {}
        for each in sorted(found, key=lambda each: (each.level, each.path)):
            above = labels.parent(each.path)
            if all_of or not each.successor or (above in going and above not in filled):
                going[each.path] = each
        return list(going.values())

    def _move(self, node: Node, path: TaskTypePath, merge: bool) -> None:
        if labels.level(path) > labels.MAX_LEVELS:
            raise self._error(f"'{path}' would lie on level {labels.level(path)}; {labels.MAX_LEVELS} at most")
        here, one = labels.identity(node.path), labels.identity(path)
        there = None if here == one else self._nodes.get(one)
        if there is not None and (there.status == LIVE or node.status != LIVE):
            self._merge(node, there, merge)
            return
        above = labels.parent(path)
        spelled = labels.join(self._nodes[labels.identity(above)].path, labels.name(path)) if above else path
        as_before = asked(node) if self._keep else spelled
        moved = replace(
            node,
            path=spelled,
            level=labels.level(spelled),
            asked_as=None if as_before == spelled else as_before,
            successor=node.successor if node.status != LIVE else None,
        )
        if here != one:  # where only the spelling differs, it is the same node
            self._nodes[here] = replace(node, status=RETIRED, successor=spelled)
        self._nodes[one] = moved
        if node.path in self._leaves:
            self._to_be_leaves.append(spelled)

    def _merge(self, node: Node, there: Node, merge: bool) -> None:
        """Make ``there``, which stays as it is, the successor of a node that has none."""
        if node.status == LIVE and not merge:
            raise self._error(f"'{there.path}' is there already: `taxonomy merge` makes one of the two")
        if node.status == LIVE and (node.path in self._leaves) != self._is_leaf(there):
            kinds = ("a task type", "a group") if node.path in self._leaves else ("a group", "a task type")
            raise self._error(f"'{node.path}' is {kinds[0]} and '{there.path}' {kinds[1]}: they cannot be merged")
        gone = replace(node, status=RETIRED, successor=node.successor or there.path)
        self._nodes[labels.identity(node.path)] = gone

    def _is_leaf(self, node: Node) -> bool:
        return any(node.path == leaf.path for leaf in live_leaves(self._nodes.values()))

    def _error(self, what: str) -> TaxonomyError:
        return TaxonomyError(f"taxonomy version {self._version.number}: {what}.")
