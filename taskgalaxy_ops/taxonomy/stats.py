"""How broad, deep and even a taxonomy version is. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.taxonomy import labels
from taskgalaxy_ops.taxonomy.version import LIVE, TaxonomyVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelStats:
    """The live nodes of one level."""

    nodes: int
    task_types: int  # of the nodes, those that are task types
    children: float | None  # live children a group, on average; None: the level has no group
    most_children: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxonomyStats:
    """A taxonomy version in numbers. Nodes are live ones, unless it says retired."""

    version: int
    task_types: int
    nodes: int
    retired: int
    renamed: int  # nodes that are asked by another path than their own
    depth: float | None  # mean level of the task types; None: there is none
    levels: Mapping[int, LevelStats]
    branches: Mapping[TaskTypePath, int]  # task types by first-level node, the most first
    gini: float | None  # of these numbers: 0 where all are alike, near 1 where one branch has all; None: no task type
    evenness: float | None  # their entropy ÷ that of equal branches: 1 where all have as many; None: fewer than two
    origins: Mapping[str, int]  # task types by origin


def taxonomy_stats(version: TaxonomyVersion) -> TaxonomyStats:
    """The numbers of a version."""
    live = [node for node in version.nodes if node.status == LIVE]
    leaves = version.leaves()
    children = Counter(labels.parent(node.path) for node in live if node.level > 1)
    levels = {}
    for level in sorted({node.level for node in live}):
        paths = [node.path for node in live if node.level == level]
        counts = [children[path] for path in paths if children[path]]
        levels[level] = LevelStats(
            nodes=len(paths),
            task_types=sum(leaf.level == level for leaf in leaves),
            children=sum(counts) / len(counts) if counts else None,
            most_children=max(counts, default=0),
        )
    below = Counter(leaf.path.partition(labels.SEPARATOR)[0] for leaf in leaves)
    branches = {node.path: below[node.path] for node in live if node.level == 1}
    return TaxonomyStats(
        version=version.number,
        task_types=len(leaves),
        nodes=len(live),
        retired=len(version.nodes) - len(live),
        renamed=sum(node.asked_as is not None for node in live),
        depth=sum(leaf.level for leaf in leaves) / len(leaves) if leaves else None,
        levels=levels,
        branches=dict(sorted(branches.items(), key=lambda each: (-each[1], each[0]))),
        gini=_gini(sorted(branches.values())),
        evenness=_evenness(list(branches.values())),
        origins=dict(sorted(Counter(leaf.origin for leaf in leaves).items())),
    )


def _gini(ascending: Sequence[int]) -> float | None:
    number, total = len(ascending), sum(ascending)
    if not total:
        return None
    return 2 * sum(place * count for place, count in enumerate(ascending, 1)) / (number * total) - (number + 1) / number


def _evenness(counts: Sequence[int]) -> float | None:
    total = sum(counts)
    if len(counts) < 2 or not total:
        return None
    return sum(-count / total * math.log(count / total) for count in counts if count) / math.log(len(counts))
