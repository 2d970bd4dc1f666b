"""Coverage: below which nodes of the taxonomy there are many fitting images and few task types."""

from __future__ import annotations

from collections import Counter

from taskgalaxy_ops.generation.run import RunOptions, generate
from taskgalaxy_ops.records import Relevant, TaskTypePath
from taskgalaxy_ops.taxonomy import ancestors
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace


def crowded(workspace: Workspace, at_least: float) -> dict[TaskTypePath, float]:
    """Nodes below which there are many images and few task types: fitting images a live leaf, from ``at_least`` on.

    Counted from the committed filter shards that the settings and the newest version lead to; asks and encodes nothing
    that has not been.
    """
    leaves = Counter(above for leaf in TaxonomyStore(workspace).version().leaves() for above in ancestors(leaf.path))
    fitting: Counter[TaskTypePath] = Counter()
    if workspace.registry.shards():
        for shard in generate(workspace, RunOptions(last_stage="filter", ask=False, commit=False)).shards:
            part = shard.stages["filter"]
            rows = (
                workspace.stage_outputs.load(part.stage_output, "relevant", Relevant)
                if part.stage_output
                else part.rows["relevant"]
            )
            fitting.update(above for row in rows for above in ancestors(row.task_type))
    found = {path: fitting[path] / number for path, number in leaves.items()}
    return {path: share for path, share in found.items() if share >= at_least}
