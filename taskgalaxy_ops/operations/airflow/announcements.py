"""Announcements: which sources are to be run, and which of them have ended. What lets a release wait for all of them.

A log: ``{"kind": "announce", "sources", "reason", "at", "orders"}`` and ``{"kind": "ended", "source", "seen",
"pending"}``. A run of a source ends that source in every announcement that it had seen when it began, whole or with
something pending; those made while it ran are the next run's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgalaxy_ops.storage import keys
from taskgalaxy_ops.storage.log import Log
from taskgalaxy_ops.workspace import Workspace

_FORGET_ABOVE = 1000  # entries: then those of finished announcements are dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Sources that were announced together, and those of them that have not ended."""

    number: int
    sources: Sequence[str]
    open: Sequence[str]
    reason: str
    at: float  # seconds since the epoch
    orders: Mapping[str, Any]  # what its runs are to do otherwise: settings_version, max_cost (USD, of the lifetime)


def announce(workspace: Workspace, sources: Sequence[str], reason: str, **orders: Any) -> int | None:
    """Announce these sources together; the announcement's number, None where there is no source."""
    if not sources:
        return None
    body = {"kind": "announce", "sources": sorted(sources), "reason": reason, "at": time.time(), "orders": orders}
    return _log(workspace).append(body).number


def seen(workspace: Workspace) -> int:
    """The number up to which announcements have been made: what a run that begins now will have ended."""
    log = _log(workspace)
    log.read()
    return log.last


def ended(workspace: Workspace, source: str, upto: int, pending: int) -> None:
    """A run of ``source`` that began at number ``upto`` has ended; ``pending`` units have no answer."""
    log = _log(workspace)
    log.append({"kind": "ended", "source": source, "seen": upto, "pending": pending})
    if len(log.known()) > _FORGET_ABOVE:
        still = {each.number for each in announced(workspace) if each.open}
        log.compact(lambda entries: [e for e in entries if e.number >= min(still, default=log.last)])


def announced(workspace: Workspace) -> list[Announcement]:
    """Every announcement that the log still holds, oldest first."""
    entries = _log(workspace).read()
    ends = [entry.body for entry in entries if entry.body["kind"] == "ended"]
    found = []
    for entry in entries:
        if entry.body["kind"] == "announce":
            done = {end["source"] for end in ends if end["seen"] >= entry.number}
            sources = entry.body["sources"]
            waiting = [source for source in sources if source not in done]
            body = entry.body
            found.append(
                Announcement(
                    number=entry.number,
                    sources=sources,
                    open=waiting,
                    reason=body["reason"],
                    at=body["at"],
                    orders=body["orders"],
                )
            )
    return found


def orders(workspace: Workspace, source: str) -> dict[str, Any]:
    """What the newest announcement that still waits for a source orders; empty: nothing in particular."""
    return next((dict(each.orders) for each in reversed(announced(workspace)) if source in each.open), {})


def awaited(workspace: Workspace) -> list[str]:
    """Live sources that were announced, and have not ended, within the last ``airflow.wait_hours``."""
    since = time.time() - 3600 * workspace.settings.airflow.wait_hours
    live = workspace.registry.scans()
    return sorted({s for each in announced(workspace) if each.at >= since for s in each.open if s in live})


def _log(workspace: Workspace) -> Log:
    return Log(workspace.store, keys.ANNOUNCEMENTS_LOG)
