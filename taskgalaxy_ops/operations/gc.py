"""Upkeep: delete objects that nothing refers to, and fold long logs. Nothing here loses an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from taskgalaxy_ops.errors import NotFoundError
from taskgalaxy_ops.hashing import canonical_json
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.release.publish import unfinished
from taskgalaxy_ops.storage import Listed, keys
from taskgalaxy_ops.storage.journal import Journal
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.review_log import ReviewLog
from taskgalaxy_ops.taxonomy.store import type_logs
from taskgalaxy_ops.workspace import Workspace

GRACE_SECONDS = 7 * 24 * 3600.0  # longer than any scan, or stage of an image shard, from its first write to its last

_DATA_KEY = re.compile(re.escape(keys.DATA.encode()) + rb"[0-9a-f]{2}/[0-9a-f]+-[0-9a-f]+\.parquet")
_PARTS_WORTH_FOLDING = 64  # entries of a journal


@dataclass(slots=True)
class Collected:
    """The objects that nothing refers to and that are older than the grace period: deleted, or only counted."""

    objects: int = 0
    size: int = 0  # bytes
    young: int = 0  # objects that nothing refers to, younger than the grace period: they are left alone
    first: tuple[str, ...] = ()  # a few of their keys


def collect(
    workspace: Workspace,
    *,
    grace_seconds: float = GRACE_SECONDS,
    delete: bool = False,
    progress: Progress | None = None,
) -> Collected:
    """Find objects that no marker, log or manifest names, older than ``grace_seconds`` by the store's clock.

    delete: delete them; else only count them. These are tables, images of no image shard, files of abandoned releases,
    heartbeats of dead workers, and outdated records of models' request forms and outages. A log, and so a journal,
    is never deleted. Safe beside running pipelines, if none takes longer than the grace period from writing a table to
    the marker that names it (ingest: from its first file to its last).
    """
    progress = progress or Silent()
    found = Collected()
    candidates = [*unreferenced(workspace), *_orphaned(workspace), *unfinished(workspace)]
    for prefix in (keys.WORKERS, keys.FORMS, keys.HEALTH):
        candidates += workspace.store.list(prefix)
    progress.stage("collect", len(candidates), "objects")
    for listed in candidates:
        progress.advance("collect")
        try:
            if workspace.store.age(listed.key) <= grace_seconds:
                found.young += 1
                continue
        except NotFoundError:  # another collected it
            continue
        found.objects, found.size = found.objects + 1, found.size + listed.size
        found.first = (*found.first, listed.key)[:5]
        if delete:
            workspace.store.delete(listed.key)
    return found


def unreferenced(workspace: Workspace) -> Iterator[Listed]:
    """The tables that nothing names, in order of key."""
    # Listed first, so that tables which are written later are not in it.
    written = list(workspace.store.list(keys.DATA))
    used = named_by_logs(workspace)
    for shard in workspace.registry.shards():
        for stage_output in workspace.stage_outputs.all(shard.id):
            used.update(ref.key for ref in workspace.stage_outputs.refs(stage_output).values())
    return (listed for listed in written if listed.key not in used)


def named_by_logs(workspace: Workspace) -> set[str]:
    """The keys of the tables that logs name, including those of the registry."""
    found = workspace.registry.named()
    for log in [keys.VERSIONS_LOG, keys.PROPOSALS_LOG, keys.BENCHMARKS_LOG, *type_logs(workspace)]:
        for entry in Log(workspace.store, log).read():
            found.update(key.decode() for key in _DATA_KEY.findall(canonical_json(entry.body)))
    return found


def _orphaned(workspace: Workspace) -> Iterator[Listed]:
    """Images of scans that were killed before they registered them, and renderings of images that no longer exist."""
    written = [*workspace.store.list(keys.BLOBS), *workspace.store.list(keys.RENDERED)]
    image_index = workspace.registry.known()
    return (listed for listed in written if listed.key.split("/")[2] not in image_index)


def compact(workspace: Workspace, progress: Progress | None = None) -> int:
    """Fold long journals, people's votes, and the settled blocks of the budget's ledger, into bases.

    Returns the number of journals. Safe beside runs: a base is written only if it is absent, and an append that
    collides with it is written again.
    """
    progress = progress or Silent()
    shards = workspace.journals()
    progress.stage("compact", len(shards), "journals")
    folded = 0
    for shard in shards:
        parts = sum(1 for _ in workspace.store.list(f"{keys.journal(shard)}/e/"))
        if parts >= _PARTS_WORTH_FOLDING:
            Journal(workspace.store, shard).compact()
            folded += 1
        progress.advance("compact")
    workspace.ledger().compact()
    ReviewLog(workspace.store).compact()
    return folded
