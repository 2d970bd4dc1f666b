"""Where the taxonomy starves and where it floods: coverage against what each task type should have.

A task type starves while it has fewer samples than its target, and floods with more than four times as many. The target
is the caller's; else that of the settings' ``targets``; else the median of the task types that have samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taskgalaxy_ops.errors import TaxonomyError
from taskgalaxy_ops.generation.coverage import Counts, Coverage, Numbers
from taskgalaxy_ops.generation.targets import TargetRules
from taskgalaxy_ops.records import TaskTypePath
from taskgalaxy_ops.taxonomy import ancestors, normalise_path, weaknesses
from taskgalaxy_ops.text import shown
from taskgalaxy_ops.workspace import Workspace

FLOOD = 4  # times its target, from which a task type floods
_SEPARATOR = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeCoverage:
    """What a task type has; the counts as in ``Counts``."""

    path: TaskTypePath
    samples: int
    target: int
    matched: int
    kept: int
    pairs: int
    why: str  # what it has no samples for; "" where it has some


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchCoverage:
    """What the task types at and below a node have together."""

    path: TaskTypePath
    task_types: int
    starving: int
    flooding: int
    samples: int
    matched: int
    kept: int
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageReport:
    """Coverage as a person reads it. Everything but the first line of numbers is of the chosen branch alone."""

    taxonomy: int
    images: int
    waiting: int
    pending: int
    unmatched: int
    target: int  # the usual one; some task types may have their own
    branch: TaskTypePath | None
    task_types: int
    starving: int
    flooding: int
    total: Mapping[str, int]
    sources: Mapping[str, Mapping[str, int]]
    forms: Mapping[str, Mapping[str, int]]
    branches: Sequence[BranchCoverage]  # the nodes right below, in order of path
    types: Sequence[TypeCoverage]  # those that were asked for, worst first


def targets_of(workspace: Workspace, coverage: Coverage, given: int | None = None) -> Numbers:
    """The samples that each task type should have, (m,); given: the same for all."""
    if given is not None:
        return np.full(len(coverage.types), given, np.int64)
    if workspace.settings.targets is None:
        some = coverage.counts.samples[coverage.counts.samples > 0]
        return np.full(len(coverage.types), round(float(np.median(some))) if some.size else 1, np.int64)
    rules = TargetRules(workspace.settings.targets, weaknesses=weaknesses.in_force(workspace))
    return np.array([rules.of(path).samples for path in coverage.types], np.int64)


def report(
    coverage: Coverage,
    targets: Numbers,
    *,
    branch: TaskTypePath | None = None,
    below: int | None = None,
    most: int | None = None,
) -> CoverageReport:
    """The task types of a branch (None: all), worst first: those with fewer than ``below`` samples, ``most`` of them.

    Worst is who lacks the largest share of its target, and among these who has the fewest images.
    """
    order = listed(coverage, targets, branch)
    rows, counts = np.sort(order), coverage.counts
    if below is not None:
        order = order[counts.samples[order] < below]
    levels = len(branch.split(_SEPARATOR)) if branch else 0
    nodes: dict[TaskTypePath, list[int]] = {}
    for row in rows.tolist():
        parts = coverage.types[row].split(_SEPARATOR)
        nodes.setdefault(_SEPARATOR.join(parts[: levels + 1]), []).append(row)
    return CoverageReport(
        taxonomy=coverage.taxonomy,
        images=coverage.images,
        waiting=coverage.waiting,
        pending=coverage.pending,
        unmatched=coverage.unmatched,
        target=int(np.median(targets)) if targets.size else 0,
        branch=branch,
        task_types=len(rows),
        starving=int(starving(counts, targets)[rows].sum()),
        flooding=int(flooding(counts, targets)[rows].sum()),
        total=counts.sums(rows),
        sources={name: each.sums(rows) for name, each in coverage.by_source.items()},
        forms={
            name: {what: own for what, own in each.sums(rows).items() if what in {"pairs", "samples"}}
            for name, each in coverage.by_form.items()
        },
        branches=[_branch(path, own, counts, targets) for path, own in sorted(nodes.items())],
        types=[_type(coverage, targets, row) for row in order[:most].tolist()],
    )


def listed(coverage: Coverage, targets: Numbers, branch: TaskTypePath | None = None) -> NDArray[np.intp]:
    """The places in ``Coverage.types`` of the task types of a branch (None: all), in the order of a report."""
    counts = coverage.counts
    order: NDArray[np.intp] = np.lexsort(
        (np.arange(len(targets)), counts.kept, counts.matched, counts.samples / targets)
    )
    if branch is None:
        return order
    within = np.array([branch in ancestors(path) for path in coverage.types], bool)
    within_branch: NDArray[np.intp] = order[within[order]]
    return within_branch


def branch_of(coverage: Coverage, given: str) -> TaskTypePath:
    """The node that a person means: as it is spelled, or in the normal spelling. Raises TaxonomyError."""
    nodes = {above for path in coverage.types for above in ancestors(path)}
    for branch in (given, normalise_path(given)):
        if branch in nodes:
            return branch
    raise TaxonomyError(f"coverage: no task type is '{shown(given)}' or below it. See `taskgalaxy taxonomy tree`.")


def starving(counts: Counts, targets: Numbers) -> NDArray[np.bool_]:
    """(m,): whether a task type has fewer samples than its target."""
    found: NDArray[np.bool_] = counts.samples < targets
    return found


def flooding(counts: Counts, targets: Numbers) -> NDArray[np.bool_]:
    """(m,): whether a task type has more samples than ``FLOOD`` times its target."""
    found: NDArray[np.bool_] = counts.samples > FLOOD * targets
    return found


def _type(coverage: Coverage, targets: Numbers, row: int) -> TypeCoverage:
    own = coverage.counts.sums([row])
    return TypeCoverage(path=coverage.types[row], target=int(targets[row]), why=why(own), **own)


def why(own: Mapping[str, int]) -> str:
    """At what a task type without samples ends, by its counts; "" where it has some."""
    if own["samples"]:
        return ""
    if not own["matched"]:
        return "no image is near it"
    if not own["kept"]:
        return "it fits no image that is near it"
    return "no pair is accepted" if own["pairs"] else "no pair is written"


def _branch(path: TaskTypePath, rows: Sequence[int], counts: Counts, targets: Numbers) -> BranchCoverage:
    return BranchCoverage(
        path=path,
        task_types=len(rows),
        starving=int(starving(counts, targets)[rows].sum()),
        flooding=int(flooding(counts, targets)[rows].sum()),
        **counts.sums(rows),
    )
