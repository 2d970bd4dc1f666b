"""Explain a task type: the versions that changed it, its matches, and what the stages made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskgalaxy_ops.generation.stages import STAGE, STAGES
from taskgalaxy_ops.operations.shard_state import StoreState, store_state
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.storage.id_index import lookup
from taskgalaxy_ops.storage.parquet import columns
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput, TableRef
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.taxonomy.version import asked
from taskgalaxy_ops.workspace import Workspace

FATES = pa.schema([("task_type", pa.string()), ("fate", pa.string()), ("images", pa.int64())])


def explain_task_type(look: Workspace, path: str, shards: Sequence[ImageShard]) -> dict[str, Any]:
    """A task type's history, its numbers of images by stage and reason, and its samples by release.

    look: a snapshot of the workspace. shards: all image shards; those that are not finished are only counted.
    """
    state = store_state(look, shards)
    shard_states = state.shards
    unfinished = sum(not one.settled for one in shard_states)
    stage_outputs = {
        stage_output.marker: stage_output
        for one in shard_states
        for stage, stage_output in one.stage_outputs.items()
        if STAGE[stage].counts
    }
    readers = {
        name: lambda stage_output=stage_output: _fates(look, stage_output)
        for name, stage_output in stage_outputs.items()
    }
    table = lookup(look.store, "types", FATES, readers)
    version = TaxonomyStore(look).version()
    asked_as, node = version.asked_of(path), version.find(path)
    names = {path, *(each.path for each in version.nodes if asked(each) == asked_as)}  # releases have former ones
    rows = table.filter(pc.equal(table["task_type"], asked_as))
    fates: Counter[str] = Counter()
    for fate, images in zip(rows["fate"].to_pylist(), rows["images"].to_pylist(), strict=True):
        fates[fate] += images
    return {
        "task_type": path,
        **({"asked_as": asked_as} if asked_as != path else {}),
        **({"successor": node.successor} if node and node.successor else {}),
        "history": _history(look, path),
        **{fate: fates.pop(fate, 0) for stage in STAGES for fate in stage.counts.values()},
        "rejected": dict(sorted(fates.items())),
        **_target(state, asked_as),
        "unfinished_shards": unfinished,
        "releases": {
            one.name: count
            for one in published(look)
            if (count := ReleaseRows(look.store, one.version).samples_of(names))
        },
    }


def _target(state: StoreState, asked_as: str) -> dict[str, Any]:
    """How the task type stands to its target; nothing where it has none, or no image has it among its nearest."""
    each = state.targets.walked.get(asked_as) if state.targets else None
    if each is None:
        return {}
    told = {"candidates": each.candidates, "tries": each.tries, "most_tries": each.target.tries}
    return {"target": {"standing": each.standing, "samples": each.samples, "of": each.target.samples, **told}}


def _fates(look: Workspace, stage_output: StageOutput) -> pa.Table:
    """By task type, the numbers of rows that a stage output has: its results, and its rejects by reason."""
    refs: Mapping[str, TableRef] = look.stage_outputs.refs(stage_output)
    numbers: Counter[tuple[str, str]] = Counter()
    for name, fate in STAGE[stage_output.stage].counts.items():
        for path in columns(look.store.get(refs[name].key), ["task_type"])["task_type"].to_pylist():
            numbers[path, fate] += 1
    if "rejects" in refs:
        rejects = columns(look.store.get(refs["rejects"].key), ["task_type", "reason"])
        for path, reason in zip(rejects["task_type"].to_pylist(), rejects["reason"].to_pylist(), strict=True):
            numbers[path, f"{stage_output.stage}: {reason}"] += 1
    rows = [{"task_type": path, "fate": fate, "images": count} for (path, fate), count in sorted(numbers.items())]
    return pa.Table.from_pylist(rows, schema=FATES)


def _history(look: Workspace, path: str) -> list[dict[str, Any]]:
    """The versions in which the node was added, changed or removed, with the version's origin."""
    changes: list[dict[str, Any]] = []
    before: dict[str, Any] | None = None
    versions = TaxonomyStore(look).versions()
    fields = ("path", "origin", "status", "about")
    for version, table in zip(versions, node_tables(look, fields), strict=True):
        rows = table.filter(pc.equal(table["path"], path)).to_pylist()
        now = rows[0] if rows else None
        if now != before:
            what = "added" if before is None else "removed" if now is None else now["status"]
            said = {name: now[name] for name in fields[1:]} if now else {}
            changes.append({"version": version["version"], "by": version["origin"], "what": what, **said})
        before = now
    return changes


def node_tables(look: Workspace, names: Sequence[str]) -> list[pa.Table]:
    """Columns of each taxonomy version's nodes, oldest first."""
    return TaxonomyStore(look).node_columns(names)
