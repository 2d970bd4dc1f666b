"""Announcements: the sources that are to be run, and those whose run has ended, so that a release can wait for all.

A log: ``{"kind": "announce", "sources", "reason", "at", "orders"}`` and ``{"kind": "ended", "source", "seen",
"pending"}``. When a run of a source ends, complete or with something pending, the source has ended in every
announcement up to number ``seen``: those that were made before the run began. Later ones wait for the next run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace

_FORGET_ABOVE = 1000  # entries in the log: above, those of finished announcements are dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Sources that were announced together. open: those whose run has not ended."""

    number: int
    sources: Sequence[str]
    open: Sequence[str]
    reason: str
    at: float  # seconds since the epoch
    orders: Mapping[str, Any]  # overrides for its runs: settings_version, max_cost (USD, over the store's lifetime)


def announce(workspace: Workspace, sources: Sequence[str], reason: str, **orders: Any) -> int | None:
    """Announce these sources together, and return the announcement's number; None: there is no source."""
    if not sources:
        return None
    body = {"kind": "announce", "sources": sorted(sources), "reason": reason, "at": time.time(), "orders": orders}
    return _log(workspace).append(body).number


def seen(workspace: Workspace) -> int:
    """The number of the latest entry. A run that begins now ends its source in all announcements up to it."""
    log = _log(workspace)
    log.read()
    return log.last


def ended(workspace: Workspace, source: str, upto: int, pending: int) -> None:
    """Record that a run of ``source`` has ended. upto: `seen` when it began. pending: units without an answer."""
    log = _log(workspace)
    log.append({"kind": "ended", "source": source, "seen": upto, "pending": pending})
    if len(log.known()) > _FORGET_ABOVE:
        still = {each.number for each in announced(workspace) if each.open}
        log.compact(lambda entries: [e for e in entries if e.number >= min(still, default=log.last)])


def announced(workspace: Workspace) -> list[Announcement]:
    """Every announcement that the log still holds, oldest first."""
    entries = _log(workspace).read()
    ends = [entry.body for entry in entries if entry.body["kind"] == "ended"]
    announcements = []
    for entry in entries:
        if entry.body["kind"] == "announce":
            done = {end["source"] for end in ends if end["seen"] >= entry.number}
            sources = entry.body["sources"]
            waiting = [source for source in sources if source not in done]
            body = entry.body
            announcements.append(
                Announcement(
                    number=entry.number,
                    sources=sources,
                    open=waiting,
                    reason=body["reason"],
                    at=body["at"],
                    orders=body["orders"],
                )
            )
    return announcements


def left(workspace: Workspace) -> dict[str, int]:
    """By live source, the units that its latest run left without an answer; sources that it left none are not in it."""
    ends = (entry.body for entry in _log(workspace).read() if entry.body["kind"] == "ended")
    pending = {end["source"]: end["pending"] for end in ends}
    live = workspace.registry.scans()
    return {source: units for source, units in sorted(pending.items()) if units and source in live}


def orders(workspace: Workspace, source: str) -> dict[str, Any]:
    """The overrides of the newest announcement in which a source is open; empty: there are none."""
    return next((dict(each.orders) for each in reversed(announced(workspace)) if source in each.open), {})


def awaited(workspace: Workspace) -> list[str]:
    """The live sources that are open in announcements of the last ``airflow.wait_hours``."""
    since = time.time() - 3600 * workspace.settings.airflow.wait_hours
    live = workspace.registry.scans()
    return sorted({s for each in announced(workspace) if each.at >= since for s in each.open if s in live})


def _log(workspace: Workspace) -> Log:
    return Log(workspace.store, keys.ANNOUNCEMENTS_LOG)
