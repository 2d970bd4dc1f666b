"""The story of a task type: when it came, what it was matched to, what came of that, and why the rest did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskgalaxy_ops.generation.stages import STAGE, STAGES
from taskgalaxy_ops.operations.shard_state import store_state
from taskgalaxy_ops.records import Node
from taskgalaxy_ops.release.publish import published
from taskgalaxy_ops.release.published_rows import ReleaseRows
from taskgalaxy_ops.storage.id_index import lookup
from taskgalaxy_ops.storage.parquet import columns
from taskgalaxy_ops.storage.registry.state import ImageShard
from taskgalaxy_ops.storage.shards import StageOutput, TableRef
from taskgalaxy_ops.taxonomy.store import TaxonomyStore
from taskgalaxy_ops.workspace import Workspace

# --- a task type

FATES = pa.schema([("task_type", pa.string()), ("fate", pa.string()), ("images", pa.int64())])


def explain_task_type(look: Workspace, path: str, shards: Sequence[ImageShard]) -> dict[str, Any]:
    there = store_state(look, shards).shards
    unfinished = sum(not one.settled for one in there)
    stage_outputs = {
        stage_output.marker: stage_output
        for one in there
        for stage, stage_output in one.stage_outputs.items()
        if STAGE[stage].counts
    }
    readers = {
        name: lambda stage_output=stage_output: _fates(look, stage_output)
        for name, stage_output in stage_outputs.items()
    }
    table = lookup(look.store, "types", FATES, readers)
    mine = table.filter(pc.equal(table["task_type"], path))
    fates: Counter[str] = Counter()
    for fate, images in zip(mine["fate"].to_pylist(), mine["images"].to_pylist(), strict=True):
        fates[fate] += images
    return {
        "task_type": path,
        "history": _history(look, path),
        **{fate: fates.pop(fate, 0) for stage in STAGES for fate in stage.counts.values()},
        "rejected": dict(sorted(fates.items())),
        "unfinished_shards": unfinished,
        "releases": {
            one.name: count
            for one in published(look)
            if (count := ReleaseRows(look.store, one.version).samples_of(path))
        },
    }


def _fates(look: Workspace, stage_output: StageOutput) -> pa.Table:
    """What a shard made of each task type, in numbers: what came out, and rejects by reason."""
    refs: Mapping[str, TableRef] = look.stage_outputs.refs(stage_output)
    found: Counter[tuple[str, str]] = Counter()
    for name, fate in STAGE[stage_output.stage].counts.items():
        for path in columns(look.store.get(refs[name].key), ["task_type"])["task_type"].to_pylist():
            found[path, fate] += 1
    if "rejects" in refs:
        rejects = columns(look.store.get(refs["rejects"].key), ["task_type", "reason"])
        for path, reason in zip(rejects["task_type"].to_pylist(), rejects["reason"].to_pylist(), strict=True):
            found[path, f"{stage_output.stage}: {reason}"] += 1
    rows = [{"task_type": path, "fate": fate, "images": count} for (path, fate), count in sorted(found.items())]
    return pa.Table.from_pylist(rows, schema=FATES)


def _history(look: Workspace, path: str) -> list[dict[str, Any]]:
    """The versions in which the node came, changed or went, with how each came to be."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] | None = None
    versions = TaxonomyStore(look).versions()
    for version, table in zip(versions, node_tables(look, list(Node.__slots__)), strict=True):
        rows = table.filter(pc.equal(table["path"], path)).to_pylist()
        now = rows[0] if rows else None
        if now != before:
            what = "added" if before is None else "removed" if now is None else now["status"]
            told = {name: now[name] for name in ("origin", "status", "about")} if now else {}
            found.append({"version": version["version"], "by": version["origin"], "what": what, **told})
        before = now
    return found


def node_tables(look: Workspace, names: Sequence[str]) -> list[pa.Table]:
    """Columns of each taxonomy version's nodes, oldest first."""
    return TaxonomyStore(look).node_columns(names)
