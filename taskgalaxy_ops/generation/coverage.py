"""Coverage: find the nodes of the taxonomy that have many fitting images and few task types."""

from __future__ import annotations

from collections import Counter

from taskgalaxy_ops.generation.run import RunOptions, generate
from taskgalaxy_ops.records import Relevant, TaskTypePath
from taskgalaxy_ops.taxonomy import ancestors
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def crowded(workspace: Workspace, at_least: float) -> dict[TaskTypePath, float]:
    """By node, the fitting images a live leaf below it; only nodes with at least ``at_least``.

    Counted from the filter's outputs under the settings and the newest taxonomy version, as far as there are answers;
    asks no model.
    """
    version = TaxonomyStore(workspace).version()
    leaves = Counter(above for leaf in version.leaves() for above in ancestors(leaf.path))
    fitting: Counter[TaskTypePath] = Counter()
    if workspace.registry.shards():
        for shard in generate(workspace, RunOptions(last_stage="filter", ask=False, commit=False)).shards:
            part = shard.stages["filter"]
            rows = (
                workspace.stage_outputs.load(part.stage_output, "relevant", Relevant)
                if part.stage_output
                else part.rows["relevant"]
            )
            fitting.update(above for row in rows for above in ancestors(version.shown(row.task_type)))
    images_a_leaf = {path: fitting[path] / number for path, number in leaves.items()}
    return {path: share for path, share in images_a_leaf.items() if share >= at_least}
