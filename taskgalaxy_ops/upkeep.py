"""Upkeep: what lies about in a store that nothing refers to, and logs made short. Nothing here loses an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from taskgalaxy_ops.catalogue import type_logs
from taskgalaxy_ops.galaxy import Galaxy
from taskgalaxy_ops.progress import Progress, Silent
from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.storage.registry import Home

_DATA_KEY = re.compile(r"data/[0-9a-f]{2}/[0-9a-f]+-[0-9a-f]+\.parquet")
_PARTS_WORTH_FOLDING = 64  # entries of a journal


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """Tables that no marker and no log names: of runs that were killed, or of markers that were deleted."""

    objects: int
    size: int  # bytes
    first: tuple[str, ...]  # a few of their keys


def unreferenced(galaxy: Galaxy, progress: Progress | None = None) -> Unreferenced:
    """What a garbage collection could delete. Deletes nothing: a table may be about to be named by a running task."""
    progress = progress or Silent()
    homes = galaxy.registry.homes()
    progress.stage("references", len(homes), "homes")
    written = {listed.key: listed.size for listed in galaxy.store.list("data/")}  # first: what comes later is in use
    used = galaxy.registry.named()
    logs = [keys.VERSIONS_LOG, keys.PROPOSALS_LOG]
    logs += type_logs(galaxy)
    for log in logs:
        for entry in Log(galaxy.store, log).read():
            used.update(_DATA_KEY.findall(repr(entry.body)))
    for home in homes:
        for shard in galaxy.shards.committed(home.home).values():
            used.update(ref.key for ref in galaxy.shards.refs(shard).values())
        progress.advance("references")
    left = sorted(set(written) - used)
    return Unreferenced(len(left), sum(written[key] for key in left), tuple(left[:5]))


def compact(galaxy: Galaxy, progress: Progress | None = None) -> int:
    """Fold long journals and the budget's settled blocks into bases; how many logs were folded.

    Safe beside runs: a base is written put-if-absent, and an append that it overtook is written again.
    """
    progress = progress or Silent()
    homes: list[Home | None] = [*galaxy.registry.homes(), None]
    progress.stage("compact", len(homes), "journals")
    folded = 0
    for home in homes:
        prefix = keys.journal(home.home if home else keys.TAXONOMY_HOME)
        parts = sum(1 for _ in galaxy.store.list(f"{prefix}/e/"))
        if parts >= _PARTS_WORTH_FOLDING:
            Log(galaxy.store, prefix).compact()
            folded += 1
        progress.advance("compact")
    galaxy.ledger().compact()
    return folded
